"""Sharing the event loop: long work in slices, and tasks that run beside the requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")

_SLICE_S = 0.002
#: about 5 ms of work
_MANY_CELLS = 1000


async def run_in_slices(steps: Iterable[_T]) -> list[_T]:
    """The results of the steps. Other tasks get the event loop after each 2 ms, so every step has to be short."""
    results, begun_s = [], time.perf_counter()
    for step in steps:
        results.append(step)
        if time.perf_counter() - begun_s > _SLICE_S:
            await asyncio.sleep(0)
            begun_s = time.perf_counter()
    return results


async def run_apart(work: Callable[[], _T], cells: int) -> _T:
    """The result of work that has no slices: in a thread where it is for so many cells that other requests would wait."""
    return await asyncio.to_thread(work) if cells > _MANY_CELLS else work()


class Background:
    """Tasks that run beside the requests. A task is forgotten when it ends; `close` cancels the others and waits for them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str | None = None) -> asyncio.Task[None]:
        """Run the work as a task. The event loop itself would not keep it alive."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End every task."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
