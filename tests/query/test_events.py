"""Which events a window shows, and what is said where they are too many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from app.model import Frame
from app.query.events import MOST_EVENTS, Shown, shown_events

BIG = MOST_EVENTS + 1


def happened(times: Sequence[int], ends: Sequence[str | None] = ()) -> Frame:
    """Events at these times, named by their places."""
    text: dict[str, tuple[str | None, ...]] = {"title": tuple(str(place) for place in range(len(times)))}
    if ends:
        text["time_end"] = tuple(ends)
    return Frame(np.array(times, np.int64), np.full(len(times), np.nan), ((),) if times else (), (0, len(times)), text)


def titles(shown: Shown) -> list[str | None]:
    return list(shown.frame.text["title"])


def told(shown: Shown) -> list[str]:
    return [notice.text for notice in shown.notices]


def test_a_window_is_cut_to_the_millisecond_its_end_left_out() -> None:
    shown = shown_events(happened([999, 1000, 1499, 1500]), "e", 1000, 1500, reaching=True)
    assert (titles(shown), shown.from_ms, shown.notices) == (["1", "2"], 1000, ())


@pytest.mark.parametrize("ends", [["1400", None, "1250", "1900", "900"], ["1400.0", "", "1250.9", "19e2", "-"]])
def test_windows_one_after_the_other_count_each_event_once(ends: list[str | None]) -> None:
    found = happened([1001, 1199, 1200, 1399, 1400], ends)
    windows = [(1000, 1200), (1200, 1333), (1333, 1400), (1400, 1500)]
    counted = [title for window in windows for title in titles(shown_events(found, "e", *window, reaching=False))]
    assert counted == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("end", "there"), [("1001", True), ("1000", False), ("999", False), (None, False), ("", False), ("?", False), ("nan", False)]
)
def test_what_began_before_the_window_is_shown_where_it_lasts_into_it(end: str | None, there: bool) -> None:
    assert titles(shown_events(happened([400], [end]), "e", 1000, 2000, reaching=True)) == (["0"] if there else [])


def test_of_more_events_than_fit_the_newest_are_shown_and_that_is_said() -> None:
    shown = shown_events(happened(range(BIG)), "failures", 0, 2000, reaching=True)
    assert (titles(shown)[0], titles(shown)[-1], shown.from_ms) == ("1", "1000", 1)
    assert told(shown) == ["failures: more than 1000 in this range; only the newest are shown, from 1970-01-01 00:00:00Z on"]


def test_a_read_that_was_cut_short_before_the_window_was_cut_is_not_taken_for_whole() -> None:
    # Five of the read's newest 1001 lie behind the window's end: 996 are left, and nobody knows how many were before.
    shown = shown_events(happened(range(500, 500 + BIG)), "failures", 0, 500 + BIG - 5, reaching=False)
    assert (len(shown.frame), shown.from_ms, len(shown.notices)) == (BIG - 6, 501, 1)


def test_a_read_that_was_cut_short_before_the_window_begins_is_whole_there() -> None:
    shown = shown_events(happened(range(BIG)), "e", 500, 2000, reaching=False)
    assert (len(shown.frame), shown.from_ms, shown.notices) == (BIG - 500, 500, ())


def test_where_only_some_that_reach_in_are_left_out_that_is_said() -> None:
    shown = shown_events(happened(range(BIG), ["600"] * BIG), "e", 500, 2000, reaching=True)
    assert (shown.from_ms, told(shown)) == (500, ["e: more than 1000 in this range; some that began before it are left out"])


def test_of_one_instant_all_are_shown_or_none() -> None:
    shown = shown_events(happened([7, *[8] * 10, *range(100, 100 + BIG - 6)]), "e", 0, 2000, reaching=False)
    assert (titles(shown)[0], shown.from_ms) == ("11", 100)


def test_of_one_instant_that_alone_has_too_many_as_many_are_shown_as_fit() -> None:
    shown = shown_events(happened([8] * (BIG + 5)), "e", 0, 2000, reaching=False)
    assert (len(shown.frame), len(shown.notices)) == (MOST_EVENTS, 1)


def test_nothing_that_happened_is_a_whole_answer() -> None:
    shown = shown_events(Frame(text={"title": ()}), "e", 0, 2000, reaching=True)
    assert (len(shown.frame), shown.notices) == (0, ())
