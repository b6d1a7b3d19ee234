"""One service's life, from start to stop: plain logic, the same under Windows, at a console and in a test."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

_log = logging.getLogger("winsvc")
_TICK_S = 0.2
#: for importing everything from a cold disk
_START_S = 30.0
#: how much later than it promised a stop may be before it is called a failure
_OVERTIME_S = 5.0


class State(Enum):
    """What the service control manager is told."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Exit:
    """The service's exit codes (`sc query` shows them as SERVICE_EXIT_CODE)."""

    FAILED = 1
    CONFIG = 2
    PORT = 3
    DIED = 4
    OVERDUE = 5


#: What an exit code means, for `status` and the operator's guide.
MEANING = {
    0: "stopped in good order",
    Exit.FAILED: "an error of the service itself; its log has the traceback",
    Exit.CONFIG: "the configuration is wrong; the Event Log and `check` list every problem",
    Exit.PORT: "a port is taken by another program",
    Exit.DIED: "the program ended without being told to",
    Exit.OVERDUE: "the program did not stop in the time it has for it",
}


class Failed(Exception):
    """The service ends in a way that the service control manager shall call a failure."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Work(Protocol):
    """What a service does. `start` begins it and comes back at once; both it and `result` raise Failed."""

    stop_s: float

    def start(self) -> None:
        """Begin."""

    @property
    def started(self) -> bool:
        """It does what it is for."""

    @property
    def ended(self) -> bool:
        """It is over, however it went."""

    def result(self) -> None:
        """After the end: nothing if it went as it was told, else Failed."""

    def ask_to_stop(self) -> None:
        """Stop in good order, within `stop_s`; comes back at once."""


class Journal(Protocol):
    """Where an operator looks first: the Event Log under Windows."""

    def info(self, text: str) -> None:
        """Started, stopped."""

    def error(self, text: str) -> None:
        """What ended the service."""


Report = Callable[[State, float], None]


def host(name: str, make: Callable[[], Work], stop: threading.Event, report: Report, journal: Journal) -> int:
    """Live through one service's life. 0, or the exit code of what went wrong, which the journal then has in words."""
    try:
        report(State.STARTING, _hint(_START_S))
        live(make(), stop, report, lambda: journal.info(f"{name} has started"))
    except Failed as failed:
        _log.critical("%s", failed)
        journal.error(f"{name} has failed: {failed}")
        return failed.code
    except Exception as bug:
        _log.critical("a fault of the service itself", exc_info=True)
        journal.error(f"{name} has failed: {bug!r}")
        return Exit.FAILED
    journal.info(f"{name} has stopped in good order")
    return 0


def live(work: Work, stop: threading.Event, report: Report, running: Callable[[], None]) -> None:
    """Start the work, wait for `stop`, stop it. Raises Failed when it ends by itself or does not end when told."""
    work.start()
    while not work.started and not stop.wait(_TICK_S):
        _refuse_end(work)
        report(State.STARTING, _hint(_START_S))
    if work.started:
        report(State.RUNNING, 0.0)
        running()
    while not stop.wait(_TICK_S):
        _refuse_end(work)
    _stop(work, report)


def _stop(work: Work, report: Report) -> None:
    report(State.STOPPING, _hint(work.stop_s))
    work.ask_to_stop()
    ends_s = time.monotonic() + work.stop_s + _OVERTIME_S
    while not work.ended:
        if time.monotonic() > ends_s:
            raise Failed(Exit.OVERDUE, f"told to stop, still running {work.stop_s + _OVERTIME_S:g}s later")
        time.sleep(_TICK_S)
        report(State.STOPPING, _hint(work.stop_s))
    work.result()


def _refuse_end(work: Work) -> None:
    if work.ended:
        work.result()
        raise Failed(Exit.DIED, "ended without being told to")


def _hint(seconds: float) -> float:
    """A wait hint promises the next report, not the end: some time on top, so that a busy machine does not break the promise."""
    return seconds + 2.0
