"""An answer is believed when it can be the answer to its question, and only then."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SourceForeign
from app.model import Frame, Statement, TimeRange
from app.policies.checked import Checked, misfit
from tests.frames import frame
from tests.policies.scripted import Scripted

QUESTION = Statement("s", "equity", "t", (), TimeRange(60_000, 300_000, 60_000), ("broker", "account"))
TWO = frame({"account=A,broker=X": {60_000: 1, 240_000: None}, "account=B,broker=X": {60_000: 2}})
EVENTS = Statement("s", "crashes", "t", (), TimeRange(1000, 5000, 1000))
RUN = replace(frame({"": {1000: None, 2500: None}}), text={"title": ("a", "b"), "time_end": (None, "9000")})


def changed(**columns: object) -> Frame:
    return replace(TWO, **columns)  # type: ignore[arg-type]  # a wrong type is among what is tested


@pytest.mark.parametrize("answer", [TWO, Frame(), frame({"account=,broker=": {240_000: 1}})])
def test_what_can_be_the_answer_is_believed(answer: Frame) -> None:
    assert misfit(QUESTION, answer) is None


@pytest.mark.parametrize("step_ms", [1000, 7000, 86_400_000])
def test_an_exact_range_has_its_own_grid(step_ms: int) -> None:
    span = TimeRange(12_345, 12_345 + step_ms + 1, step_ms, 12_345)
    assert misfit(replace(QUESTION, range=span, labels=()), frame({"": {12_345: 1, 12_345 + step_ms: 2}})) is None


def test_a_range_that_begins_or_ends_inside_a_bucket_has_that_buckets_start() -> None:
    span = TimeRange(90_000, 150_000, 60_000)
    inside = frame({"": {60_000: 1, 120_000: 2}})
    assert misfit(replace(QUESTION, range=span, labels=()), inside) is None
    assert misfit(replace(QUESTION, range=span, labels=()), frame({"": {0: 1}})) is not None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (frame({"account=A,broker=X": {0: 1}}), "the time 0 is not in the asked range, 60000 <= time < 300000"),
        (frame({"account=A,broker=X": {300_000: 1}}), "the time 300000 is not in the asked range"),
        (frame({"account=A,broker=X": {-60_000: 1}}), "the time -60000 is not in the asked range"),
        (
            frame({"account=A,broker=X": {60_000: 1, 60_001: 1}}),
            "the time 60001 is the start of no bucket; they are 60000 ms wide",
        ),
        (frame({"account=A": {60_000: 1}}), "a series has the labels account in place of account, broker"),
        (frame({"": {60_000: 1}}), "a series has the labels none in place of account, broker"),
        (frame({"account=A,broker=X,symbol=S": {60_000: 1}}), "the labels account, broker, symbol in place of account, broker"),
        (changed(series=TWO.series[::-1]), "its series are not sorted, or one is there twice"),
        (changed(series=(TWO.series[0], TWO.series[0])), "its series are not sorted, or one is there twice"),
        (changed(series=(TWO.series[0][::-1], TWO.series[1])), "the labels broker, account in place of account, broker"),
        (changed(time=np.array([240_000, 60_000, 60_000])), "the times of a series do not ascend, or one is there twice"),
        (changed(time=np.array([60_000, 60_000, 60_000])), "the times of a series do not ascend, or one is there twice"),
        (changed(offsets=(0, 1)), "its 2 series do not share out its 3 rows"),
        (changed(offsets=(0, 2, 4)), "its 2 series do not share out its 3 rows"),
        (changed(offsets=(1, 2, 3)), "its 2 series do not share out its 3 rows"),
        (changed(offsets=(0, 3, 3)), "one of its series has no rows"),
        (changed(value=TWO.value[:2]), "its column 'value' has 2 rows in place of 3"),
        (changed(time=TWO.time.astype(np.float64)), "its columns are float64 and float64 in place of int64 and float64"),
        (changed(value=TWO.value.astype(object)), "its columns are int64 and object in place of int64 and float64"),
        (changed(text={"title": ("a",)}), "its column 'title' has 1 rows in place of 3"),
    ],
)
def test_what_cannot_be_the_answer_is_named(answer: Frame, said: str) -> None:
    assert said in (misfit(QUESTION, answer) or "")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (RUN, None),
        (replace(RUN, time=np.array([2500, 2500])), None),
        (replace(RUN, time=np.array([2500, 1000])), "the times of the events do not ascend"),
        (replace(RUN, time=np.array([1000, 5000])), "the time 5000 of an event is not in the asked range, 1000 <= time < 5000"),
        (replace(RUN, time=np.array([999, 2500])), "the time 999 of an event is not in the asked range"),
        # one that began before the range and reaches into it is shown
        (replace(RUN, time=np.array([999, 2500]), text={"time_end": ("1000", None)}), None),
        (replace(RUN, time=np.array([999, 2500]), text={"time_end": ("998", None)}), "the time 999 of an event is not"),
        (replace(RUN, time=np.array([999, 2500]), text={"time_end": ("soon", None)}), "the time 999 of an event is not"),
        (replace(RUN, series=((("account", "A"),),)), "events came with labels"),
    ],
)
def test_events_stand_in_order_inside_the_range_or_reach_into_it(answer: Frame, said: str | None) -> None:
    found = misfit(EVENTS, answer)
    assert (found is None) if said is None else said in (found or "")


@given(
    place=st.integers(0, 2), at=st.one_of(st.integers(-(2**62), 2**62), st.integers(-1, 6).map(lambda bucket: bucket * 60_000))
)
def test_a_time_that_is_none_of_the_questions_is_always_seen(place: int, at: int) -> None:
    times = TWO.time.copy()
    times[place] = at
    ascends = times[0] < times[1]
    its_own = at in range(60_000, 300_000, 60_000)
    assert (misfit(QUESTION, changed(time=times)) is None) == bool(ascends and its_own)


async def test_an_answer_that_does_not_fit_is_an_error_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(SourceForeign, match=r"s: answered what was not asked: the time 0 is not in"),
    ):
        await Checked("s", Scripted(frame({"account=A,broker=X": {0: 1}})))(QUESTION)
    assert [record.message for record in caplog.records] == [
        "s: equity: an answer is not believed: the time 0 is not in the asked range, 60000 <= time < 300000"
    ]


def test_the_check_costs_less_than_reading_the_answers_text() -> None:
    times, values = np.arange(0, 200_000_000, 1000), np.ones(200_000)
    large = Frame(times, values, ((),), (0, 200_000))
    asked = replace(QUESTION, range=TimeRange(0, 200_000_000, 1000), labels=())
    text = orjson.dumps([times, values], option=orjson.OPT_SERIALIZE_NUMPY)
    checked_s, read_s = [], []
    for _ in range(5):
        begun_s = time.process_time()
        assert misfit(asked, large) is None
        checked_s.append(time.process_time() - begun_s)
        begun_s = time.process_time()
        orjson.loads(text)
        read_s.append(time.process_time() - begun_s)
    assert min(checked_s) < min(read_s)
