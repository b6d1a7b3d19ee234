"""A question of very many series: the answer stays within its room, whole, with every extreme, and says what it has cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalog import load
from app.errors import LimitExceeded, TooManyRows
from app.model import Frame, Labels, Matcher, Notice, Query, Ranking, Result, Statement, Times, Values, frame_of_runs
from app.query.bridge import Bridge
from app.query.limits import Limits
from app.query.sizes import SeriesCounts, share_cells
from app.query.top import with_marks_of
from app.series import thin
from app.telemetry import Telemetry

NOW = 1_700_000_000_000
HOUR_MS = 3_600_000
TEXT = """
group: g
title: G
labels: {account: {title: Account, metric: gauge}}
metrics:
  gauge:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    resolution_s: 10
    labels: [account]
    history:
      source: lake
      sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"
      samples: {each: [account], sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"}
    live: {source: hot, read: hashes, index: i, hash: "h:{id}", field: f, aggregate: sum, labels: {account: $id}}
  unthinned:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    resolution_s: 10
    labels: [account]
    history: {source: scraped, query: "sum by ({by}) (x{where})"}
  amounts:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: sum
    labels: [account]
    history: {source: lake, parts: sum, sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"}
"""
KINDS = {"lake": "duckdb", "hot": "redis", "scraped": "prometheus"}


def course_of(number: int, times: Times, step_ms: int) -> Values:
    """The values of one account: its highest and its lowest value once, three hours ago."""
    course: Values = (times // 10_000 % 7 + 10).astype(np.float64)
    at_ms = NOW - 3 * HOUR_MS + number * 10_000
    for peak_ms, value in ((at_ms, 1000.0 + number), (at_ms + 600_000, -1000.0 - number)):
        course[(times <= peak_ms) & (times > peak_ms - step_ms)] = value
    return course


class Desk:
    """Stores with so many accounts. Each statement may return `most` rows; a store that thins does."""

    def __init__(self, accounts: int, most: int = 10**9) -> None:
        self.accounts, self.most = accounts, most
        self.asked: list[Statement] = []
        self.refused = 0

    def names(self, statement: Statement) -> Sequence[Labels]:
        if not statement.labels:
            return [()]
        named = [matcher.values for matcher in statement.where if matcher.operator == "=|"]
        found = sorted(named[0]) if named else [f"A{number:05}" for number in range(self.accounts)]
        return [(("account", name),) for name in found]

    async def lake(self, statement: Statement) -> Frame:
        self.asked.append(statement)
        span, names = statement.range, self.names(statement)
        times = np.arange(span.bucket_ms(span.from_ms), span.to_ms, span.step_ms)
        courses = [course_of(int(dict(labels).get("account", "A0")[1:]), times, span.step_ms) for labels in names]
        whole = frame_of_runs([(labels, times, course) for labels, course in zip(names, courses, strict=True)])
        found = thin(whole, statement.thin_ms) if statement.thin_ms else whole
        if len(found) > self.most:
            self.refused += 1
            raise TooManyRows("lake", f"more than {self.most} rows (max_rows)")
        return found

    async def hot(self, statement: Statement) -> Frame:
        at = np.array([statement.range.to_ms - statement.range.step_ms])
        return frame_of_runs([(labels, at, np.array([11.0])) for labels in self.names(statement)])

    def bridge(self, **limits: Any) -> Bridge:
        fetches = {"lake": self.lake, "hot": self.hot, "scraped": self.lake}
        rows = dict.fromkeys(("lake", "scraped"), self.most)
        return Bridge(load({"g.yaml": TEXT}, KINDS), fetches, Telemetry(), lambda: NOW, Limits(most_rows=rows, **limits))


def asked(bridge: Bridge, *queries: Query) -> list[Result]:
    return asyncio.run(bridge.run(queries, 20))


def gauge(metric: str = "gauge", hours: int = 4, **how: Any) -> Query:
    return Query(metric, NOW - hours * HOUR_MS, NOW, **({"by": ("account",)} | how))


def said(result: Result) -> str:
    return "\n".join(notice.text for notice in result.frame.notices)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 60), st.integers(8, 200), st.integers(400, 4000), st.sampled_from([None, 10_000, 60_000]),
    st.sampled_from(["gauge", "unthinned", "amounts"]),
)  # fmt: skip
def test_an_answer_has_all_series_and_their_extremes_within_its_room(
    accounts: int, points: int, cells: int, step_ms: int | None, metric: str
) -> None:
    desk = Desk(accounts, most=max(cells * 2, accounts * 30))
    bridge = desk.bridge(most_cells=cells)
    for _ in range(2):
        [found] = asked(bridge, gauge(metric, max_points=points, step_ms=step_ms))
    assert (found.error, found.status, len(found.frame.series)) == (None, "fresh", accounts)
    assert len(found.frame) <= max(cells, accounts * 8) + accounts
    if metric == "gauge":
        ends = [(float(values.max()), float(values.min())) for _, _, values in found.frame.runs()]
        assert ends == [(1000.0 + number, -1000.0 - number) for number in range(accounts)]


@pytest.mark.parametrize("metric", ["gauge", "unthinned"])
def test_no_store_is_asked_for_more_rows_than_it_may_return_and_the_remark_says_what_that_costs(metric: str) -> None:
    desk = Desk(50, most=10_000)
    [found] = asked(desk.bridge(), gauge(metric, max_points=400))
    assert (found.status, len(found.frame.series), desk.refused) == ("fresh", 50, 0)
    assert "about 52 series" in said(found)


def test_a_store_with_more_series_than_its_newest_values_show_is_asked_for_fewer_points() -> None:
    desk = Desk(50, most=5000)
    [found] = asked(desk.bridge(), gauge("amounts", max_points=400))
    assert (found.status, len(found.frame.series), desk.refused) == ("fresh", 50, 1)
    assert "amounts: at most 60 points a series, since its store has more rows than it may return (max_rows); " in said(found)
    [again] = asked(bridge := desk.bridge(), gauge("amounts", max_points=400))
    [known] = asked(bridge, gauge("amounts", max_points=400))
    assert (again.status, known.status, desk.refused) == ("fresh", "fresh", 2)


def test_a_live_store_that_hangs_does_not_keep_the_history_waiting() -> None:
    desk = Desk(50)

    async def hang(_: Statement) -> Frame:
        await asyncio.sleep(60)
        raise AssertionError

    desk.hot = hang  # type: ignore[method-assign, assignment]
    [found] = asyncio.run(desk.bridge().run([gauge(max_points=400)], 1.0))
    assert (found.status, len(found.frame.series)) == ("partial", 50)


def test_an_alert_rule_gets_all_points_or_the_numbers_and_what_would_help() -> None:
    [found] = asked(Desk(50).bridge(most_cells=10_000), gauge(step_ms=10_000, strict=True))
    assert isinstance(found.error, LimitExceeded)
    assert found.error.message == (
        "step: gauge has about 52 series of 1441 points, and an answer may have 10000 in all (request.most_cells), all of them "
        "or none; allowed: fewer labels in by, a filter in where, top=20, or a shorter range, or a coarser step"
    )


def test_more_series_than_are_allowed_are_refused_with_the_numbers_but_a_top_of_them_is_shown() -> None:
    bridge = Desk(300).bridge(most_series=100)
    [all_of_them] = asked(bridge, gauge())
    [top] = asked(bridge, gauge(ranking=Ranking(top=5, top_by="max")))
    assert str(all_of_them.error) == (
        "by: gauge has 300 series by account; at most 100 are allowed (request.most_series); allowed: fewer labels in by, a "
        "filter in where, top=20, or a shorter range"
    )
    assert [value for labels in top.frame.series for _, value in labels] == [f"A{number:05}" for number in range(299, 294, -1)]


@pytest.mark.parametrize("top_by", ["last", "max", "min"])
@pytest.mark.parametrize("sort", [None, "value", "-value"])
def test_the_top_of_many_are_the_same_as_those_of_the_whole_answer_and_only_their_points_are_fetched(
    top_by: Any, sort: Any
) -> None:
    desk = Desk(200)
    bridge, ranking = desk.bridge(), Ranking(sort, 7, top_by)
    [whole] = asked(bridge, gauge(ranking=Ranking(sort or "-value", None, top_by), max_points=100))
    desk.asked.clear()
    [found] = asked(bridge, gauge(ranking=ranking, max_points=100))
    assert found.frame.series == whole.frame.series[:7]
    kept = len(found.frame)
    assert found.frame.time.tolist() == whole.frame.time[:kept].tolist()
    assert found.frame.value.tolist() == whole.frame.value[:kept].tolist()
    assert (found.ranked.total, found.query.where) == (200, ())
    assert [(statement.thin_ms > HOUR_MS, len(statement.where)) for statement in desk.asked] == [(True, 0), (False, 1)]


def test_a_top_that_an_older_answer_has_found_is_marked_as_that_answer_is() -> None:
    [top] = asked(Desk(200).bridge(), gauge(ranking=Ranking(top=7), max_points=100))
    top = replace(top, age_s=1.0)
    older = replace(
        top, status="stale", age_s=60.0, valid_until_ms=None, frame=top.frame.remark(Notice("warning", "lake: STALE"))
    )
    found = with_marks_of(top, older)
    assert (top.status, found.status, found.age_s, found.valid_until_ms) == ("fresh", "stale", 60.0, None)
    assert "lake: STALE" in said(found)
    assert with_marks_of(older, top).status == "stale"


def test_a_total_of_very_many_accounts_has_a_coarser_step_and_says_so() -> None:
    desk = Desk(1000)
    [few, many] = (asked(one.bridge(), gauge(hours=24, by=(), max_points=100))[0] for one in (Desk(20), desk))
    assert (few.range.step_ms, many.range.step_ms) == (10_000, 60_000)
    assert "gauge: a point every 60s, since each is put together from about 1024 series; " in said(many)


def test_the_questions_of_a_request_share_its_room_and_the_small_ones_come_first() -> None:
    assert share_cells([10, 1000, 400, 0], 1000) == [10, 590, 400, 0]
    assert share_cells([900, 900, 900], 900) == [300, 300, 300]
    assert share_cells([], 5) == []


@given(st.lists(st.integers(0, 10_000), max_size=8), st.integers(0, 20_000))
def test_no_question_has_more_room_than_it_wants_and_all_together_no_more_than_there_is(wanted: list[int], most: int) -> None:
    shares = share_cells(wanted, most)
    assert all(share <= want for share, want in zip(shares, wanted, strict=True))
    assert sum(shares) <= most
    assert sum(wanted) > most or shares == wanted


@given(st.integers(20, 100_000), st.integers(0, 20))
def test_a_few_series_more_or_less_do_not_change_the_grid(series: int, percent: int) -> None:
    counts, query = SeriesCounts(), gauge()
    counts.note(query, series)
    first = counts.find(query)
    counts.note(query, max(series * (100 - percent) // 100, 1))
    assert first is not None
    assert (counts.find(query), series <= first <= series * 1.25 + 1) == (first, True)


def test_a_filter_leaves_no_more_series_than_there_are_without_it() -> None:
    counts = SeriesCounts()
    counts.note(gauge(), 40)
    narrowed = gauge(where=(Matcher("account", "=", ("A00001",)),))
    assert (counts.find(narrowed), counts.find(gauge("unthinned")), counts.find(gauge(by=()))) == (40, None, 1)
