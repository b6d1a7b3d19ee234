"""Many events as a few marks on the time axis: hundreds of lines would bury the curves that they are drawn over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

#: The most frequent titles of a group, which stand in its text.
_MOST_TITLES = 3


def grouped_events(rows: Sequence[Mapping[str, Any]], from_ms: int, to_ms: int, most: int) -> list[Mapping[str, Any]]:
    """The events as they are if there are at most `most`; else one mark for each part of the window that has any.

    `rows` are those of `event_rows`, by time. An event that began before the window counts to its first part. A part with one
    event is that event, with its end. A group stands at its first event, or at the beginning of the window if that is later, and
    says how many it has and which are most frequent.
    """
    if len(rows) <= most:
        return list(rows)
    part_ms = -(-(to_ms - from_ms) // most)
    parts = groupby(rows, lambda row: max(row["time"] - from_ms, 0) // part_ms)
    return [_mark_of(list(group), from_ms) for _, group in parts]


def _mark_of(group: Sequence[Mapping[str, Any]], from_ms: int) -> Mapping[str, Any]:
    if len(group) == 1:
        return group[0]
    titles = Counter(row["title"] or "" for row in group).most_common()
    lines = [f"{count}x {title}" for title, count in titles[:_MOST_TITLES]]
    others = sum(count for _, count in titles[_MOST_TITLES:])
    tags = dict.fromkeys(tag for row in group for tag in (row["tags"] or "").split(",") if tag)
    return {
        "time": max(group[0]["time"], from_ms),
        "timeEnd": None,
        "title": f"{len(group)} events",
        "text": "; ".join([*lines, *([f"{others} others"] if others else [])]),
        "tags": ",".join(tags),
        "id": None,
    }
