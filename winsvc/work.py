"""Makes a service's work from its command line, for the service control manager and for a console."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from types import FrameType

from app.telemetry import set_up_logging
from winsvc.lifecycle import State, Work, run_service
from winsvc.logs import Rotation, rotating_handler
from winsvc.plan import SECRETS
from winsvc.processes import Ask, Process, Tie, environment_of, leave_untied, process_handling
from winsvc.supervise import Patience, ProgramWork


def work_of(arguments: argparse.Namespace, tie: Tie = leave_untied, ask: Ask = Process.terminate) -> Work:
    """The work that the command line describes."""
    rotation = Rotation(arguments.log_bytes, arguments.log_files)
    if arguments.command == "run":
        from winsvc.bridge import BridgeWork  # it takes seconds, and the supervisor of another program does not need it

        return BridgeWork(arguments.config, rotation)
    set_up_logging("info", "json", rotating_handler(arguments.folder / "logs" / "supervisor.log", rotation))
    environment = environment_of(arguments.folder / SECRETS)
    patience = Patience(restart_s=arguments.restart, grace_s=arguments.grace)
    return ProgramWork(arguments.program, process_handling(environment, tie, ask), patience)


class _Console:
    """The journal of a console."""

    def info(self, text: str) -> None:
        """Print a start or stop."""
        print(text, flush=True)

    def error(self, text: str) -> None:
        """Print the error that ended the work."""
        print(text, flush=True)


def debug(arguments: argparse.Namespace) -> int:
    """Run a service at a console until Ctrl-C, on any system."""
    os.chdir(arguments.folder)
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)

    def log_state(state: State, hint_s: float) -> None:
        logging.getLogger("winsvc").debug("%s", state.value)

    return run_service(arguments.name, lambda: work_of(arguments), stop, log_state, _Console())
