"""The use case over scripted sources: what is shown, what is marked, who is not harmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from app.catalog import load
from app.errors import LimitExceeded, SourceUnavailable
from app.model import Fetch, Frame, Notice, Query, Result, Statement
from app.query.bridge import Bridge
from app.telemetry import Telemetry
from tests.frames import frame, shown

NOW = 1_700_000_005_500
OPEN = 1_699_999_980_000
MINUTE = 60_000

TEXT = """
group: g
title: G
labels:
  account: {title: Account, metric: gauge}
  fixed: {title: Fixed, values: [one, two]}
metrics:
  gauge:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    labels: [account]
    history: {source: lake, sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"}
    live: {source: hot, read: hashes, index: i, hash: "h:{id}", field: f, aggregate: sum, labels: {account: $id}}
    fallback: [{source: spare, sql: "SELECT $from_ms AS time, {by}, 2 AS value WHERE true {where}"}]
  bare:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    history: {source: lake, sql: "SELECT $from_ms AS time, 1 AS value"}
    live: {source: hot, read: hash, key: h, field: f}
  past:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    history: {source: lake, sql: "SELECT $from_ms AS time, 1 AS value"}
  present:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    live: {source: hot, read: hash, key: h, field: f}
  summed:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: sum
    settle_s: 60
    history: {source: lake, sql: "SELECT $from_ms AS time, 1 AS value", parts: sum}
    live: {source: hot, read: events, stream: s, value: count}
events:
  failures:
    title: t
    description: d
    read: {source: lake, sql: "SELECT $from_ms AS time, 'x' AS title"}
"""

Answer = Frame | Exception | Callable[[], Awaitable[Frame]]


def bridge(**answers: Answer) -> Bridge:
    def fetch(answer: Answer) -> Fetch:
        async def fetched(_: Statement) -> Frame:
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, Frame) else await answer()

        return fetched

    kinds = {"lake": "duckdb", "hot": "redis", "spare": "duckdb"}
    fetches = {name: fetch(answer) for name, answer in answers.items()}
    return Bridge(load({"g.yaml": TEXT}, kinds), fetches, Telemetry(), lambda: NOW)


def query(metric: str = "gauge", **more: object) -> Query:
    return Query(metric, OPEN - 2 * MINUTE, NOW, step_ms=MINUTE, by=("account",) if metric == "gauge" else (), **more)  # type: ignore[arg-type]  # fields by name


async def ask(asked: Bridge, *queries: Query) -> list[Result]:
    return await asked.run(queries or [query()], budget_s=0.3)


HISTORY = frame({"account=A1": {OPEN - 2 * MINUTE: 1, OPEN - MINUTE: 2}}, asked_ms=NOW)
LIVE = frame({"account=A1": {OPEN: 3}}, asked_ms=NOW - 400)
DOWN = SourceUnavailable("x", "refused")


def texts(result: Result) -> list[str]:
    return [notice.text for notice in result.frame.notices]


async def hang() -> Frame:
    await asyncio.Event().wait()
    raise AssertionError


async def test_history_and_live_edge_are_one_series() -> None:
    [result] = await ask(bridge(lake=HISTORY, hot=LIVE))
    assert shown(result.frame) == {"account=A1": {OPEN - 2 * MINUTE: 1.0, OPEN - MINUTE: 2.0, OPEN: 3.0}}
    assert (result.status, texts(result), result.age_s) == ("fresh", [], 0.4)


async def test_without_the_live_edge_the_history_stands_and_says_where_it_ends() -> None:
    [result] = await ask(bridge(lake=HISTORY, hot=DOWN))
    assert result.status == "partial"
    assert texts(result) == ["x: refused; the live edge is missing, the newest point is 2023-11-14 22:12:00Z"]


async def test_without_the_history_the_fallback_answers_by_name() -> None:
    [result] = await ask(bridge(lake=DOWN, hot=LIVE, spare=frame({"account=A1": {OPEN - MINUTE: 7, OPEN: 8}})))
    assert shown(result.frame) == {"account=A1": {OPEN - MINUTE: 7.0, OPEN: 3.0}}
    assert (result.status, texts(result)) == ("partial", ["x: refused; answered by the fallback spare"])


async def test_without_history_and_fallback_the_live_edge_stands_alone() -> None:
    [result] = await ask(bridge(lake=DOWN, hot=LIVE))
    assert shown(result.frame) == {"account=A1": {OPEN: 3.0}}
    assert texts(result) == [
        "x: refused; the history is missing, only the live edge is shown",
        "spare: not configured; this fallback is missing too",
    ]


async def test_with_everything_down_the_answer_is_the_first_error() -> None:
    [result] = await ask(bridge(lake=DOWN, hot=DOWN))
    assert (result.status, result.error) == ("error", DOWN)


async def test_one_failing_query_does_not_spoil_its_neighbours() -> None:
    found = await ask(bridge(lake=HISTORY, hot=LIVE), query(), query("nonsense", ref_id="B"), query(ref_id="C"))
    assert [(result.query.ref_id, result.status) for result in found] == [("A", "fresh"), ("B", "error"), ("C", "fresh")]


async def test_a_hanging_source_costs_at_most_the_requests_limit_and_the_rest_is_shown() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    [result] = await ask(bridge(lake=HISTORY, hot=hang))
    assert loop.time() - begun < 0.5
    assert result.status == "partial"
    assert texts(result)[0].startswith("hot: no answer within the request's time limit; the live edge is missing")


@pytest.mark.parametrize("answers", [{"lake": HISTORY, "hot": DOWN}, {"lake": DOWN, "hot": LIVE, "spare": HISTORY}])
async def test_an_alert_gets_an_error_where_any_part_is_missing(answers: dict[str, Answer]) -> None:
    [result] = await ask(bridge(**answers), query(strict=True))
    assert (result.status, result.error, len(result.frame)) == ("error", DOWN, 0)


async def test_an_alert_gets_an_error_where_a_snapshot_is_too_old_to_reach_the_live_edge() -> None:
    old = frame({"": {OPEN - 2 * MINUTE: 1}}, covers_to_ms=OPEN - 2 * MINUTE)
    [result] = await ask(bridge(lake=old, hot=frame({"": {OPEN: 3}})), query("bare", strict=True))
    assert result.error is not None
    assert "the history ends at 2023-11-14 22:11:00Z" in result.error.message


async def test_a_snapshot_that_ends_before_the_live_edge_leaves_a_named_hole() -> None:
    old = frame({"": {OPEN - 2 * MINUTE: 1}}, covers_to_ms=OPEN - 2 * MINUTE)
    [result] = await ask(bridge(lake=old, hot=frame({"": {OPEN: 3}})), query("bare"))
    assert (result.status, texts(result)) == (
        "partial",
        ["bare: the history ends at 2023-11-14 22:11:00Z; the 120s after it are incomplete"],
    )


@pytest.mark.parametrize("step", [{"step_ms": 60 * MINUTE}, {"exact": True}])
async def test_what_a_snapshot_lacks_of_a_long_bucket_is_named_and_no_alert_compares_the_rest(step: dict[str, object]) -> None:
    """The seam is a minute ago; the snapshot ends 20 minutes before it, and the bucket is longer than that."""
    asked = Query("summed", NOW - 600 * MINUTE, NOW, **step)  # type: ignore[arg-type]  # fields by name
    for ends_ms, status in ((NOW - 20 * MINUTE, "partial"), (NOW - MINUTE, "fresh")):
        lake, hot = frame({"": {}}, covers_to_ms=ends_ms, asked_ms=NOW), frame({"": {}}, asked_ms=NOW)
        [result], [alert] = [await ask(bridge(lake=lake, hot=hot), replace(asked, strict=strict)) for strict in (False, True)]
        assert (result.status, alert.status) == (status, "error" if status == "partial" else "fresh")
        assert [text.startswith("summed: the history ends at ") for text in texts(result)] == [True] * (status == "partial")


@pytest.mark.parametrize("step", [{"step_ms": 60 * MINUTE}, {"exact": True}])
async def test_a_snapshot_alone_may_be_some_minutes_old_and_no_older_however_long_a_bucket_is(step: dict[str, object]) -> None:
    asked = Query("past", NOW - 600 * MINUTE, NOW, **step)  # type: ignore[arg-type]  # fields by name
    for minutes, status in ((4, "fresh"), (6, "partial")):
        lake = frame({"": {}}, covers_to_ms=NOW - minutes * MINUTE, asked_ms=NOW)
        [result] = await ask(bridge(lake=lake), asked)
        assert result.status == status


async def test_events_of_a_snapshot_that_ends_early_are_partial() -> None:
    for minutes, status in ((4, "fresh"), (6, "partial")):
        asked = bridge(lake=Frame(covers_to_ms=NOW - minutes * MINUTE))
        assert (await asked.events("failures", NOW - 60 * MINUTE, NOW, (), 1)).status == status
        assert (await asked.events("failures", NOW - 60 * MINUTE, NOW - minutes * MINUTE, (), 1)).status == "fresh"


async def test_an_instant_answer_is_the_newest_point_of_each_label_set() -> None:
    history = frame({"account=A1": {OPEN - MINUTE: 1}, "account=A2": {OPEN - MINUTE: 5}})
    [result] = await ask(bridge(lake=history, hot=LIVE), query(instant=True))
    assert shown(result.frame) == {"account=A1": {OPEN: 3.0}, "account=A2": {OPEN - MINUTE: 5.0}}


async def test_an_alerts_newest_value_is_null_once_it_is_known_to_have_none() -> None:
    unused = frame({"account=A1": {OPEN: None}}, asked_ms=NOW)
    [alert] = await ask(bridge(lake=HISTORY, hot=unused), query(strict=True, instant=True))
    [panel] = await ask(bridge(lake=HISTORY, hot=unused), query(instant=True))
    assert (shown(alert.frame), shown(panel.frame)) == ({"account=A1": {OPEN: None}}, {"account=A1": {OPEN - MINUTE: 2.0}})


async def test_an_alerts_newest_value_is_what_is_told_of_now_where_somebody_does() -> None:
    gone = frame({"account=A1": {OPEN - MINUTE: 2}, "account=A2": {OPEN - MINUTE: 5}}, asked_ms=NOW)
    [result] = await ask(bridge(lake=gone, hot=LIVE), query(strict=True, instant=True))
    assert shown(result.frame) == {"account=A1": {OPEN: 3.0}}


async def test_an_alerts_newest_value_is_none_that_ended_more_than_two_steps_ago() -> None:
    asked = Query("past", OPEN - 4 * MINUTE, NOW, step_ms=MINUTE, strict=True, instant=True)
    found = [
        shown((await ask(bridge(lake=frame({"": {OPEN - back * MINUTE: 5}}, asked_ms=NOW)), asked))[0].frame) for back in (1, 3)
    ]
    assert found == [{"": {OPEN - MINUTE: 5.0}}, {}]


async def test_too_many_queries_are_refused_before_any_is_asked() -> None:
    with pytest.raises(LimitExceeded, match="targets: 51 in one request; at most 50 are allowed"):
        await ask(bridge(), *[query()] * 51)


async def test_label_values_are_those_that_its_metric_shows() -> None:
    history = frame({"account=A2": {NOW // 1000 * 1000 - 1_000_000: 1}})
    values, _ = await bridge(lake=history, hot=LIVE).values("account", (), 0.3)
    assert values == ["A1", "A2"] or values == ["A2"]


async def test_fixed_label_values_ask_nobody() -> None:
    assert await bridge().values("fixed", (), 0.3) == (["one", "two"], None)


async def test_events_come_with_their_texts() -> None:
    found = Frame(text={"title": ("x",)})
    result = await bridge(lake=found).events("failures", 0, 1000, (), 0.3)
    assert (result.status, result.frame.text) == ("fresh", {"title": ("x",)})


STALE_LIVE = LIVE.with_provenance(stale="refused", asked_ms=NOW - 31_000)


async def test_an_older_answer_is_shown_with_its_age_its_instant_and_the_reason() -> None:
    [result] = await ask(bridge(lake=HISTORY, hot=STALE_LIVE))
    assert shown(result.frame)["account=A1"][OPEN] == 3.0
    assert (result.status, result.age_s) == ("stale", 31.0)
    assert texts(result) == ["hot: STALE, 31s old, as of 2023-11-14 22:12:54Z: refused"]


async def test_an_alert_never_gets_an_older_answer_even_where_a_source_hands_one_out() -> None:
    [result] = await ask(bridge(lake=HISTORY, hot=STALE_LIVE), query(strict=True))
    assert (result.status, len(result.frame)) == ("error", 0)
    assert "STALE" in str(result.error)


async def test_what_grew_old_while_its_neighbour_was_waited_for_is_marked() -> None:
    clock = [NOW]

    async def slow() -> Frame:
        clock[0] += 4000
        return LIVE

    async def fetch_of(answer: Frame | Callable[[], Awaitable[Frame]]) -> Frame:
        return answer if isinstance(answer, Frame) else await answer()

    kinds = {"lake": "duckdb", "hot": "redis", "spare": "duckdb"}
    fetches: dict[str, Fetch] = {
        "lake": lambda _: fetch_of(HISTORY.with_provenance(fresh_until_ms=NOW + 1000)),
        "hot": lambda _: fetch_of(slow),
    }
    asked = Bridge(load({"g.yaml": TEXT}, kinds), fetches, Telemetry(), lambda: clock[0])
    [result] = await ask(asked)
    assert result.status == "stale"
    assert texts(result) == ["lake: STALE, 4s old, as of 2023-11-14 22:13:25Z: it grew old while the other parts were waited for"]


async def test_where_the_fallbacks_fail_too_what_is_kept_stands_in_with_the_first_reason() -> None:
    asked = []

    async def lake(statement: Statement) -> Frame:
        asked.append(statement.accept)
        if statement.accept == "cached_only":
            return HISTORY.with_provenance(stale="", asked_ms=NOW - 60_000)
        raise DOWN

    kinds = {"lake": "duckdb", "hot": "redis", "spare": "duckdb"}

    async def hot(_: Statement) -> Frame:
        return LIVE

    found = Bridge(load({"g.yaml": TEXT}, kinds), {"lake": lake, "hot": hot}, Telemetry(), lambda: NOW)
    [result] = await ask(found)
    assert (asked, result.status) == (["fresh", "cached_only"], "stale")
    assert texts(result) == [
        "lake: STALE, 60s old, as of 2023-11-14 22:12:25Z: refused",
        "spare: not configured; this fallback is missing too",
    ]


async def test_last_values_from_before_the_range_are_shown_at_their_own_time_where_the_panel_would_be_blank() -> None:
    course = {OPEN - 10 * MINUTE: 4, OPEN - 9 * MINUTE: 5}
    long_ago = frame({"account=A1": course}, stale="refused", asked_ms=NOW - 540_000)
    [result] = await ask(bridge(lake=long_ago, hot=DOWN))
    assert shown(result.frame) == {"account=A1": {OPEN - 9 * MINUTE: 5.0}}


async def test_events_of_an_older_answer_are_marked() -> None:
    found = frame({"": {0: None}}, text={"title": ("x",)}, stale="refused", asked_ms=NOW - 5000)
    result = await bridge(lake=found).events("failures", 0, 1000, (), 0.3)
    assert (result.status, texts(result)) == ("stale", ["lake: STALE, 5s old, as of 2023-11-14 22:13:20Z: refused"])


async def test_each_asking_carries_the_askers_lane_and_time() -> None:
    seen: list[Statement] = []

    async def lake(statement: Statement) -> Frame:
        seen.append(statement)
        return HISTORY

    kinds = {"lake": "duckdb", "hot": "redis", "spare": "duckdb"}
    asked = Bridge(load({"g.yaml": TEXT}, kinds), {"lake": lake}, Telemetry(), lambda: NOW)
    ends_s = asyncio.get_running_loop().time() + 0.3
    await ask(asked, query(strict=True), query(lane="background"))
    assert [(statement.lane, statement.accept) for statement in seen] == [
        ("alert", "fresh"),
        ("background", "fresh"),
    ]
    assert all(ends_s - 0.1 < statement.until_s < ends_s for statement in seen)


async def test_what_a_source_calls_incomplete_is_partial_and_no_alert_gets_it() -> None:
    warned = replace(LIVE, partial=True).remark(Notice("warning", "hot: a store behind it is missing"))
    shown_, alert = await ask(bridge(lake=HISTORY, hot=warned), query(), query(strict=True))
    assert (shown_.status, alert.status, str(alert.error)) == ("partial", "error", "gauge: hot: a store behind it is missing")


async def test_an_alert_gets_no_partial_answer_also_where_the_source_gives_no_remark() -> None:
    [alert] = await ask(bridge(lake=HISTORY, hot=replace(LIVE, partial=True)), query(strict=True))
    assert str(alert.error) == "gauge: its source says that the answer is incomplete"


async def test_the_store_that_is_slow_lately_is_asked_first() -> None:
    asked = []

    async def slow() -> Frame:
        asked.append("lake")
        await asyncio.sleep(0.05)
        return HISTORY

    async def quick() -> Frame:
        asked.append("hot")
        return LIVE

    of = bridge(lake=slow, hot=quick)
    for _ in range(2):
        asked.clear()
        results = await ask(of, query("present", ref_id="A"), query("past", ref_id="B"))
    assert (asked, [result.query.ref_id for result in results]) == (["lake", "hot"], ["A", "B"])
