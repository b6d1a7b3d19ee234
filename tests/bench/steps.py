"""How long a task holds the event loop at a time: the processor time of each step of every task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Generator
from typing import Any


class Steps:
    """The steps of all tasks of a loop that were begun after `watch`, seconds of this thread's processor time each.

    What another program takes of the processor does not count.
    """

    def __init__(self) -> None:
        self.seen: list[float] = []

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Time every task that begins from now on."""
        loop.set_task_factory(lambda loop, work, **more: asyncio.Task(_Timed(work, self.seen), loop=loop, **more))

    def take_longest(self) -> float:
        """The longest since the last call."""
        longest = max(self.seen, default=0.0)
        self.seen.clear()
        return longest


class _Timed(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are timed."""

    def __init__(self, work: Generator[Any, Any, Any] | Coroutine[Any, Any, Any], seen: list[float]) -> None:
        self._work = work
        self._seen = seen

    def send(self, value: Any) -> Any:
        """One step."""
        begun_s = time.thread_time()
        try:
            return self._work.send(value)
        finally:
            self._seen.append(time.thread_time() - begun_s)

    def throw(self, *problem: Any) -> Any:
        """One step that begins with a failure."""
        begun_s = time.thread_time()
        try:
            return self._work.throw(*problem)
        finally:
            self._seen.append(time.thread_time() - begun_s)

    def close(self) -> None:
        """End it."""
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise TypeError("a task is awaited, not its work")
