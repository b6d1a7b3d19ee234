"""An average or ratio of too few answers is null: counted over the whole bucket, whichever store has seen which part of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.catalog import load
from app.errors import BadQuery, ConfigError
from app.model import Frame, Query, Result, Statement
from app.query.bridge import Bridge
from app.telemetry import Telemetry
from tests.frames import shown

MINUTE = 60_000
NOW = 1_700_070_200_000
#: settled: 30 s ago, on a whole minute
SEAM = (NOW - 30_000) // MINUTE * MINUTE
BUCKET = SEAM // (30 * MINUTE) * 30 * MINUTE

TEXT = """
group: g
title: G
metrics:
  rate: {title: t, description: d, unit: percent, aggregate: ratio, over_time: ratio, settle_s: 30, least: LEAST,
    history: {source: lake, parts: mean, sql: "SELECT {step_ms:Int64} AS time, 1 AS value, 1 AS weight"},
    live: {source: hot, read: events, stream: s, aggregate: ratio, ratio_of: {of: {code: [1]}}}}
  total: {title: t, description: d, unit: short, aggregate: sum, over_time: sum, settle_s: 30,
    history: {source: lake, parts: sum, sql: "SELECT {step_ms:Int64} AS time, 1 AS value"},
    live: {source: hot, read: events, stream: s, value: count, aggregate: count}}
"""
KINDS = {"lake": "clickhouse", "hot": "redis"}
ASKED = Query("rate", BUCKET, NOW, step_ms=30 * MINUTE)


def part(at_ms: int, percent: float, answers: int) -> Frame:
    return Frame(np.array([at_ms]), np.array([percent]), ((),), (0, 1), weight=np.array([float(answers)]))


def ask(history: int, live: int, least: int = 1, query: Query = ASKED) -> Result:
    """The bucket of now: half of the history's answers count, none of the live store's."""

    async def lake(statement: Statement) -> Frame:
        return part(statement.range.bucket_ms(statement.range.from_ms), 50.0, history)

    async def hot(statement: Statement) -> Frame:
        return part(statement.range.bucket_ms(statement.range.from_ms), 0.0, live)

    catalogue = load({"c.yaml": TEXT.replace("LEAST", str(least))}, KINDS)
    asked = Bridge(catalogue, {"lake": lake, "hot": hot}, Telemetry(), lambda: NOW)
    [found] = asyncio.run(asked.run([query], 20))
    return found


@pytest.mark.parametrize(
    ("history", "live", "value"), [(6, 4, 30.0), (6, 3, None), (12, 0, 50.0), (0, 12, 0.0), (0, 9, None), (300, 100, 37.5)]
)
def test_the_answers_of_both_parts_of_a_bucket_count(history: int, live: int, value: float | None) -> None:
    assert shown(ask(history, live, least=10).frame) == {"": {BUCKET: value}}


@pytest.mark.parametrize("how", [{"exact": True}, {"instant": True}, {"strict": True}, {"strict": True, "instant": True}])
def test_it_holds_in_every_form(how: dict[str, Any]) -> None:
    query = replace(ASKED, **how)
    found = ask(6, 3, 10, query)
    assert (found.status, [*shown(found.frame)[""].values()]) == ("fresh", [None])
    assert [*shown(ask(6, 4, 10, query).frame)[""].values()] == [30.0]


def test_a_question_can_ask_for_more_answers_but_not_for_fewer() -> None:
    assert shown(ask(10, 9, least=10).frame) == {"": {BUCKET: pytest.approx(50 * 10 / 19)}}
    assert shown(ask(10, 9, 10, replace(ASKED, least=20)).frame) == {"": {BUCKET: None}}
    assert shown(ask(5, 4, 10, replace(ASKED, least=2)).frame) == {"": {BUCKET: None}}


def test_a_figure_that_counts_no_answers_has_no_least() -> None:
    with pytest.raises(BadQuery, match="least: total is no average or ratio of answers"):
        _raise_error("total")


def _raise_error(metric: str) -> None:
    catalogue = load({"c.yaml": TEXT.replace("LEAST", "1")}, KINDS)
    asked = Bridge(catalogue, {}, Telemetry(), lambda: NOW)
    [found] = asyncio.run(asked.run([Query(metric, BUCKET, NOW, least=5)], 20))
    assert found.error is not None
    raise found.error


def test_a_catalogue_that_wants_a_least_number_of_what_nobody_counts_is_refused() -> None:
    text = TEXT.replace("LEAST", "10").replace("aggregate: sum, over_time: sum,", "aggregate: sum, over_time: sum, least: 5,")
    with pytest.raises(ConfigError, match=r"metrics\.total\.least"):
        load({"c.yaml": text}, KINDS)
