from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.errors import SourceBusy, SourceCrashed, SourceError, SourceRejected, SourceTimeout, SourceUnavailable
from app.model import Fetch, Frame, Statement, TimeRange
from app.policies import Policy, guard
from app.policies.cache import Cached
from app.policies.limit import Limited
from app.policies.observe import Observed
from app.policies.retry import Retried
from app.policies.timeout import Deadline
from app.telemetry import Telemetry
from tests.unit.frames import frame, shown


def statement(text: str = "t", now_ms: int = 0) -> Statement:
    return Statement("s", "m", text, (), TimeRange(0, 1000, 1000), now_ms=now_ms)


async def no_sleep(_: float) -> None:
    return None


class Scripted:
    """A fetch that does what the script says, one entry an asking (the last for ever), and counts."""

    def __init__(self, *script: Frame | BaseException | Callable[[], Awaitable[Frame]]) -> None:
        self.script = list(script)
        self.askings = 0
        self.cancelled = 0
        self.running = 0
        self.most_running = 0

    async def __call__(self, _: Statement) -> Frame:
        entry = self.script[min(self.askings, len(self.script) - 1)]
        self.askings += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if isinstance(entry, BaseException):
                raise entry
            return entry if isinstance(entry, Frame) else await entry()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


async def hang() -> Frame:
    await asyncio.Event().wait()
    raise AssertionError


def after(seconds: float) -> Callable[[], Awaitable[Frame]]:
    async def answer() -> Frame:
        await asyncio.sleep(seconds)
        return frame({"": {0: 1}})

    return answer


def stack(fetch: Fetch | object) -> list[str]:
    names = []
    while not isinstance(fetch, Scripted):
        names.append(type(fetch).__name__)
        fetch = fetch._fetch  # type: ignore[attr-defined]  # noqa: SLF001  the order is what is tested
    return names


def test_the_policies_stand_in_the_designs_order() -> None:
    guarded = guard("s", Scripted(Frame()), Policy(), Telemetry(), lambda: 0, no_sleep)
    assert stack(guarded) == ["Observed", "Cached", "Deadline", "Retried", "Limited", "Deadline"]


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
    assert shown(await Retried(source, 2, no_sleep)(statement())) == {"": {0: 1.0}}


@pytest.mark.parametrize("failure", [SourceRejected("s", "no such column"), SourceTimeout("s", "slow")])
async def test_a_failure_that_cannot_heal_is_not_asked_again(failure: SourceError) -> None:
    source = Scripted(failure)
    with pytest.raises(type(failure)):
        await Retried(source, 3, no_sleep)(statement())
    assert source.askings == 1


async def test_the_last_attempts_failure_is_the_callers() -> None:
    source = Scripted(SourceUnavailable("s", "refused"))
    with pytest.raises(SourceUnavailable):
        await Retried(source, 3, no_sleep)(statement())
    assert source.askings == 3


async def test_no_more_than_the_pool_run_and_those_over_the_queue_are_refused_at_once() -> None:
    source = Scripted(after(0.02))
    limited = Limited("s", source, concurrent=2, waiting=3)
    found = await asyncio.gather(*(limited(statement()) for _ in range(8)), return_exceptions=True)
    refused = [result for result in found if isinstance(result, SourceBusy)]
    assert (source.most_running, len(refused), source.askings) == (2, 3, 5)


async def test_a_caller_who_leaves_the_queue_frees_its_place_in_it() -> None:
    limited = Limited("s", Scripted(after(0.05)), concurrent=1, waiting=1)
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
        await Observed("s", Scripted(ZeroDivisionError()), telemetry)(statement())
    assert telemetry.registry.get_sample_value("bridge_source_errors_total", {"source": "s", "kind": "source_crashed"}) == 1


async def test_a_source_is_down_after_a_failure_of_its_own_and_up_after_an_answer() -> None:
    telemetry = Telemetry()
    observed = Observed("s", Scripted(SourceUnavailable("s", "refused"), SourceRejected("s", "typo"), Frame()), telemetry)

    async def up() -> float | None:
        with_failure = asyncio.gather(observed(statement()), return_exceptions=True)
        await with_failure
        return telemetry.registry.get_sample_value("bridge_source_up", {"source": "s"})

    assert [await up(), await up(), await up()] == [0, 0, 1]


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def cached(source: Scripted, clock: Clock, **numbers: float) -> Cached:
    return Cached("s", source, Policy.model_validate(numbers), Telemetry(), clock)


async def test_a_fresh_answer_is_served_again_and_an_older_one_asked_again() -> None:
    source, clock = Scripted(Frame()), Clock()
    fetch = cached(source, clock)
    for later_ms in (0, 9_999, 1):
        clock.now_ms += later_ms
        await fetch(statement())
    assert source.askings == 2


async def test_an_answers_age_counts_from_the_asking() -> None:
    clock = Clock()

    async def slow() -> Frame:
        clock.now_ms += 4_000
        return Frame()

    found = await cached(Scripted(slow), clock)(statement())
    assert found.asked_ms == 1_000_000


async def test_with_a_cache_time_of_zero_every_request_asks() -> None:
    source = Scripted(Frame())
    fetch = cached(source, Clock(), fresh_s=0)
    for _ in range(3):
        await fetch(statement())
    assert source.askings == 3


async def test_one_asking_serves_all_who_want_the_same() -> None:
    source = Scripted(after(0.01))
    fetch = cached(source, Clock())
    found = await asyncio.gather(*(fetch(statement(now_ms=place + 1)) for place in range(10)))
    assert (source.askings, {len(answer) for answer in found}) == (1, {1})


async def test_when_the_first_asker_leaves_the_others_are_served() -> None:
    source = Scripted(after(0.02))
    fetch = cached(source, Clock())
    first, second = asyncio.create_task(fetch(statement())), asyncio.create_task(fetch(statement()))
    await asyncio.sleep(0.001)
    first.cancel()
    assert len(await second) == 1
    assert (source.askings, source.cancelled) == (1, 0)


async def test_when_the_last_asker_leaves_the_work_is_cancelled() -> None:
    source = Scripted(hang)
    fetch = cached(source, Clock())
    tasks = [asyncio.create_task(fetch(statement())) for _ in range(3)]
    await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    assert (source.cancelled, source.running) == (1, 0)


async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    source = Scripted(SourceUnavailable("s", "refused"), Frame())
    fetch = cached(source, Clock())
    found = await asyncio.gather(*(fetch(statement()) for _ in range(3)), return_exceptions=True)
    assert [type(failure) for failure in found] == [SourceUnavailable] * 3
    assert len(await fetch(statement())) == 0


async def test_the_answers_used_longest_ago_go_first_when_room_is_short() -> None:
    source = Scripted(Frame())
    fetch = cached(source, Clock(), cache_entries=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await fetch(statement(text))
    assert source.askings == 4
