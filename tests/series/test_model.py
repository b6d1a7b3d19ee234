from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import instant_text
from app.model import Frame, Matcher, Notice, Statement, TimeRange, frame_of_parts
from app.sources.base import Read
from tests.frames import frame, shown


def test_no_pieces_make_an_empty_frame_that_keeps_its_remarks() -> None:
    found = frame_of_parts([], covers_to_ms=7)
    assert (len(found), found.series, found.covers_to_ms) == (0, (), 7)


def test_selecting_rows_leaves_out_series_that_have_none_left() -> None:
    found = frame({"a=1": {1000: 1, 2000: 2}, "a=2": {1000: 3}})
    assert shown(found.select(np.array([False, True, False]))) == {"a=1": {2000: 2.0}}


def test_a_remark_is_made_once() -> None:
    notice = Notice("info", "once")
    assert Frame().remark(notice).remark(notice).notices == (notice,)


def test_statements_that_differ_only_in_the_instant_of_asking_share_a_key() -> None:
    def statement(now_ms: int) -> Statement:
        where = (Matcher("account", "=", ("A1",)),)
        params, read = (("now_ms", now_ms), ("w0", "A1")), Read(source="s")
        return Statement("s", "m", "t", params, TimeRange(0, 1000, 1000), (), where, read, now_ms)

    assert statement(5000).key == statement(6000).key
    assert statement(5000).key != statement(0).key


@pytest.mark.parametrize(("time_ms", "text"), [(0, "1970-01-01 00:00:00Z"), (1_740_823_205_999, "2025-03-01 10:00:05Z")])
def test_instants_read_as_utc_seconds(time_ms: int, text: str) -> None:
    assert instant_text(time_ms) == text


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.lists(st.tuples(st.integers(0, 20), st.integers(-5, 5)), min_size=1, max_size=10)),
        max_size=6,
    )
)
def test_pieces_of_series_are_put_together_by_time_and_the_last_of_equal_times_wins(
    pieces: list[tuple[str, list[tuple[int, int]]]],
) -> None:
    found = frame_of_parts(
        ((("one", label),), np.array([time for time, _ in rows]), np.array([float(value) for _, value in rows]))
        for label, rows in pieces
    )
    expected: dict[str, dict[int, float]] = {}
    for label, rows in pieces:
        expected.setdefault(f"one={label}", {}).update(rows)
    assert shown(found) == expected
