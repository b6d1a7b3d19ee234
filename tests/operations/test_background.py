"""Work beside the requests: slices of the event loop, and tasks that end with their owner."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

from app.cooperative import Background, run_apart, run_in_slices


async def test_others_get_the_event_loop_between_the_slices_of_long_work() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def slow(number: int) -> int:
        ends_s = time.perf_counter() + 0.003
        while time.perf_counter() < ends_s:
            pass
        return number

    background = Background()
    background.start(count_turns())
    assert await run_in_slices(slow(number) for number in range(5)) == [0, 1, 2, 3, 4]
    await background.close()
    assert turns >= 4


async def test_closing_ends_every_task_and_waits_until_it_has_cleared_up() -> None:
    cleared: list[str] = []

    async def wait_for_ever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleared.append(name)

    background = Background()
    tasks = [background.start(wait_for_ever(name), name) for name in ("a", "b")]
    await asyncio.sleep(0)
    await background.close()
    assert (sorted(cleared), [task.cancelled() for task in tasks]) == (["a", "b"], [True, True])


async def test_a_task_that_has_ended_or_failed_does_not_disturb_the_closing() -> None:
    async def fail() -> None:
        raise ValueError

    async def end() -> None:
        return

    background = Background()
    failed, ended = background.start(fail()), background.start(end())
    await asyncio.wait({failed, ended})
    await background.close()
    assert (type(failed.exception()), ended.done()) == (ValueError, True)


async def test_of_many_that_work_in_slices_one_has_a_turn_of_the_event_loop() -> None:
    """A probe that arrives in between waits for one slice, not for one of each."""
    order: list[str] = []

    def slow(name: str) -> Iterator[str]:
        for _ in range(3):
            time.sleep(0.003)
            order.append(name)
            yield name

    async def others() -> None:
        for _ in range(30):
            order.append("-")
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await asyncio.gather(*(run_in_slices(slow(name)) for name in "abcdef"))
    await beside
    assert max(map(len, "".join(order).split("-"))) == 1, order


async def test_long_work_is_done_in_a_thread_and_ends_when_its_caller_has_left() -> None:
    done: list[str] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def steps() -> Iterator[int]:
        for number in range(1000):
            loop.call_soon_threadsafe(begun.set)
            time.sleep(0.005)
            done.append(threading.current_thread().name)
            yield number

    task = asyncio.create_task(run_in_slices(steps(), expected_ms=100))
    await begun.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert await run_apart(lambda: threading.current_thread().name, 100) == done[0], "behind it, in the same thread"
    assert done[0] != threading.current_thread().name
    assert len(done) < 1000


async def test_short_work_stays_in_the_event_loops_thread() -> None:
    assert await run_apart(threading.current_thread, 1) is threading.current_thread()
