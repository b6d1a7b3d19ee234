"""Keeps a program running: starts it, restarts it when it ends, and stops it on request. Plain logic, for any system.

The waits between restarts grow. A program that ends early several times in a row is given up: the service must not report
"running" while its program cannot start, and the service control manager has its own restarts.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from winsvc.lifecycle import Exit, Failed

_log = logging.getLogger("winsvc.program")
_LOOK_S = 0.1
#: how many of the program's last lines go to the Event Log
_LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class Patience:
    """The time limits of a supervisor."""

    #: before the first restart; doubled for each further one, up to `longest_s`
    restart_s: float = 5.0
    longest_s: float = 60.0
    #: after a run of this length the next restart counts as the first again
    steady_s: float = 60.0
    #: so many shorter runs in a row, and the program is given up
    tries: int = 5
    #: from the request to stop to the end by force
    grace_s: float = 20.0

    def wait_s(self, failures: int) -> float:
        """The wait after so many failures in a row."""
        return min(self.restart_s * 2.0 ** (failures - 1), self.longest_s)


@dataclass(frozen=True, slots=True)
class Handling:
    """The parts that differ between systems: starting a process, tying it to this one, and asking it to end."""

    popen: Callable[[Sequence[str]], subprocess.Popen[str]]
    #: the process and its children are ended when the returned function is called or this process ends
    tie: Callable[[subprocess.Popen[str]], Callable[[], None]]
    ask: Callable[[subprocess.Popen[str]], None]


class ProgramWork:
    """One program as a service's work (lifecycle.Work)."""

    def __init__(self, command: Sequence[str], handling: Handling, patience: Patience = Patience()) -> None:
        self.stop_s = patience.grace_s
        self._command = command
        self._handling = handling
        self._patience = patience
        self._stop = threading.Event()
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._thread = threading.Thread(target=self._run_supervised, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the supervisor's thread."""
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether the program was started once."""
        return self._up.is_set()

    @property
    def ended(self) -> bool:
        """Whether the supervisor has ended."""
        return not self._thread.is_alive()

    def result(self) -> None:
        """Raise Failed if the program was given up."""
        if self._failure is not None:
            raise self._failure

    def ask_to_stop(self) -> None:
        """Ask the program to end; end it by force after `grace_s`."""
        self._stop.set()

    def _run_supervised(self) -> None:
        try:
            self._keep_running()
        except BaseException as failure:
            self._failure = failure

    def _keep_running(self) -> None:
        failures = 0
        while not self._stop.is_set():
            lived_s, code = self._run_once()
            if self._stop.is_set():
                return
            failures = 1 if lived_s >= self._patience.steady_s else failures + 1
            if failures >= self._patience.tries:
                raise Failed(Exit.DIED, self._given_up(failures, code))
            wait_s = self._patience.wait_s(failures)
            _log.error("ended by itself with code %s after %.1fs; started again in %gs", code, lived_s, wait_s)
            self._stop.wait(wait_s)

    def _given_up(self, failures: int, code: int) -> str:
        words = "\n".join(self._last) or "nothing"
        return f"{self._command[0]} ended {failures} times in a row, the last time with code {code}; it said last: {words}"

    def _run_once(self) -> tuple[float, int]:
        """Run the program once; return its duration and exit code."""
        begun_s = time.monotonic()
        try:
            process = self._handling.popen(self._command)
        except OSError as problem:
            raise Failed(Exit.DIED, f"{self._command[0]} cannot be started: {problem.strerror}") from problem
        end_rest = self._handling.tie(process)
        _log.info("started %s, process %d", self._command[0], process.pid)
        self._up.set()
        listener = threading.Thread(target=self._log_output, args=(process,), daemon=True)
        listener.start()
        try:
            while process.poll() is None and not self._stop.wait(_LOOK_S):
                pass
            if process.poll() is None:
                self._end_process(process)
        finally:
            end_rest()
        listener.join(5)
        return time.monotonic() - begun_s, process.returncode

    def _end_process(self, process: subprocess.Popen[str]) -> None:
        _log.info("asking process %d to end", process.pid)
        self._handling.ask(process)
        try:
            process.wait(self._patience.grace_s)
        except subprocess.TimeoutExpired:
            _log.warning("process %d did not end in %gs: ended by force", process.pid, self._patience.grace_s)
            process.kill()
            process.wait()

    def _log_output(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101  popen() gives it a pipe
        with process.stdout:
            for line in process.stdout:
                self._last.append(line.rstrip())
                _log.info("%s", line.rstrip())
