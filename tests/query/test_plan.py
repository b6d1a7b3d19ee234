from __future__ import annotations

from dataclasses import replace

import pytest

from app.catalog import Catalogue, load
from app.errors import BadQuery, LimitExceeded, RequestError, UnknownName
from app.model import Matcher, Query, TimeRange
from app.query.limits import Limits
from app.query.plan import Plan, plan_query

NOW = 1_700_000_005_500

TEXT = """
group: g
title: G
labels:
  account: {title: Account, values: [A1]}
metrics:
  gauge:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    resolution_s: 10
    labels: [account]
    aliases: [old_gauge]
    history: {source: lake, sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"}
    live: {source: hot, read: hashes, index: i, hash: "h:{id}", field: f, aggregate: sum, labels: {account: $id}}
  sampled_twice:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    resolution_s: 10
    settle_s: 90
    labels: [account]
    history: {source: lake, sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"}
    live: {source: hot, read: hashes, index: i, hash: "h:{id}", history: "hist:{id}", field: f,
           aggregate: sum, labels: {account: $id}}
  odd_rows:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    resolution_s: 7
    settle_s: 60
    history: {source: lake, sql: "SELECT $from_ms AS time, 1 AS value"}
    live: {source: hot, read: hashes, index: i, hash: "h:{id}", history: "hist:{id}", field: f, aggregate: sum}
  ranged:
    title: t
    description: d
    unit: short
    aggregate: count
    over_time: sum
    settle_s: 90
    history: {source: lake, parts: sum, sql: "SELECT $from_ms AS time, 1 AS value"}
    live: {source: hot, read: events, stream: s, value: count, aggregate: count}
  past:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: sum
    history: {source: lake, parts: sum, sql: "SELECT $from_ms AS time, 1 AS value"}
    fallback: [{source: lake, sql: "SELECT $from_ms AS time, 2 AS value"}]
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load({"g.yaml": TEXT}, {"lake": "duckdb", "hot": "redis"})


def plan(catalogue: Catalogue, metric: str, length_s: float, **more: object) -> Plan:
    query = replace(Query(metric, NOW - round(length_s * 1000), NOW), **more)  # type: ignore[arg-type]  # fields by name
    return plan_query(catalogue, query, NOW, Limits())


def test_an_explicit_step_is_kept_and_the_range_widened_to_whole_buckets(catalogue: Catalogue) -> None:
    assert plan(catalogue, "gauge", 3600, step_ms=60_000).range == TimeRange(1_699_996_380_000, 1_700_000_040_000, 60_000)


def test_a_step_below_the_resolution_is_raised_and_says_so(catalogue: Catalogue) -> None:
    found = plan(catalogue, "gauge", 3600, step_ms=15_000)
    assert (found.range.step_ms, [notice.text for notice in found.notices]) == (
        20_000,
        ["step 15s raised to 20s: gauge comes every 10s"],
    )


def test_amounts_that_add_up_get_a_coarser_step_where_others_are_thinned(catalogue: Catalogue) -> None:
    """Grafana rounds its interval down: a day at 1000 points asks for minutes, and their sum is a figure on a dashboard."""
    day, minute = 86_400, {"step_ms": 60_000}
    summed, sampled = plan(catalogue, "ranged", day, **minute), plan(catalogue, "gauge", day, **minute)
    assert (summed.range.step_ms, summed.thin_ms) == (120_000, 0)
    assert [notice.text for notice in summed.notices] == [
        "step 60s raised to 120s: ranged adds up, so none of its points is left out to stay within 1000"
    ]
    assert (sampled.range.step_ms, sampled.thin_ms > 0) == (60_000, True)
    for other in ({"strict": True}, {"instant": True}):
        assert plan(catalogue, "ranged", day, **minute, **other).range.step_ms == 60_000
    assert plan(catalogue, "ranged", 60_000, **minute).range.step_ms == 60_000


def test_history_goes_on_to_the_end_of_the_minute_and_the_live_read_has_the_open_bucket(catalogue: Catalogue) -> None:
    found = plan(catalogue, "gauge", 3600, step_ms=60_000)
    assert found.history is not None
    assert found.live is not None
    open_minute = TimeRange(1_699_999_980_000, 1_700_000_040_000, 60_000)
    assert (found.history.range.to_ms, found.live.range, found.seam_ms) == (open_minute.to_ms, open_minute, open_minute.from_ms)
    assert (found.history.now_ms, found.live.now_ms) == (0, 1_700_000_005_000)


@pytest.mark.parametrize("metric", ["gauge", "sampled_twice"])
@pytest.mark.parametrize("more", [{"max_points": 10}, {"instant": True}])
@pytest.mark.parametrize("step_ms", [10_000, 60_000, 300_000])
def test_no_row_that_the_live_edge_may_replace_is_thinned_by_the_store(
    catalogue: Catalogue, metric: str, more: dict[str, object], step_ms: int
) -> None:
    found = plan(catalogue, metric, 36_000, step_ms=step_ms, **more)
    assert found.history is not None
    assert found.live is not None
    assert found.history.thin_ms > 0
    assert found.live.range.from_ms - 60_000 - step_ms < found.history.thin_to_ms <= min(found.live.range.from_ms, found.open_ms)
    assert found.history.range.to_ms > found.open_ms


def test_no_replaced_row_is_thinned_where_the_rows_of_a_metric_and_whole_minutes_do_not_fit(catalogue: Catalogue) -> None:
    """Rows of 7 s: seams lie on multiples of 63 s, which are not the buckets of 70 s."""
    for now_ms in range(NOW, NOW + 600_000, 7_000):
        found = plan_query(
            catalogue, Query("odd_rows", NOW - 36_000_000, now_ms, step_ms=70_000, max_points=10), now_ms, Limits()
        )
        assert found.history is not None
        assert found.history.thin_ms > 0
        assert found.history.thin_to_ms <= found.seam_ms


@pytest.mark.parametrize("metric", ["gauge", "sampled_twice"])
def test_of_a_window_in_the_past_everything_is_thinned(catalogue: Catalogue, metric: str) -> None:
    query = Query(metric, NOW - 7_200_000, NOW - 3_600_000, step_ms=10_000, max_points=10)
    found = plan_query(catalogue, query, NOW, Limits()).history
    assert found is not None
    assert (found.thin_ms > 0, found.thin_to_ms) == (True, found.range.to_ms)


@pytest.mark.parametrize("max_points", [60, 1000])
def test_all_who_ask_within_a_minute_ask_the_same_of_the_present_and_of_the_history_whatever_their_open_bucket(
    catalogue: Catalogue, max_points: int
) -> None:
    asked = set()
    for after_ms in (0, 9_000, 30_000):
        query = Query("gauge", NOW - 3_600_000, NOW + after_ms, step_ms=10_000, max_points=max_points)
        found = plan_query(catalogue, query, NOW + after_ms, Limits())
        assert found.history is not None
        assert found.live is not None
        asked.add((found.history.key, found.live.key))
    assert len(asked) == 1


def test_a_live_read_that_knows_a_range_begins_before_what_may_not_have_settled(catalogue: Catalogue) -> None:
    found = plan(catalogue, "ranged", 3600, step_ms=60_000)
    assert found.live is not None
    assert found.live.range.from_ms == (NOW - 90_000) // 60_000 * 60_000


def test_without_a_live_read_the_history_is_asked_for_the_open_bucket_too(catalogue: Catalogue) -> None:
    found = plan(catalogue, "past", 3600, step_ms=60_000)
    assert found.history is not None
    assert (found.history.range.to_ms, found.history.now_ms) == (1_700_000_040_000, 1_700_000_005_000)


def test_a_past_window_asks_no_live_read(catalogue: Catalogue) -> None:
    query = Query("gauge", NOW - 7_200_000, NOW - 3_600_000, step_ms=60_000)
    assert plan_query(catalogue, query, NOW, Limits()).live is None


@pytest.mark.parametrize(("before_ms", "live"), [(0, True), (1, True), (1_999, True), (2_000, False)])
def test_a_window_that_ends_a_moment_before_now_has_the_live_edge(catalogue: Catalogue, before_ms: int, live: bool) -> None:
    begun_ms = 1_700_000_010_000  # a bucket has just closed
    found = plan_query(catalogue, Query("gauge", begun_ms - 600_000, begun_ms - before_ms), begun_ms, Limits())
    assert (found.live is not None, found.valid_until_ms > begun_ms) == (live, not live)


def test_an_alert_does_not_see_the_open_bucket_of_a_growing_figure(catalogue: Catalogue) -> None:
    found = plan(catalogue, "past", 3600, step_ms=60_000, strict=True)
    assert found.range.to_ms == 1_699_999_980_000


def test_an_alias_is_the_metric(catalogue: Catalogue) -> None:
    assert plan(catalogue, "old_gauge", 60).metric.name == "gauge"


@pytest.mark.parametrize("length_s", [60, 3600, 6 * 3600, 86400, 30 * 86400, 399 * 86400])
@pytest.mark.parametrize("max_points", [10, 100, 1000])
def test_the_steps_that_the_bridge_chooses_stay_within_the_points_asked_for(
    catalogue: Catalogue, length_s: int, max_points: int
) -> None:
    sums = plan(catalogue, "past", length_s, max_points=max_points)
    samples = plan(catalogue, "gauge", length_s, max_points=max_points)
    # Two points a stretch, and the newest one.
    thinned = 2 * (length_s * 1000 // samples.thin_ms + 2) + 1 if samples.thin_ms else len(samples.range) - 1
    assert (len(sums.range) - 1 <= max_points, thinned <= max_points) == (True, True)
    assert len(samples.range) <= 21_000


@pytest.mark.parametrize("max_points", [10, 40, 300, 1000])
def test_a_sampled_figure_is_asked_as_finely_as_it_comes_however_few_points_are_wanted(
    catalogue: Catalogue, max_points: int
) -> None:
    found = plan(catalogue, "gauge", 86_400, max_points=max_points)
    assert (found.range.step_ms, found.thin_ms > 0) == (10_000, True)


def test_the_grid_does_not_depend_on_where_the_window_lies(catalogue: Catalogue) -> None:
    grids = set()
    for shift_ms in range(0, 600_000, 7_000):
        query = Query("gauge", NOW - 86_400_000 + shift_ms, NOW + shift_ms)
        found = plan_query(catalogue, query, NOW + shift_ms, Limits())
        grids.add((found.range.step_ms, found.thin_ms))
    assert len(grids) == 1


@pytest.mark.parametrize(
    ("query", "error", "parts"),
    [
        (Query("gaugge", 0, 1000), UnknownName, ("metric", "'gaugge'", "nearest: gauge")),
        (Query("gauge", 0, 1000, by=("acount",)), UnknownName, ("by", "'acount'", "nearest: account")),
        (Query("gauge", 0, 1000, where=(Matcher("x", "=", ("1",)),)), UnknownName, ("where", "'x'", "allowed: account")),
        (Query("gauge", 1000, 1000), BadQuery, ("from: 1000 is not before to: 1000", "allowed: from < to")),
        (Query("gauge", 0, 500 * 86_400_000), LimitExceeded, ("from, to", "500.0 days", "at most 400 days")),
        (Query("gauge", 0, 1000, step_ms=0), BadQuery, ("step", "0 ms", "allowed: a duration of 1s or more")),
        (Query("gauge", 0, 86_400_000 * 30, step_ms=10_000), LimitExceeded, ("step: 10s", "at most 11000", "236s or more")),
        (Query("gauge", 0, 1000, max_points=0), BadQuery, ("maxDataPoints: 0", "allowed: 1 to 1000")),
        (Query("gauge", 0, 1000, where=(Matcher("account", "=~", ("(",)),)), BadQuery, ("filter", "'('", "RE2")),
        (Query("gauge", 0, 1000, where=(Matcher("account", "=", ("x" * 2000,)),)), LimitExceeded, ("where: account", "1000")),
        *(
            (Query("gauge", 0, 1000, where=(Matcher("account", "=|", ("A", text)),)), BadQuery, ("where: account", "NUL or half"))
            for text in ("\ud800", "a\udfffb", "\0")
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(
    catalogue: Catalogue, query: Query, error: type[RequestError], parts: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        plan_query(catalogue, query, NOW, Limits())
    assert [part for part in parts if part not in caught.value.message] == []
