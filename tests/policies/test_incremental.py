"""Answers put together from what is kept and what is asked for equal those that are asked for as a whole."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from app.model import CacheTimes, Fetch, Frame, Labels, Lane, Notice, Provenance, Statement, TimeRange, frame_of_runs
from app.policies import Policy
from app.policies.cache.answers import AnswerCache, CachedFrame
from app.policies.cache.cached import Cached
from app.policies.cache.incremental import Incremental, reusable_until, settled_alike
from app.sources.base import Read, Source, with_skew_notice
from app.telemetry import Telemetry
from tests.frames import frame, shown
from tests.policies.scripted import Clock

SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000
WINDOWS_A_SEED = 1_250


class Sliceable(Read):
    """A read whose buckets stand alone."""

    @property
    def sliceable(self) -> bool:
        return True


READ = Sliceable(source="s")


def asking(from_ms: int, to_ms: int, step_ms: int = 10_000, lane: Lane = "interactive", read: Read | None = READ) -> Statement:
    bound = (("from_ms", from_ms), ("to_ms", to_ms))
    return Statement("s", "m", "t", bound, TimeRange(from_ms, to_ms, step_ms), ("account",), read=read, lane=lane)


class Store:
    """Rows that each arrive some time after the instant they are for; an answer has those that have arrived by then."""

    def __init__(self, clock: Clock, at_ms: list[int], arrives_ms: list[int], series: list[int], values: list[float]) -> None:
        self._clock = clock
        order = np.argsort(at_ms, kind="stable")
        self._at_ms, self._arrives_ms = np.array(at_ms)[order], np.array(arrives_ms)[order]
        self._series, self._values = np.array(series)[order], np.array(values)[order]
        self.rows = 0
        self.asked: list[tuple[int, int]] = []

    async def __call__(self, statement: Statement) -> Frame:
        span = statement.range
        bound = dict(statement.params)
        assert (bound["from_ms"], bound["to_ms"]) == (span.from_ms, span.to_ms)
        self.asked.append((span.from_ms, span.to_ms))
        first, last = np.searchsorted(self._at_ms, (span.from_ms, span.to_ms))
        there = slice(int(first), int(last))
        arrived = self._arrives_ms[there] <= self._clock.now_ms
        runs = []
        for which in range(3):
            mine = arrived & (self._series[there] == which)
            buckets = self._at_ms[there][mine] // span.step_ms * span.step_ms
            ends = np.flatnonzero(np.append(buckets[1:] != buckets[:-1], True)) if len(buckets) else np.empty(0, dtype=np.int64)
            labels: Labels = (("account", f"A{which}"),)
            runs.append((labels, buckets[ends], self._values[there][mine][ends]))
        found = frame_of_runs(runs)
        self.rows += len(found)
        return found


def store_of(chance: random.Random, clock: Clock, from_ms: int, to_ms: int, gaps: float = 0.01) -> Store:
    """Three series of a row every 5 s or so, up to 55 s late, with gaps of minutes and a series that comes and goes."""
    rows: list[tuple[int, int, int, float]] = []
    for series in range(3):
        at_ms = from_ms
        while at_ms < to_ms:
            at_ms += chance.choice((1_000, 5_000, 5_000, 5_000, 9_000))
            if chance.random() < gaps:
                at_ms += chance.choice((2, 20, 200)) * MINUTE_MS
            late_ms = chance.choice((0, 0, 0, 400, 8_000, 55_000))
            rows.append((at_ms, at_ms + late_ms, series, round(chance.uniform(-9, 9), 2)))
    at, arrives, which, values = zip(*rows, strict=True)
    return Store(clock, list(at), list(arrives), list(which), list(values))


def pieced(source: Fetch, policy: Policy, telemetry: Telemetry, clock: Clock) -> Cached:
    """A cache over what asks for the rest; nothing is compared."""
    answers = AnswerCache(policy.cache_bytes, policy.cache_entries)
    delta = Incremental("s", source, answers, policy, telemetry, clock, chance=lambda: 0.5)
    return Cached("s", delta, policy, telemetry, clock, answers=answers)


def counted(telemetry: Telemetry, name: str, **labels: str) -> float:
    return telemetry.registry.get_sample_value(name, {"source": "s", **labels}) or 0.0


def local_midnight_ms(day: datetime) -> int:
    return round(day.replace(hour=0).timestamp() * 1000)


@pytest.mark.parametrize("seed", range(8))
async def test_any_window_gets_the_answer_that_asking_for_the_whole_of_it_gets(seed: int) -> None:
    """Late rows, gaps, other steps, windows that slide, jump, grow and are local days, the clocks' change, restarts."""
    chance = random.Random(seed)
    # In the night of the 25th the clocks there go back an hour; in that of March 29th they go forward.
    change = datetime(2026, *chance.choice(((10, 25), (3, 29))), tzinfo=ZoneInfo("Europe/Berlin"))
    clock = Clock()
    clock.now_ms = local_midnight_ms(change) - HOUR_MS
    store = store_of(chance, clock, clock.now_ms - 12 * HOUR_MS, clock.now_ms + 20 * HOUR_MS)
    telemetry, policy = Telemetry(), Policy(fresh_s=0)
    fetch = pieced(store, policy, telemetry, clock)
    differing = []
    length_ms, step_ms = HOUR_MS, 10_000
    for place in range(WINDOWS_A_SEED):
        clock.now_ms += chance.choice((0, 700, 5_000, 10_000, 10_000, 10_000, 30_000, 90_000, 400_000 if place % 9 == 0 else 0))
        if chance.random() < 0.1:
            length_ms, step_ms = chance.choice(
                ((HOUR_MS, 10_000), (3 * HOUR_MS, 30_000), (6 * HOUR_MS, MINUTE_MS), (20_000, 1_000))
            )
        if chance.random() < 0.01:
            fetch = pieced(store, policy, telemetry, clock)
        end_ms = clock.now_ms - chance.choice((0, 0, 0, 0, 3, 90, 400)) * MINUTE_MS
        span = (end_ms - length_ms, end_ms)
        if chance.random() < 0.1:
            day = change + timedelta(days=chance.choice((-1, 0)))
            span, step_ms = (local_midnight_ms(day), local_midnight_ms(day + timedelta(days=1))), 300_000
        window = asking(
            span[0] // step_ms * step_ms, min(-(-span[1] // step_ms) * step_ms, clock.now_ms // step_ms * step_ms), step_ms
        )
        if window.range.from_ms >= window.range.to_ms:
            continue
        whole = await store(window)
        if not settled_alike(await fetch(window), whole, window.range.to_ms):
            differing.append((place, window.range))
    spared = counted(telemetry, "bridge_spared_askings_total")
    assert (differing, spared > WINDOWS_A_SEED / 3) == ([], True), spared


async def test_a_refresh_of_400_points_asks_for_few_of_them() -> None:
    clock = Clock()
    clock.now_ms = 1_700_000_000_000
    chance = random.Random(1)
    store = store_of(chance, clock, clock.now_ms - 3 * HOUR_MS, clock.now_ms + 3 * HOUR_MS, gaps=0)
    fetch = pieced(store, Policy(), Telemetry(), clock)
    refreshes = 600
    whole = 0
    for _ in range(refreshes):
        to_ms = clock.now_ms // 20_000 * 20_000
        found = await fetch(asking(to_ms - 400 * 20_000, to_ms, 20_000))
        whole += len(found)
        clock.now_ms += 10_000
    assert 0 < store.rows < 0.025 * whole


def kept(found: Frame, from_ms: int = 0, to_ms: int = 200_000, **known: Any) -> CachedFrame:
    provenance = Provenance(**{"asked_ms": 200_000, "reusable_until_ms": 900_000, **known})
    return CachedFrame(asking(from_ms, to_ms), replace(found, provenance=provenance), 0)


@pytest.mark.parametrize(
    ("of", "window", "until_ms"),
    [
        (kept(Frame()), asking(10_000, 210_000), 140_000),
        (kept(Frame()), asking(0, 100_000), 90_000),
        (kept(Frame(), to_ms=60_000), asking(0, 210_000), 60_000),
        (kept(Frame(covers_to_ms=95_000)), asking(0, 210_000), 30_000),
        (kept(Frame(), asked_ms=60_000), asking(0, 210_000), None),
        (kept(Frame()), asking(-10_000, 210_000), None),
        (kept(Frame()), asking(200_000, 210_000), None),
        (kept(Frame(), from_ms=-5_000), asking(0, 210_000), None),
        (kept(Frame(), reusable_until_ms=210_000), asking(0, 210_000), None),
        (kept(Frame(notices=(Notice("warning", "n"),))), asking(10_000, 210_000), 140_000),
        (kept(Frame(behind_ms=45_000)), asking(0, 210_000), 90_000),
        (kept(Frame(behind_ms=300_000)), asking(0, 210_000), None),
        (kept(Frame(partial=True)), asking(10_000, 210_000), None),
        (kept(Frame(text={"what": ()})), asking(0, 210_000), None),
    ],
    ids=[
        "all but a minute and what has passed",
        "the last bucket is always asked for",
        "no further than it was asked for",
        "no further than a minute before a snapshot's end",
        "nothing is settled yet",
        "it begins too late",
        "it ends too early",
        "another grid",
        "asked too long ago",
        "a remark alone changes nothing",
        "less by as much as the store's clock is behind",
        "what the store's clock has not seen is not settled",
        "something is missing from it",
        "events",
    ],
)
def test_what_may_be_taken_over(of: CachedFrame, window: Statement, until_ms: int | None) -> None:
    assert reusable_until(of, window, 60.0, 210_000) == until_ms


@pytest.mark.parametrize(
    ("then_ms", "now_ms", "until_ms"), [(130_000, 190_000, 120_000), (190_000, 90_000, 80_000), (0, 0, None)]
)
def test_what_a_store_has_thinned_is_taken_over_up_to_where_both_askings_have_it_thinned(
    then_ms: int, now_ms: int, until_ms: int | None
) -> None:
    of, window = kept(Frame()), replace(asking(0, 210_000), thin_ms=40_000, thin_to_ms=now_ms)
    of = replace(of, statement=replace(of.statement, thin_ms=40_000, thin_to_ms=then_ms))
    assert reusable_until(of, window, 60.0, 210_000) == until_ms


async def test_the_rest_is_asked_for_and_put_behind_what_is_kept() -> None:
    clock, asked = Clock(), list[Statement]()

    async def source(statement: Statement) -> Frame:
        asked.append(statement)
        return frame({"account=a": {time: len(asked) for time in range(statement.range.from_ms, statement.range.to_ms, 50_000)}})

    clock.now_ms = 200_000
    fetch = pieced(source, Policy(fresh_s=0), Telemetry(), clock)
    await fetch(asking(0, 200_000, 50_000))
    clock.now_ms = 250_000
    found = await fetch(asking(50_000, 250_000, 50_000))
    assert [(one.range.from_ms, one.range.to_ms, dict(one.params)["from_ms"]) for one in asked] == [
        (0, 200_000, 0),
        (100_000, 250_000, 100_000),
    ]
    assert shown(found) == {"account=a": {50_000: 1, 100_000: 2, 150_000: 2, 200_000: 2}}
    assert (found.provenance.asked_ms, found.provenance.incremental) == (250_000, True)


async def test_metrics_of_one_statement_share_no_buckets_that_may_still_change_for_one_of_them() -> None:
    clock = Clock()

    async def source(statement: Statement) -> Frame:
        return frame({"account=a": dict.fromkeys(range(statement.range.from_ms, statement.range.to_ms, 10_000), clock.now_ms)})

    fetch = pieced(source, Policy(fresh_s=0), Telemetry(), clock)
    settles_soon, found = CacheTimes(volatile_s=0), Frame()
    for clock.now_ms, times in ((200_000, settles_soon), (270_000, settles_soon), (270_000, CacheTimes())):
        found = await fetch(replace(asking(0, clock.now_ms), cache=times))
    # 20 s after its end this bucket was asked for last, and for a minute it may change.
    assert shown(found)["account=a"][170_000] == 270_000


@pytest.mark.parametrize(
    ("marks", "asked_from_ms"),
    [
        ({"notices": (Notice("warning", "s: its clock is 3.0s behind the bridge's"),)}, [0, 100_000]),
        ({"partial": True}, [0, 50_000]),
    ],
    ids=["a remark", "a partial answer"],
)
async def test_a_remark_does_not_end_incremental_fetches_and_a_gap_does(marks: dict[str, Any], asked_from_ms: list[int]) -> None:
    clock, asked = Clock(), list[int]()

    async def source(statement: Statement) -> Frame:
        asked.append(statement.range.from_ms)
        return frame({"account=a": dict.fromkeys(range(statement.range.from_ms, statement.range.to_ms, 50_000), 1)}, **marks)

    clock.now_ms = 200_000
    fetch = pieced(source, Policy(fresh_s=0), Telemetry(), clock)
    await fetch(asking(0, 200_000, 50_000))
    clock.now_ms = 250_000
    found = await fetch(asking(50_000, 250_000, 50_000))
    assert asked == asked_from_ms
    assert (found.notices, found.partial) == (marks.get("notices", ()), "partial" in marks)


class BehindSource:
    """A store whose clock is five minutes behind: what it evaluates beyond its own present is a guess (-1)."""

    name, skew_s = "s", -300.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def fetch(self, statement: Statement) -> Frame:
        knows_to_ms = self._clock.now_ms + round(self.skew_s * 1000)
        buckets = range(statement.range.from_ms, statement.range.to_ms, 10_000)
        return frame({"account=a": {time: 1 if time + 10_000 <= knows_to_ms else -1 for time in buckets}})


async def test_buckets_that_a_store_behind_us_has_not_seen_yet_are_asked_for_again() -> None:
    clock = Clock()
    clock.now_ms = 1_000_000
    store = BehindSource(clock)
    fetch = pieced(with_skew_notice(cast("Source", store)), Policy(fresh_s=0), Telemetry(), clock)
    found = await fetch(asking(500_000, 1_000_000))
    assert (shown(found)["account=a"][800_000], found.behind_ms) == (-1, 300_000)
    # Its clock is set right; a minute later nothing of that guess is shown any more.
    clock.now_ms, store.skew_s = 1_060_000, 0.0
    found = await fetch(asking(500_000, 1_060_000))
    assert (set(shown(found)["account=a"].values()), found.notices, found.provenance.incremental) == ({1}, (), True)


@pytest.mark.parametrize(
    ("again", "wholes"),
    [(asking(0, 200_000, lane="alert"), 2), (asking(0, 200_000, read=None), 2), (asking(0, 200_000), 1)],
    ids=["an alert", "a read that looks across buckets", "a panel"],
)
async def test_who_gets_nothing_that_is_taken_over(again: Statement, wholes: int) -> None:
    clock, asked = Clock(), list[int]()

    async def source(statement: Statement) -> Frame:
        asked.append(statement.range.from_ms)
        return frame({"account=a": {statement.range.from_ms: 1}})

    clock.now_ms = 400_000
    fetch = pieced(source, Policy(fresh_s=0), Telemetry(), clock)
    for statement in (asking(0, 200_000), again):
        await fetch(statement)
    assert (asked.count(0), len(asked)) == (wholes, 2)


async def test_an_alert_is_not_served_an_answer_that_was_put_together() -> None:
    clock, asked = Clock(), list[int]()

    async def source(statement: Statement) -> Frame:
        asked.append(statement.range.from_ms)
        return frame({"account=a": {statement.range.from_ms: 1}})

    clock.now_ms = 400_000
    fetch = pieced(source, Policy(), Telemetry(), clock)
    await fetch(asking(0, 200_000))
    clock.now_ms += 10_001
    for lane in ("interactive", "alert", "interactive"):
        await fetch(asking(0, 200_000, lane=lane))
    assert asked == [0, 190_000, 0]


async def test_what_an_alert_asked_for_is_taken_over_by_a_panel() -> None:
    clock, asked = Clock(), list[int]()

    async def source(statement: Statement) -> Frame:
        asked.append(statement.range.from_ms)
        return frame({"account=a": {statement.range.from_ms: 1}})

    clock.now_ms = 400_000
    fetch = pieced(source, Policy(fresh_s=0), Telemetry(), clock)
    for lane in ("alert", "interactive"):
        await fetch(asking(0, 200_000, lane=lane))
    assert asked == [0, 190_000]


@pytest.mark.parametrize(("before", "outcome", "left"), [(1.0, "equal", 1), (2.0, "different", 0)])
async def test_a_sample_is_compared_with_the_source_and_what_differs_is_forgotten(before: float, outcome: str, left: int) -> None:
    clock, telemetry, value = Clock(), Telemetry(), before
    clock.now_ms = 300_000
    answers = AnswerCache(1 << 20, 100)

    async def source(statement: Statement) -> Frame:
        return frame({"account=a": dict.fromkeys(range(statement.range.from_ms, statement.range.to_ms, 10000), value)})

    delta = Incremental("s", source, answers, Policy(), telemetry, clock, chance=lambda: 0.0)
    first = await delta(asking(0, 200_000))
    answers.put(asking(0, 200_000), first.with_provenance(asked_ms=300_000), 0)
    value = 1.0
    await delta(asking(10_000, 300_000))
    await asyncio.sleep(0.01)
    assert counted(telemetry, "bridge_self_checks_total", outcome=outcome) == 1
    assert len(answers) == left
