"""The order of the series and the cut to the first of them, over generated series: by values before thinning, stable, whole."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalog import load
from app.errors import SourceUnavailable
from app.model import Frame, Query, Ranking, Result, Statement
from app.query.bridge import Bridge
from app.query.ranking import rank_series, series_figures
from app.telemetry import Telemetry
from tests.frames import Course, frame, shown

#: what a series is compared by, worked out without arrays
_COMPARED: Mapping[str, Callable[[Sequence[float]], float]] = {
    "last": lambda known: known[-1],
    "max": max,
    "min": min,
    "sum": math.fsum,
}

_values = st.none() | st.integers(-4, 4).map(float)
_courses = st.dictionaries(st.integers(0, 9).map(lambda place: place * 1000), _values, min_size=1, max_size=6)
_worlds = st.dictionaries(st.integers(1, 30).map(lambda number: f"account=A{number:02}"), _courses, max_size=12)
_rankings = st.builds(
    Ranking, st.sampled_from([None, "value", "-value", "label"]), st.none() | st.integers(1, 14), st.sampled_from(list(_COMPARED))
)


def figure_of(course: Course, top_by: str) -> float | None:
    known = [value for _, value in sorted(course.items()) if value is not None]
    return _COMPARED[top_by](known) if known else None


def expected_order(world: dict[str, Course], ranking: Ranking) -> list[str]:
    """The names of the series as the words of the documentation have it."""
    by_label = sorted(world)
    if ranking.order in (None, "label"):
        return by_label
    sign = -1 if ranking.order == "-value" else 1
    figures = {name: figure_of(world[name], ranking.top_by) for name in by_label}
    valued = [name for name in by_label if figures[name] is not None]
    return sorted(valued, key=lambda name: sign * (figures[name] or 0.0)) + [name for name in by_label if figures[name] is None]


@given(_worlds, _rankings)
def test_the_series_come_in_the_asked_order_and_the_first_of_it_stay(world: dict[str, Course], ranking: Ranking) -> None:
    whole = frame(world)
    found, ranked = rank_series(whole, whole, ranking)
    assert list(shown(found)) == expected_order(world, ranking)[: ranking.top]
    assert {name: shown(found)[name] for name in shown(found)} == {name: shown(whole)[name] for name in shown(found)}
    if ranking.order is not None:
        assert (ranked.total, list(ranked.keys)) == (len(world), sorted(ranked.keys))


@given(_worlds, _rankings)
def test_sorting_only_changes_the_order(world: dict[str, Course], ranking: Ranking) -> None:
    whole = frame(world)
    found, _ = rank_series(whole, whole, replace(ranking, top=None))
    assert shown(found) == shown(whole)
    assert sorted(found.series) == list(whole.series)


@given(_worlds, _rankings, st.integers(1, 14))
def test_a_top_is_the_beginning_of_the_sorted_whole(world: dict[str, Course], ranking: Ranking, top: int) -> None:
    whole = frame(world)
    sorted_whole, _ = rank_series(whole, whole, replace(ranking, sort=ranking.order or "-value", top=None))
    first, _ = rank_series(whole, whole, replace(ranking, sort=ranking.order or "-value", top=top))
    assert first.series == sorted_whole.series[:top]


def test_a_series_of_nulls_has_no_figure() -> None:
    found = series_figures(frame({"account=A1": {1000: None}, "account=A2": {1000: 5, 2000: None}}), "last")
    assert [math.isnan(value) or value for value in found.values()] == [True, 5.0]


NOW = 1_700_000_000_000
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
    labels: [account]
    history: {source: lake, sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"}
    live: {source: hot, read: hashes, index: i, hash: "h:{id}", field: f, aggregate: sum, labels: {account: $id}}
"""


class Stores:
    """A history of as many accounts as wanted, and a live store that may be down."""

    def __init__(self, accounts: int, live_is_up: bool = True) -> None:
        self.accounts, self.live_is_up = accounts, live_is_up
        self.asked: list[Statement] = []

    async def lake(self, statement: Statement) -> Frame:
        self.asked.append(statement)
        span = statement.range
        times = range(span.from_ms, span.to_ms, span.step_ms)
        # The highest account has its highest value in a bucket that thinning by the last value would not show.
        return frame(
            {
                f"account=A{number:04}": {at: number * (10.0 if place == 3 else 1.0) for place, at in enumerate(times)}
                for number in range(self.accounts)
            }
        )

    async def hot(self, statement: Statement) -> Frame:
        if not self.live_is_up:
            raise SourceUnavailable("hot", "refused")
        at = statement.range.to_ms - statement.range.step_ms
        return frame({f"account=A{number:04}": {at: float(self.accounts - number)} for number in range(self.accounts)})


def answer(stores: Stores, ranking: Ranking, **how: Any) -> Result:
    catalogue = load({"catalogue.yaml": TEXT}, {"lake": "duckdb", "hot": "redis"})
    asked = Bridge(catalogue, {"lake": stores.lake, "hot": stores.hot}, Telemetry(), lambda: NOW)
    query = Query("gauge", NOW - 600_000, NOW, by=("account",), ranking=ranking, **how)
    [found] = asyncio.run(asked.run([query], 20))
    return found


def names(result: Result) -> list[str]:
    return [value for labels in result.frame.series for _, value in labels]


def texts(result: Result) -> list[str]:
    return [notice.text for notice in result.frame.notices]


def test_the_top_of_a_thousand_says_how_many_are_not_shown() -> None:
    found = answer(Stores(1000), Ranking(top=20), instant=True)
    assert names(found) == [f"A{number:04}" for number in range(20)]
    assert "gauge: the top 20 of 1000 series by the last value; 980 are not shown" in texts(found)
    assert (found.status, found.ranked.total) == ("fresh", 1000)


def test_the_lowest_come_first_where_that_is_the_order() -> None:
    found = answer(Stores(30), Ranking("value", 3), instant=True)
    assert names(found) == ["A0029", "A0028", "A0027"]
    assert "gauge: the lowest 3 of 30 series by the last value; 27 are not shown" in texts(found)


@pytest.mark.parametrize("points", [5, 1000])
def test_the_order_does_not_depend_on_how_many_points_are_shown(points: int) -> None:
    found = answer(Stores(9), Ranking("-value", 4, "max"), max_points=points)
    assert names(found) == ["A0008", "A0007", "A0006", "A0005"]


def test_a_sum_is_of_every_point_so_the_store_thins_none() -> None:
    stores = Stores(5)
    answer(stores, Ranking("-value", 2, "sum"), max_points=20)
    answer(stores, Ranking("-value", 2, "max"), max_points=20)
    assert [statement.thin_ms > 0 for statement in stores.asked] == [False, True]


def test_two_orders_share_the_answer_of_the_store() -> None:
    stores = Stores(5)
    answer(stores, Ranking("value", 2))
    answer(stores, Ranking("-value", 3, "max"))
    answer(stores, Ranking())
    assert len({statement.key for statement in stores.asked}) == 1


def test_an_order_of_what_is_partial_says_that_it_may_be_wrong() -> None:
    found = answer(Stores(5, live_is_up=False), Ranking(top=2))
    assert found.status == "partial"
    assert "gauge: a part of the data is missing, so the order of the series may be wrong" in texts(found)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(1, 12))
def test_nothing_is_said_where_nothing_is_left_out(accounts: int, top: int) -> None:
    found = answer(Stores(accounts), Ranking(top=top), instant=True)
    assert any("not shown" in text for text in texts(found)) == (top < accounts)
