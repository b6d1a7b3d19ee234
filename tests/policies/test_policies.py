from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from app.errors import SourceBusy, SourceCrashed, SourceError, SourceRejected, SourceTimeout, SourceUnavailable
from app.model import Fetch, Frame, Lane
from app.policies import Policy, PolicyDeps, PrioritySemaphore, guard
from app.policies.attempts import Deadline, Limited, Retried, RetryBudget
from app.telemetry import Observed, Telemetry
from tests.frames import frame, shown
from tests.policies.scripted import Scripted, after, hang, no_sleep, statement


def common(sleep: Callable[[float], Awaitable[None]] = no_sleep) -> PolicyDeps:
    return PolicyDeps(Telemetry(), lambda: 0, sleep, PrioritySemaphore(20))


def stack(fetch: Fetch | object) -> list[str]:
    names = []
    while not isinstance(fetch, Scripted):
        names.append(type(fetch).__name__)
        fetch = fetch._fetch  # type: ignore[attr-defined]  # noqa: SLF001  the order is what is tested
    return names


def test_the_policies_stand_in_the_designs_order() -> None:
    guarded = guard("s", Scripted(Frame()), Policy(), common())
    assert stack(guarded.fetch) == [
        "Observed",
        "Cached",
        "Incremental",
        "Breaker",
        "Deadline",
        "Retried",
        "Limited",
        "Deadline",
        "Checked",
    ]


def test_an_attempt_may_not_last_longer_than_the_whole() -> None:
    with pytest.raises(ValueError, match="attempt_timeout_s must not be above total_timeout_s"):
        Policy(attempt_timeout_s=2, total_timeout_s=1)


async def test_a_hanging_source_is_given_up_at_its_limit_and_cancelled() -> None:
    source = Scripted(hang)
    with pytest.raises(SourceTimeout, match=r"s: no answer within 0.01s \(attempt limit\)"):
        await Deadline("s", source, 0.01, "attempt")(statement())
    assert source.cancelled == 1


async def test_a_callers_own_deadline_is_not_taken_for_the_sources() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await Deadline("s", Scripted(hang), 10, "attempt")(statement())


async def test_a_failure_that_may_heal_is_asked_once_more() -> None:
    source = Scripted(SourceUnavailable("s", "refused"), frame({"": {0: 1}}))
    assert shown(await Retried(source, 2, no_sleep, RetryBudget())(statement())) == {"": {0: 1.0}}


@pytest.mark.parametrize("failure", [SourceRejected("s", "no such column"), SourceTimeout("s", "slow")])
async def test_a_failure_that_cannot_heal_is_not_asked_again(failure: SourceError) -> None:
    source = Scripted(failure)
    with pytest.raises(type(failure)):
        await Retried(source, 3, no_sleep, RetryBudget())(statement())
    assert source.askings == 1


async def test_the_last_attempts_failure_is_the_callers() -> None:
    source = Scripted(SourceUnavailable("s", "refused"))
    with pytest.raises(SourceUnavailable):
        await Retried(source, 3, no_sleep, RetryBudget())(statement())
    assert source.askings == 3


async def test_no_more_than_the_pool_run_and_those_over_the_queue_are_refused_at_once() -> None:
    source = Scripted(after(0.02))
    limited = Limited("s", source, concurrent=2, waiting=3, global_slots=PrioritySemaphore(20))
    found = await asyncio.gather(*(limited(statement()) for _ in range(8)), return_exceptions=True)
    refused = [result for result in found if isinstance(result, SourceBusy)]
    assert (source.most_running, len(refused), source.askings) == (2, 3, 5)


async def test_a_caller_who_leaves_the_queue_frees_its_place_in_it() -> None:
    limited = Limited("s", Scripted(after(0.05)), concurrent=1, waiting=1, global_slots=PrioritySemaphore(20))
    first = asyncio.create_task(limited(statement()))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(limited(statement()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert len(await limited(statement())) == 1
    await first


async def test_a_bug_in_a_source_is_a_crash_of_that_source_and_counted() -> None:
    telemetry = Telemetry()
    with pytest.raises(SourceCrashed, match="internal error"):
        await Observed("s", Scripted(ZeroDivisionError()), telemetry, lambda: 0)(statement())
    assert telemetry.registry.get_sample_value("bridge_source_errors_total", {"source": "s", "kind": "source_crashed"}) == 1


async def test_all_sources_together_have_no_more_askings_under_way_than_the_limit() -> None:
    sources, global_slots = [Scripted(after(0.02)) for _ in range(4)], PrioritySemaphore(6)
    limited = [Limited("s", source, concurrent=5, waiting=40, global_slots=global_slots) for source in sources]
    running: list[int] = []

    async def watch() -> None:
        while True:
            running.append(sum(source.running for source in sources))
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(fetch(statement()) for fetch in limited for _ in range(10)))
    watching.cancel()
    assert max(running) == 6


async def test_a_hanging_source_gives_the_common_places_back_to_the_others() -> None:
    global_slots = PrioritySemaphore(5)
    hanging = [asyncio.create_task(Limited("h", Scripted(hang), 5, 40, global_slots)(statement())) for _ in range(5)]
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        assert len(await Limited("s", Scripted(after(0)), 5, 40, global_slots)(statement())) == 1
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)
    assert not global_slots.is_full


async def test_alerts_go_before_people_and_people_before_background_work() -> None:
    places, served = PrioritySemaphore(1), []

    async def one(lane: Lane) -> None:
        async with places.hold_slot(lane):
            served.append(lane)
            await asyncio.sleep(0)

    async with places.hold_slot("interactive"):
        lanes: tuple[Lane, ...] = ("background", "interactive", "alert", "interactive")
        tasks = [asyncio.create_task(one(lane)) for lane in lanes]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert served == ["alert", "interactive", "interactive", "background"]


async def test_background_work_gets_half_of_the_slots_and_nobody_waits_behind_it() -> None:
    places, held = PrioritySemaphore(4), list[Lane]()

    async def one(lane: Lane, ended: asyncio.Event) -> None:
        async with places.hold_slot(lane):
            held.append(lane)
            await ended.wait()
            held.remove(lane)

    ends = [asyncio.Event() for _ in range(6)]
    lanes: tuple[Lane, ...] = ("background", "background", "background", "background", "interactive", "interactive")
    tasks = [asyncio.create_task(one(lane, ended)) for lane, ended in zip(lanes, ends, strict=True)]
    await asyncio.sleep(0)
    assert (Counter(held), places.waiting) == ({"background": 2, "interactive": 2}, 2)
    ends[4].set()
    ends[5].set()
    await asyncio.wait(tasks[4:])
    assert (Counter(held), places.waiting) == ({"background": 2}, 2), "two slots stay free for others"
    for ended in ends:
        ended.set()
    await asyncio.gather(*tasks)
    assert not places.is_full


async def test_a_place_that_comes_in_the_moment_of_leaving_is_passed_on() -> None:
    places = PrioritySemaphore(1)
    async with places.hold_slot("alert"):
        leaving, staying = (asyncio.create_task(_held(places)) for _ in range(2))
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving, staying}, timeout=1)
    assert (leaving.cancelled(), staying.done(), places.is_full) == (True, True, False)


async def _held(places: PrioritySemaphore) -> None:
    async with places.hold_slot("interactive"):
        pass


async def test_an_asking_that_is_stopped_at_the_source_is_counted_as_such() -> None:
    telemetry = Telemetry()
    guarded = guard(
        "s",
        Scripted(hang),
        Policy(attempt_timeout_s=0.01, total_timeout_s=1),
        PolicyDeps(telemetry, int, no_sleep, PrioritySemaphore(1)),
    )
    with pytest.raises(SourceTimeout):
        await guarded.fetch(statement())
    assert telemetry.registry.get_sample_value("bridge_cancelled_at_source_total", {"source": "s"}) == 1
