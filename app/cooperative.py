"""Sharing the event loop: one step at a time, long work in slices or in a thread, and tasks that run beside the requests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from app.model import LANES, Lane

_T = TypeVar("_T")

_SLICE_S = 0.002
#: Longer work leaves the event loop.
_LONG_MS = 2.0
#: Long work has one thread: Python runs one at a time, and each more would make the event loop wait longer for its turn.
_LONG_WORK = ThreadPoolExecutor(1, "long-work")


class Turnstile:
    """Lets one waiter through in each turn of the event loop, alert rules first.

    Steps that only compute (joining, thinning, writing JSON) take a few milliseconds each. When many are ready, asyncio runs them
    all before it looks at a socket again, and a probe or a refusal waits for their sum. Behind a turnstile it waits for one.
    """

    def __init__(self) -> None:
        self._queues: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in LANES}
        self._turning = False

    async def wait_turn(self, lane: Lane) -> None:
        """Return when it is this caller's turn."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._admit_next)
            return
        turn = loop.create_future()
        self._queues[lane].append(turn)
        await turn

    def _admit_next(self) -> None:
        for queue in self._queues.values():
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    asyncio.get_running_loop().call_soon(self._admit_next)
                    return
        self._turning = False


#: The one turnstile of each event loop.
_TURNSTILES: WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = WeakKeyDictionary()


async def wait_turn(lane: Lane = "interactive") -> None:
    """Return when nothing else that computes has this turn of the event loop."""
    loop = asyncio.get_running_loop()
    turnstile = _TURNSTILES.get(loop)
    if turnstile is None:
        turnstile = _TURNSTILES[loop] = Turnstile()
    await turnstile.wait_turn(lane)


async def run_in_slices(steps: Iterable[_T], expected_ms: float = 0.0) -> list[_T]:
    """The results of the steps, in a thread if they will take long together. Otherwise other tasks get the event loop after each
    2 ms, so every step has to be short."""
    if expected_ms > _LONG_MS:
        return await _run_steps_apart(steps)
    await wait_turn()
    results, begun_s = [], time.perf_counter()
    for step in steps:
        results.append(step)
        if time.perf_counter() - begun_s > _SLICE_S:
            await wait_turn()
            begun_s = time.perf_counter()
    return results


async def _run_steps_apart(steps: Iterable[_T]) -> list[_T]:
    """The results of the steps, made in the thread of long work. When the caller leaves, no further step is begun."""
    has_left = False

    def collect() -> list[_T]:
        results: list[_T] = []
        for step in steps:
            results.append(step)
            if has_left:
                break
        return results

    try:
        return await asyncio.get_running_loop().run_in_executor(_LONG_WORK, collect)
    finally:
        has_left = True


async def run_apart(work: Callable[[], _T], expected_ms: float) -> _T:
    """The result of work that has no slices: in a thread where it will take so long that other requests would wait."""
    if expected_ms > _LONG_MS:
        return await asyncio.get_running_loop().run_in_executor(_LONG_WORK, work)
    await wait_turn()
    return work()


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
