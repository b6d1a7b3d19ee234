from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model import Frame, Matcher, Notice, Statement, TimeRange, frame_of_columns, frame_of_parts, instant_text
from tests.unit.frames import frame, shown


def test_long_rows_in_any_order_become_sorted_series() -> None:
    found = frame_of_columns(
        np.array([3000, 1000, 2000, 1000]),
        np.array([1.0, 2.0, 3.0, 4.0]),
        {"broker": ["x", "y", "x", "y"], "account": ["1", None, "1", "2"]},
    )
    assert shown(found) == {
        "account=,broker=y": {1000: 2.0},
        "account=1,broker=x": {2000: 3.0, 3000: 1.0},
        "account=2,broker=y": {1000: 4.0},
    }


def test_of_two_rows_for_one_instant_the_last_wins() -> None:
    found = frame_of_columns(np.array([1000, 1000]), np.array([1.0, 2.0]), {})
    assert shown(found) == {"": {1000: 2.0}}


def test_no_rows_make_an_empty_frame_that_keeps_its_remarks() -> None:
    found = frame_of_columns(np.array([], dtype=np.int64), np.array([]), {"a": []}, covers_to_ms=7)
    assert (len(found), found.series, found.covers_to_ms) == (0, (), 7)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(-5, 5)),
        unique_by=lambda row: row[:3],
        max_size=60,
    )
)
def test_columns_and_series_hold_the_same_rows(rows: list[tuple[int, str, str, int]]) -> None:
    found = frame_of_columns(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=np.float64),
        {"one": [row[1] for row in rows], "two": [row[2] for row in rows]},
    )
    again = [
        (int(time), dict(labels)["one"], dict(labels)["two"], int(value))
        for labels, times, values in found.runs()
        for time, value in zip(times, values, strict=True)
    ]
    assert again == sorted(rows, key=lambda row: (row[1], row[2], row[0]))


def test_selecting_rows_leaves_out_series_that_have_none_left() -> None:
    found = frame({"a=1": {1000: 1, 2000: 2}, "a=2": {1000: 3}})
    assert shown(found.select(np.array([False, True, False]))) == {"a=1": {2000: 2.0}}


def test_a_remark_is_made_once() -> None:
    notice = Notice("info", "once")
    assert Frame().remark(notice).remark(notice).notices == (notice,)


def test_statements_that_differ_only_in_the_instant_of_asking_share_a_key() -> None:
    def statement(now_ms: int) -> Statement:
        where = (Matcher("account", "=", ("A1",)),)
        return Statement("s", "m", "t", (("now_ms", now_ms), ("w0", "A1")), TimeRange(0, 1000, 1000), (), where, object(), now_ms)

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
