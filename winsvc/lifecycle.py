"""The life of a service, from start to stop. Plain logic: the same on Windows, at a console and in a test."""

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
#: how late a stop may be before it counts as a failure
_OVERTIME_S = 5.0


class State(Enum):
    """The states that the service control manager knows."""

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


#: the exit codes in words, for `status` and the operator's guide
MEANING = {
    0: "stopped in good order",
    Exit.FAILED: "an error of the service itself; its log has the traceback",
    Exit.CONFIG: "the configuration is wrong; the Event Log and `check` list every problem",
    Exit.PORT: "a port is taken by another program",
    Exit.DIED: "the program ended without being told to",
    Exit.OVERDUE: "the program did not stop in the time it has for it",
}


class Failed(Exception):
    """The service ends, and the service control manager must count it as a failure."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Work(Protocol):
    """What a service does. `start` returns at once. `start` and `result` raise Failed."""

    stop_s: float

    def start(self) -> None:
        """Begin."""

    @property
    def started(self) -> bool:
        """Whether it is at work."""

    @property
    def ended(self) -> bool:
        """Whether it is over, successful or not."""

    def result(self) -> None:
        """After the end: raise Failed unless it ended as requested."""

    def ask_to_stop(self) -> None:
        """Begin a clean stop, which takes at most `stop_s`. Returns at once."""


class Journal(Protocol):
    """The log where an operator looks first: on Windows the Event Log."""

    def info(self, text: str) -> None:
        """Log a start or stop."""

    def error(self, text: str) -> None:
        """Log the error that ended the service."""


Report = Callable[[State, float], None]


def run_service(name: str, make: Callable[[], Work], stop: threading.Event, report: Report, journal: Journal) -> int:
    """Run a service from start to stop. Returns 0, or the exit code of a failure, which is then in the journal too."""
    try:
        report(State.STARTING, _wait_hint_s(_START_S))
        run_work(make(), stop, report, lambda: journal.info(f"{name} has started"))
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


def run_work(work: Work, stop: threading.Event, report: Report, running: Callable[[], None]) -> None:
    """Start the work, wait for `stop`, stop it. Raises Failed if it ends by itself or does not stop in time."""
    work.start()
    while not work.started and not stop.wait(_TICK_S):
        _refuse_end(work)
        report(State.STARTING, _wait_hint_s(_START_S))
    if work.started:
        report(State.RUNNING, 0.0)
        running()
    while not stop.wait(_TICK_S):
        _refuse_end(work)
    _stop_work(work, report)


def _stop_work(work: Work, report: Report) -> None:
    report(State.STOPPING, _wait_hint_s(work.stop_s))
    work.ask_to_stop()
    ends_s = time.monotonic() + work.stop_s + _OVERTIME_S
    while not work.ended:
        if time.monotonic() > ends_s:
            raise Failed(Exit.OVERDUE, f"told to stop, still running {work.stop_s + _OVERTIME_S:g}s later")
        time.sleep(_TICK_S)
        report(State.STOPPING, _wait_hint_s(work.stop_s))
    work.result()


def _refuse_end(work: Work) -> None:
    if work.ended:
        work.result()
        raise Failed(Exit.DIED, "ended without being told to")


def _wait_hint_s(seconds: float) -> float:
    """The wait hint for a report. It promises the next report, so it has a margin for a busy machine."""
    return seconds + 2.0
