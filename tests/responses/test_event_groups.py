from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.responses.event_groups import grouped_events

HOUR = 3_600_000


def event(at_ms: int, title: str = "Order failed", tags: str = "trade") -> dict[str, Any]:
    return {"time": at_ms, "timeEnd": at_ms + 5, "title": title, "text": "no money", "tags": tags, "id": f"e{at_ms}"}


def test_few_events_stay_as_they_are() -> None:
    events = [event(1), event(2)]
    assert grouped_events(events, 0, HOUR, 2) == events


def test_many_events_are_one_mark_for_each_part_of_the_window_that_has_any() -> None:
    events = [event(10), event(20, "Requote", "trade,broker"), event(30), event(HOUR - 1)]
    assert grouped_events(events, 0, HOUR, 2) == [
        {
            "time": 10,
            "timeEnd": None,
            "title": "3 events",
            "text": "2x Order failed; 1x Requote",
            "tags": "trade,broker",
            "id": None,
        },
        event(HOUR - 1),
    ]


def test_a_group_of_many_titles_names_the_most_frequent_and_counts_the_others() -> None:
    [mark] = grouped_events([event(at, f"Kind {at}") for at in range(6)], 0, HOUR, 1)
    assert mark["text"] == "1x Kind 0; 1x Kind 1; 1x Kind 2; 3 others"


def test_a_group_that_began_before_the_window_stands_where_the_window_begins() -> None:
    [mark] = grouped_events([event(-HOUR), event(-5), event(30)], 0, HOUR, 1)
    assert (mark["time"], mark["title"]) == (0, "3 events")


@given(st.lists(st.integers(-HOUR, HOUR - 1), max_size=60), st.integers(1, 20))
def test_there_are_never_more_marks_than_asked_for_and_no_event_is_lost(times: list[int], most: int) -> None:
    events = [event(at) for at in sorted(times)]
    marks = grouped_events(events, 0, HOUR, most)
    assert len(marks) <= most
    assert sum(int(mark["title"].split()[0]) if mark["id"] is None else 1 for mark in marks) == len(events)
    assert [mark["time"] for mark in marks] == sorted(mark["time"] for mark in marks)
