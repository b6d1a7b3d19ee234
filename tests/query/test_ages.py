"""An age is that of the moment of the answer, however long ago the source was asked for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog import load
from app.errors import ConfigError, SourceUnavailable
from app.model import Frame, Query, Result, Statement
from app.query.bridge import Bridge
from app.telemetry import Telemetry
from tests.frames import frame, shown

NOW = 1_700_000_007_250
STEP = 10_000
OPEN = NOW // STEP * STEP

TEXT = """
group: g
title: G
labels: {instance: {title: I, metric: beat}}
metrics:
  beat: {title: t, description: d, unit: UNIT, aggregate: max, over_time: last, resolution_s: 10, labels: [instance],
    history: {source: prom, query: "max by ({by}) (time() - beat{where})"},
    live: {source: hot, read: hashes, index: i, hash: "h:{id}", age_of: at, aggregate: max, labels: {instance: $id}}}
  snapshot: {title: t, description: d, unit: UNIT, age: true, aggregate: max, over_time: last, resolution_s: 10,
    history: {source: prom, query: "max(time() - snapshot)"}}
  plain: {title: t, description: d, unit: s, aggregate: max, over_time: last, resolution_s: 10,
    history: {source: prom, query: "max(x)"},
    live: {source: hot, read: hash, key: h, field: f, aggregate: max}}
"""
KINDS = {"prom": "prometheus", "hot": "redis"}
BEAT = Query("beat", OPEN - 60_000, NOW, by=("instance",), step_ms=STEP)


def ask(query: Query, prom: Frame | None, hot: Frame | None = None, unit: str = "s", now_ms: int = NOW) -> Result:
    async def answer(frame: Frame | None, statement: Statement) -> Frame:
        if frame is None:
            raise SourceUnavailable(statement.source, "refused")
        return frame

    fetches = {"prom": lambda statement: answer(prom, statement), "hot": lambda statement: answer(hot, statement)}
    bridge = Bridge(load({"c.yaml": TEXT.replace("UNIT", unit)}, KINDS), fetches, Telemetry(), lambda: now_ms)
    [found] = asyncio.run(bridge.run([query], 20))
    return found


def beats(value: float, asked_ms: int, at_ms: int = OPEN, **more: object) -> Frame:
    return frame({"instance=T1": {at_ms: value}}, asked_ms=asked_ms, **more)


def newest_value(result: Result) -> float:
    return list(shown(result.frame).popitem()[1].values())[-1] or 0.0


@given(st.integers(0, 900_000), st.booleans(), st.booleans())
def test_an_age_has_grown_by_the_time_since_it_was_asked_for(since_ms: int, stale: bool, instant: bool) -> None:
    asked_ms = NOW - since_ms
    kept = beats(3.0, asked_ms, asked_ms // STEP * STEP, stale="refused" if stale else None)
    found = ask(replace(BEAT, instant=instant), frame({}), kept)
    # The store computed it for the second of the asking, so up to a second is added.
    assert since_ms / 1000 + 3.0 <= newest_value(found) < since_ms / 1000 + 4.0
    assert max(found.frame.time) == OPEN


@pytest.mark.parametrize(("unit", "grown"), [("s", 243.25), ("ms", 240_253.0), ("m", 4.0 + 3 + 0.25 / 60)])
def test_it_grows_in_its_own_unit(unit: str, grown: float) -> None:
    asked_ms = OPEN + 7000 - 240_000
    assert newest_value(ask(BEAT, frame({}), beats(3.0, asked_ms, stale="refused"), unit)) == pytest.approx(grown)


def test_a_tile_of_the_newest_value_does_not_take_an_age_of_the_past_for_that_of_now() -> None:
    old = beats(3.0, NOW - 300_000, OPEN - 310_000, stale="refused")
    query = replace(BEAT, from_ms=OPEN - 600_000, instant=True)
    found = ask(query, old, None)
    # It was computed at the end of its bucket.
    assert newest_value(found) == pytest.approx(3.0 + (NOW - (OPEN - 300_000)) / 1000)


def test_a_curve_keeps_the_ages_of_the_past_and_ends_with_that_of_now() -> None:
    old = frame({"": {OPEN - 310_000: 3.0, OPEN - 300_000: 4.0}}, asked_ms=OPEN - 290_000, stale="refused")
    found = ask(Query("snapshot", OPEN - 600_000, NOW, step_ms=STEP), old)
    assert shown(found.frame) == {
        "": {OPEN - 310_000: 3.0, OPEN - 300_000: 4.0, OPEN: pytest.approx(4.0 + (NOW - OPEN + 290_000) / 1000)}
    }


def test_the_open_bucket_of_a_curve_goes_on_and_closed_ones_do_not() -> None:
    kept = frame({"": {OPEN - 10_000: 3.0, OPEN: 4.0}}, asked_ms=NOW - 6000, fresh_until_ms=NOW + 4000)
    found = ask(Query("snapshot", OPEN - 60_000, NOW, step_ms=STEP), kept)
    assert shown(found.frame) == {"": {OPEN - 10_000: 3.0, OPEN: 10.0}}


def test_a_window_that_has_passed_has_the_ages_of_its_end() -> None:
    past = beats(3.0, NOW, OPEN - 600_000)
    found = ask(Query("beat", OPEN - 700_000, OPEN - 590_000, by=("instance",), step_ms=STEP, instant=True), past)
    assert newest_value(found) == 3.0


def test_what_is_no_age_stays_as_it_was() -> None:
    kept = frame({"": {OPEN: 3.0}}, asked_ms=NOW - 60_000)
    assert newest_value(ask(Query("plain", OPEN - 60_000, NOW, step_ms=STEP, instant=True), frame({}), kept)) == 3.0


def test_a_finished_response_with_an_age_is_not_sent_again() -> None:
    fresh = {"asked_ms": NOW, "fresh_until_ms": NOW + 10_000}
    assert ask(BEAT, frame({}, **fresh), frame({"instance=T1": {OPEN: 3.0}}, **fresh)).valid_until_ms is None
    plain = Query("plain", OPEN - 60_000, NOW, step_ms=STEP)
    assert ask(plain, frame({}, **fresh), frame({"": {OPEN: 3.0}}, **fresh)).valid_until_ms is not None


def test_an_age_in_a_unit_that_is_none_of_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="'percent' is no unit of an age"):
        load({"c.yaml": TEXT.replace("UNIT", "percent")}, KINDS)
