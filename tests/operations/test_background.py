"""Work beside the requests: slices of the event loop, and tasks that end with their owner."""

from __future__ import annotations

import asyncio
import time

from app.cooperative import Background, run_in_slices


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
