"""What a question will cost is learnt from the answers to questions like it, and estimated before the first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from app.catalog import load
from app.model import Matcher, Query, Result, SourceReport, frame_of_runs
from app.query.costs import Cost, CostBook

MINUTE = 60_000
DAY = 1440 * MINUTE
TEXT = """
group: g
title: G
labels: {account: {title: a, values: [x]}, broker: {title: b, values: [x]}}
metrics:
  equity: {title: t, description: d, unit: short, aggregate: sum, over_time: last, resolution_s: 10, labels: [account, broker],
    history: {source: lake, sql: "SELECT {step_ms:Int64} AS time, {by}, 1 AS value WHERE true {where}"}}
  margin: {title: t, description: d, unit: short, aggregate: sum, over_time: last, resolution_s: 10, labels: [account, broker],
    history: {source: lake, sql: "SELECT {step_ms:Int64} AS time, {by}, 1 AS value WHERE true {where}"}}
"""
BY_ACCOUNT = Query("equity", 0, DAY, by=("account",))
TOTAL = replace(BY_ACCOUNT, by=())


def book() -> CostBook:
    return CostBook(load({"c.yaml": TEXT}, {"lake": "clickhouse"}))


def answer(query: Query, series: int, points: int, fetched: int = 0) -> Result:
    times, values = np.arange(points) * 1000, np.ones(points)
    frame = frame_of_runs([((("account", str(number)),), times, values) for number in range(series)])
    return Result(query, frame, asked=(SourceReport("lake", "history", 0.1, rows=fetched or len(frame)),))


def test_a_refresh_of_a_panel_costs_what_its_last_answer_cost() -> None:
    known = book()
    known.learn([answer(BY_ACCOUNT, 3, 100, fetched=1000)], 5000, 0.2)
    later = replace(BY_ACCOUNT, from_ms=BY_ACCOUNT.from_ms + MINUTE, to_ms=BY_ACCOUNT.to_ms + MINUTE, ref_id="Z")
    assert known.expect([later]) == Cost(1000 * 16 + 5000, 0.2)


def test_the_bytes_of_a_body_are_shared_by_its_questions_as_their_points_are() -> None:
    known = book()
    margin = replace(TOTAL, metric="margin")
    known.learn([answer(BY_ACCOUNT, 9, 100), answer(margin, 1, 100)], 10_000, 0.2)
    assert known.expect([margin]) == Cost(100 * 16 + 1000, 0.2)
    assert known.expect([BY_ACCOUNT, margin]) == Cost(1000 * 16 + 10_000, 0.2)


def test_a_cost_that_rises_counts_at_once_and_one_that_falls_little_by_little() -> None:
    known, costs = book(), []
    for written in (1000, 5000, 1000):
        known.learn([answer(TOTAL, 1, 0)], written, 0.1)
        costs.append(known.expect([TOTAL]).bytes)
    assert costs == [1000, 5000, 3800]


def test_an_answer_that_failed_teaches_nothing() -> None:
    known = book()
    before = known.expect([TOTAL])
    known.learn([replace(answer(TOTAL, 1, 10), error=ValueError())], 10**9, 4.0)  # type: ignore[arg-type]  # any error
    assert known.expect([TOTAL]) == before


def test_the_first_question_of_a_kind_is_estimated_by_the_series_that_its_metric_usually_has() -> None:
    known = book()
    unknown = known.expect([replace(BY_ACCOUNT, to_ms=DAY // 2)]).bytes
    known.learn([answer(BY_ACCOUNT, 1000, 10)], 10_000, 0.1)
    of_many = known.expect([replace(BY_ACCOUNT, to_ms=DAY // 2)])
    assert (of_many.seconds, of_many.bytes) == (None, 40 * unknown), "1000 series in place of the 25 of nobody's knowledge"


def test_a_first_question_costs_no_more_than_the_points_and_the_named_values_that_it_asks_for() -> None:
    known = book()
    known.learn([answer(BY_ACCOUNT, 1000, 10)], 10_000, 0.1)
    points = 41
    named = replace(BY_ACCOUNT, where=(Matcher("account", "=|", ("A", "B")),))
    assert known.expect([replace(named, to_ms=DAY // 2)]).bytes == 2 * 1000 * points
    assert known.expect([replace(named, to_ms=10 * MINUTE)]).bytes == 2 * 60 * points
    assert known.expect([replace(named, step_ms=DAY // 4)]).bytes == 2 * 4 * points
    assert known.expect([replace(named, instant=True)]).bytes == 2 * points


def test_another_metric_with_the_same_labels_is_taken_for_as_many_series() -> None:
    known = book()
    known.learn([answer(BY_ACCOUNT, 300, 10)], 10_000, 0.1)
    assert known.expect([replace(BY_ACCOUNT, metric="margin")]).bytes == 300 * 1000 * 41
