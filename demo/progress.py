"""How far the filling of each store is: bars in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: takes the share that is done, 0 to 1
Tell = Callable[[float], None]

_LINE_EVERY_S = 5.0


def tell_nobody(_: float) -> None:
    """For a caller that wants no progress."""


class FillProgress(Protocol):
    """Who is told how far each store is."""

    def track(self, store: str, rows: str) -> Tell:
        """Begin a store; `rows` says what is written into it."""


@contextmanager
def shown_progress(
    say: Callable[[str], None], console: Console | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[FillProgress]:
    """Show the progress of the block's stores on the console (the standard output) if it is a terminal, else by `say`."""
    console = console or Console()
    if not console.is_terminal:
        yield _Lines(say, clock)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn())
    # The bars go away when all is filled; the line that the demo says then stays.
    with Progress(*columns, *left, console=console, transient=True) as bars:
        yield _Bars(bars)


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def track(self, store: str, rows: str) -> Tell:
        """See FillProgress."""
        task = self._bars.add_task(f"{store:<10} {rows}", total=1.0)
        return lambda share: self._bars.update(task, completed=share)


class _Lines:
    """Lines for a pipe or a log. What is filled within a few seconds says nothing."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._begun_s = self._said_s = clock()
        self._shares: dict[str, float] = {}
        self._lock = Lock()

    def track(self, store: str, rows: str) -> Tell:
        """See FillProgress."""
        self._shares[store] = 0.0
        return lambda share: self._note(store, share)

    def _note(self, store: str, share: float) -> None:
        with self._lock:
            self._shares[store] = share
            now_s = self._clock()
            if now_s - self._said_s < _LINE_EVERY_S:
                return
            self._said_s = now_s
            parts = ", ".join(f"{store} {share:.0%}" for store, share in self._shares.items())
            self._say(f"filling the stores: {parts}{self._left_text(now_s)}")

    def _left_text(self, now_s: float) -> str:
        """The slowest store decides when all is filled."""
        slowest = min(self._shares.values())
        passed_s = now_s - self._begun_s
        return f"; about {passed_s / slowest - passed_s:.0f} s left" if slowest else ""
