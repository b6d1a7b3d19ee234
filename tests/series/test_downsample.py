from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model import Frame
from app.series import clip, thin
from tests.frames import frame, shown


def test_each_stretch_keeps_its_lowest_and_highest_point_in_order_of_time() -> None:
    found = thin(frame({"a=1": {0: 5, 1: 9, 2: 1, 3: 4, 10: 2, 11: 3, 12: 2}}), 10)
    assert shown(found) == {"a=1": {1: 9.0, 2: 1.0, 10: 2.0, 11: 3.0, 12: 2.0}}


def test_of_equal_extremes_the_first_stays() -> None:
    assert shown(thin(frame({"": {0: 7, 1: 7, 2: 7, 10: 7}}), 10)) == {"": {0: 7.0, 10: 7.0}}


def test_the_newest_point_of_each_series_stays_null_or_not() -> None:
    long = dict.fromkeys(range(2000), 5) | {1999: None}
    assert shown(thin(frame({"a=1": {0: 3, 1: 9, 2: 5}, "a=2": {0: 3, 1: None}}), 10)) == {
        "a=1": {0: 3.0, 1: 9.0, 2: 5.0},
        "a=2": {0: 3.0, 1: None},
    }
    assert shown(thin(frame({"": long}), 5000)) == {"": {0: 5.0, 1999: None}}


def test_a_stretch_of_nulls_stays_a_gap_and_a_null_beside_values_goes() -> None:
    found = thin(frame({"": {0: 1, 10: None, 11: None, 20: None, 21: 4}}), 10)
    assert shown(found) == {"": {0: 1.0, 10: None, 21: 4.0}}


def test_series_do_not_touch_one_another() -> None:
    found = thin(frame({"a=1": {0: 1, 1: 2}, "a=2": {0: 8, 1: 9}}), 10)
    assert shown(found) == {"a=1": {0: 1.0, 1: 2.0}, "a=2": {0: 8.0, 1: 9.0}}


def test_nothing_stays_nothing() -> None:
    assert shown(thin(Frame(), 10)) == {}


_COURSES = st.lists(st.none() | st.integers(-9, 9), min_size=1, max_size=200)


@given(_COURSES, st.integers(2, 30))
def test_every_extreme_survives_and_no_stretch_has_more_than_two_points(course: list[int | None], width: int) -> None:
    whole = frame({"": dict(enumerate(course))})
    thinned = thin(whole, width)
    for begin in range(0, len(course), width):
        before, after = clip(whole, begin, begin + width).value, clip(thinned, begin, begin + width).value
        newest = begin + width >= len(course)
        assert 1 <= len(after) <= 2 + newest
        if not np.isnan(before).all():
            assert (np.nanmin(before), np.nanmax(before)) == (np.nanmin(after), np.nanmax(after))


@given(_COURSES, st.integers(2, 30), st.integers(0, 5))
def test_a_window_that_slides_changes_no_point_but_those_of_the_newest_stretch(
    course: list[int | None], width: int, stretches: int
) -> None:
    whole = frame({"": dict(enumerate(course))})
    newest = len(course) // width * width
    first = min(stretches * width, newest)
    refreshed = clip(thin(whole, width), first, newest)
    before = clip(thin(clip(whole, first, newest + 1), width), first, newest)
    assert shown(refreshed) == shown(before)


def kept_one_by_one(course: list[float | None], width: int) -> list[int]:
    """The rule, a stretch at a time."""
    kept = set[int]()
    for begin in range(0, len(course), width):
        stretch = {place: value for place, value in enumerate(course[begin : begin + width], begin) if value is not None}
        kept |= {min(stretch, key=stretch.__getitem__), max(stretch, key=stretch.__getitem__)} if stretch else {begin}
    return sorted(kept | {len(course) - 1})


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 700), st.sampled_from((0.0, 0.01, 0.5, 1.0)), st.integers(500, 3000))
def test_long_series_are_thinned_by_the_same_rule(seed: int, width: int, nulls: float, length: int) -> None:
    chance = np.random.default_rng(seed)
    courses = [
        [None if gap < nulls else value for value, gap in zip(chance.integers(0, 50, length), chance.random(length), strict=True)]
        for _ in range(2)
    ]
    found = thin(frame({f"a={place}": dict(enumerate(course)) for place, course in enumerate(courses)}), width)
    assert shown(found) == {
        f"a={place}": {kept: course[kept] for kept in kept_one_by_one(course, width)} for place, course in enumerate(courses)
    }


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 700))
def test_long_series_with_gaps_are_thinned_by_the_same_rule(seed: int, width: int) -> None:
    chance = np.random.default_rng(seed)
    times = np.flatnonzero(chance.random(3000) < 0.5).tolist()
    course = dict(zip(times, chance.integers(0, 50, len(times)).tolist(), strict=True))
    short = {f"a={place}": {0: 1} for place in range(10)}  # so many series that all are thinned at once
    one_by_one, at_once = (shown(thin(frame({"": course, **more}), width)) for more in ({}, short))
    assert one_by_one[""] == at_once[""]
