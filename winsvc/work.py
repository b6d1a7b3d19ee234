"""From a service's command line to its work; the same under the service control manager and at a console."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from types import FrameType

from app.telemetry import set_up_logging
from winsvc.lifecycle import State, Work, host
from winsvc.logs import Rotation, rotating
from winsvc.plan import SECRETS
from winsvc.processes import Ask, Process, Tie, environment_of, handling, untied
from winsvc.supervise import Patience, ProgramWork


def work_of(arguments: argparse.Namespace, tie: Tie = untied, ask: Ask = Process.terminate) -> Work:
    """The work that the command line describes."""
    rotation = Rotation(arguments.log_bytes, arguments.log_files)
    if arguments.command == "run":
        from winsvc.bridge import BridgeWork  # seconds, which the supervisor of another program need not wait

        return BridgeWork(arguments.config, rotation)
    set_up_logging("info", "json", rotating(arguments.folder / "logs" / "supervisor.log", rotation))
    environment = environment_of(arguments.folder / SECRETS)
    patience = Patience(restart_s=arguments.restart, grace_s=arguments.grace)
    return ProgramWork(arguments.program, handling(environment, tie, ask), patience)


class _Console:
    """The journal of a console."""

    def info(self, text: str) -> None:
        """Started, stopped."""
        print(text, flush=True)

    def error(self, text: str) -> None:
        """What ended the work."""
        print(text, flush=True)


def debug(arguments: argparse.Namespace) -> int:
    """The service's life at a console, until Ctrl-C; on any system."""
    os.chdir(arguments.folder)
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told)

    def report(state: State, hint_s: float) -> None:
        logging.getLogger("winsvc").debug("%s", state.value)

    return host(arguments.name, lambda: work_of(arguments), stop, report, _Console())
