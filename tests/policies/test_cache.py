from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.errors import CircuitOpen, SourceError, SourceRejected, SourceTimeout, SourceUnavailable
from app.model import Accept, Frame, Matcher, Notice, Statement, TimeRange
from app.policies import Policy
from app.policies.cache.cached import Cached
from app.telemetry import Telemetry
from tests.frames import frame, shown
from tests.policies.scripted import Clock, Scripted, after, hang, statement


def cached(source: Scripted, clock: Clock, **numbers: float) -> Cached:
    return Cached("s", source, Policy.model_validate(numbers), Telemetry(), clock, jitter=lambda: 0.0)


async def test_a_fresh_answer_is_served_again_and_an_older_one_asked_again() -> None:
    source, clock = Scripted(Frame()), Clock()
    fetch = cached(source, clock)
    for later_ms in (0, 9_999, 1):
        clock.now_ms += later_ms
        await fetch(statement())
    assert source.askings == 2


async def test_a_clock_that_was_set_back_makes_no_old_answer_fresh() -> None:
    first, second = frame({"": {0: 1}}), frame({"": {0: 2}})
    source, clock = Scripted(first, second, SourceUnavailable("s", "down")), Clock()
    fetch = cached(source, clock)
    await fetch(statement())
    clock.now_ms -= 500_000
    found = await fetch(statement())
    assert (shown(found), found.provenance.asked_ms) == ({"": {0: 2.0}}, 500_000)
    clock.now_ms += 20_000
    stale = await fetch(statement())
    assert (shown(stale), stale.provenance.stale, stale.provenance.asked_ms) == ({"": {0: 2.0}}, "down", 500_000)


async def test_an_answers_age_counts_from_the_asking() -> None:
    clock = Clock()

    async def slow() -> Frame:
        clock.now_ms += 4_000
        return Frame()

    found = await cached(Scripted(slow), clock)(statement())
    assert found.provenance.asked_ms == 1_000_000


@pytest.mark.parametrize(("covers_ms", "newest_ms", "askings"), [(500, 500, 1), (500, 900, 2), (1_000, 9_000, 1), (None, 900, 1)])
async def test_an_answer_that_ends_early_is_fresh_until_the_source_has_published_more(
    covers_ms: int | None, newest_ms: int, askings: int
) -> None:
    source, clock = Scripted(Frame(covers_to_ms=covers_ms)), Clock()
    fetch = Cached("s", source, Policy(), Telemetry(), clock, lambda: 0.0, lambda: newest_ms)
    for _ in range(2):
        await fetch(statement())
    assert source.askings == askings


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


async def test_the_room_that_long_filters_take_is_counted() -> None:
    fetch = cached(Scripted(Frame()), Clock(), cache_bytes=1_000_000)
    for number in range(50):
        where = (Matcher("account", "=|", tuple(f"{number} {place}".ljust(1000) for place in range(100))),)
        await fetch(replace(statement(), where=where))
    kept = sum(len(value) for one in fetch.answers for matcher in one.statement.where for value in matcher.values)
    assert (500_000 < kept < 1_000_000, fetch.answers.size_bytes < 1_000_000) == (True, True)


MINUTE = 60_000
OLD = frame({"": {0: 1}})
DOWN = SourceUnavailable("s", "refused")


def window(from_ms: int, to_ms: int, accept: Accept = "stale") -> Statement:
    return replace(statement(), range=TimeRange(from_ms, to_ms, 1000), accept=accept)


async def kept(clock: Clock, *then: Frame | BaseException, **numbers: float) -> tuple[Cached, Scripted]:
    """A cache that holds one answer, and the source that goes on as told."""
    source = Scripted(OLD, *then)
    fetch = cached(source, clock, **numbers)
    await fetch(statement())
    return fetch, source


async def test_when_asking_fails_the_last_good_answer_is_served_with_its_own_age_and_the_reason() -> None:
    clock = Clock()
    fetch, _ = await kept(clock, DOWN)
    clock.now_ms += 5 * MINUTE
    found = await fetch(statement())
    assert (shown(found), found.provenance.asked_ms, found.provenance.stale) == ({"": {0: 1.0}}, 1_000_000, "refused")


async def test_a_stale_answer_never_resets_its_own_clock() -> None:
    clock = Clock()
    fetch, source = await kept(clock, DOWN)
    for _ in range(14):
        clock.now_ms += MINUTE
        assert (await fetch(statement())).provenance.asked_ms == 1_000_000
    assert source.askings == 15


async def test_after_a_quarter_of_an_hour_there_is_an_error_and_nothing_else() -> None:
    clock = Clock()
    fetch, _ = await kept(clock, DOWN)
    clock.now_ms += 15 * MINUTE + 1
    with pytest.raises(SourceUnavailable):
        await fetch(statement())


async def test_a_failure_that_cannot_heal_is_not_hidden_behind_an_older_answer() -> None:
    clock = Clock()
    fetch, _ = await kept(clock, SourceRejected("s", "no such column"))
    clock.now_ms += MINUTE
    with pytest.raises(SourceRejected):
        await fetch(statement())


async def test_an_asker_who_takes_only_fresh_answers_gets_the_failure() -> None:
    clock = Clock()
    fetch, _ = await kept(clock, DOWN)
    clock.now_ms += MINUTE
    with pytest.raises(SourceUnavailable):
        await fetch(replace(statement(), accept="fresh"))


async def test_what_is_kept_can_be_had_without_asking() -> None:
    clock = Clock()
    fetch, source = await kept(clock)
    clock.now_ms += MINUTE
    found = await fetch(replace(statement(), accept="cached_only"))
    assert (shown(found), source.askings) == ({"": {0: 1.0}}, 1)


async def test_where_nothing_is_kept_that_is_said() -> None:
    with pytest.raises(SourceUnavailable, match="nothing newer than 900s is kept"):
        await cached(Scripted(OLD), Clock())(replace(statement(), accept="cached_only"))


async def test_a_soft_stale_answer_is_served_after_a_moments_patience_while_one_asking_goes_on() -> None:
    clock, source = Clock(), Scripted(OLD, after(0.05))
    fetch = cached(source, clock, patience_s=0.01)
    await fetch(statement())
    clock.now_ms += 30_000
    found = [await fetch(statement()), await fetch(statement())]
    assert [answer.provenance.stale for answer in found] == ["a newer answer is being asked for"] * 2
    await asyncio.sleep(0.06)
    newer = await fetch(statement())
    assert (newer.provenance.stale, newer.provenance.asked_ms, source.askings) == (None, 1_030_000, 2)


async def test_beyond_soft_stale_an_asker_waits_until_its_time_is_up() -> None:
    clock, source = Clock(), Scripted(OLD, hang)
    fetch = cached(source, clock, patience_s=0.001)
    await fetch(statement())
    clock.now_ms += 2 * MINUTE
    until_s = asyncio.get_running_loop().time() + 0.05
    found = await fetch(replace(statement(), until_s=until_s))
    assert (found.provenance.stale, asyncio.get_running_loop().time() >= until_s - 0.001) == (
        "no answer within the request's time limit",
        True,
    )
    await fetch.close()
    assert source.running == 0


async def test_an_asker_whose_time_is_up_with_nothing_kept_gets_a_time_out_and_the_work_is_stopped() -> None:
    source = Scripted(hang)
    with pytest.raises(SourceTimeout, match="the request's time limit"):
        await cached(source, Clock())(replace(statement(), until_s=asyncio.get_running_loop().time() + 0.01))
    await asyncio.sleep(0)
    assert (source.cancelled, source.running) == (1, 0)


async def test_no_more_than_a_few_askings_go_on_with_nobody_waiting() -> None:
    clock, source = Clock(), Scripted(*[OLD] * 8, hang)
    fetch = cached(source, clock, patience_s=0.001)
    asked = [statement(str(number)) for number in range(8)]
    for one in asked:
        await fetch(one)
    clock.now_ms += 30_000
    await asyncio.gather(*(fetch(one) for one in asked))
    await asyncio.sleep(0)
    assert source.running == 4
    await fetch.close()


async def test_a_window_that_has_slid_on_is_stood_in_for_by_the_one_before() -> None:
    clock, source = Clock(), Scripted(frame({"": {0: 1, 9000: 2}}), DOWN)
    fetch = cached(source, clock)
    await fetch(window(0, 10_000))
    clock.now_ms += MINUTE
    found = await fetch(window(3_000, 13_000))
    assert (shown(found), found.covers_to_ms, found.provenance.stale) == ({"": {0: 1.0, 9000: 2.0}}, 10_000, "refused")


async def test_a_stand_in_that_begins_later_says_since_when_it_knows() -> None:
    clock, source = Clock(), Scripted(OLD, DOWN)
    fetch = cached(source, clock)
    await fetch(window(8_000, 10_000))
    clock.now_ms += MINUTE
    found = await fetch(window(0, 10_000))
    assert found.notices == (Notice("warning", "s: nothing before 1970-01-01 00:00:08Z is kept"),)
    assert found.covers_from_ms == 8_000


async def test_yesterdays_window_does_not_stand_in_for_todays() -> None:
    clock, source = Clock(), Scripted(OLD, DOWN)
    fetch = cached(source, clock)
    day_ms = 86_400_000
    await fetch(window(0, 10_000))
    clock.now_ms += MINUTE
    with pytest.raises(SourceUnavailable):
        await fetch(window(day_ms, day_ms + 10_000))


async def test_a_sliding_window_does_not_pile_up() -> None:
    clock, source = Clock(), Scripted(OLD)
    fetch = cached(source, clock)
    for step in range(100):
        await fetch(window(step * 1000, step * 1000 + 60_000))
        clock.now_ms += 11_000
    assert len(fetch.answers) == 1


async def test_equal_hashes_are_no_hit() -> None:
    class Same(str):
        def __hash__(self) -> int:
            return 1

    source = Scripted(OLD)
    fetch = cached(source, Clock())
    for text in ("a", "b"):
        await fetch(statement(Same(text)))
    assert source.askings == 2


async def test_answers_expire_a_little_apart() -> None:
    fetch = Cached("s", Scripted(OLD), Policy(), Telemetry(), Clock())
    for number in range(50):
        await fetch(statement(str(number)))
    lives = {(kept.frame.provenance.fresh_until_ms or 0) - 1_000_000 for kept in fetch.answers}
    assert (len(lives) > 20, min(lives) >= 9_000, max(lives) <= 10_000) == (True, True, True)


async def test_the_answers_of_an_earlier_life_are_stale_with_their_true_age() -> None:
    clock, source = Clock(), Scripted(CircuitOpen("s", "down"))
    fetch = cached(source, clock)
    answers = [
        (statement(), OLD.with_provenance(asked_ms=clock.now_ms - 120_000)),
        (statement("b"), OLD.with_provenance(asked_ms=clock.now_ms - 901_000)),
        # The clock was ahead then, so the age is not known.
        (statement("c"), OLD.with_provenance(asked_ms=clock.now_ms + 3_600_000)),
    ]
    fetch.load(answers, clock.now_ms - 900_000)
    found = await fetch(statement())
    assert (found.provenance.stale, found.provenance.asked_ms, len(fetch.answers)) == ("down", 880_000, 1)


async def test_an_answer_too_big_for_the_room_is_given_and_not_kept() -> None:
    source = Scripted(OLD)
    fetch = cached(source, Clock(), cache_bytes=4000)
    for _ in range(2):
        assert len(await fetch(statement())) == 1
    assert (source.askings, len(fetch.answers)) == (2, 0)


@pytest.mark.parametrize("failure", [DOWN, SourceTimeout("s", "slow"), CircuitOpen("s", "not asked")])
async def test_each_failure_of_the_source_itself_is_stood_in_for(failure: SourceError) -> None:
    clock = Clock()
    fetch, _ = await kept(clock, failure)
    clock.now_ms += MINUTE
    assert (await fetch(statement())).provenance.stale == failure.reason


async def test_an_incomplete_answer_is_given_and_never_kept() -> None:
    source = Scripted(replace(OLD, partial=True))
    fetch = cached(source, Clock())
    for _ in range(2):
        assert (await fetch(statement())).partial
    assert (source.askings, len(fetch.answers)) == (2, 0)


async def test_an_answer_from_an_older_copy_is_as_old_as_the_copy_and_never_fresh() -> None:
    source = Scripted(replace(OLD, older_copy="the newest snapshot cannot be opened", covers_to_ms=940_000))
    fetch = cached(source, Clock())
    found = [(await fetch(statement())).provenance for _ in range(2)]
    assert source.askings == 2
    assert {(one.asked_ms, one.fresh_until_ms, one.stale) for one in found} == {
        (940_000, None, "the newest snapshot cannot be opened")
    }
    with pytest.raises(SourceUnavailable, match="the newest snapshot cannot be opened"):
        await fetch(replace(statement(), accept="fresh"))


async def test_an_answer_that_took_longer_than_it_stays_fresh_is_as_new_as_can_be_had() -> None:
    clock = Clock()

    async def slow() -> Frame:
        clock.now_ms += 400
        return OLD

    found = await cached(Scripted(slow), clock, fresh_s=0.25)(statement())
    assert (found.provenance.fresh_until_ms, found.provenance.stale, found.provenance.asked_ms) == (None, None, 1_000_000)
