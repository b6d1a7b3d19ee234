from __future__ import annotations

import pytest

from app.sources.sql import unsorted, yields_points


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("SELECT 1 AS time, 2 AS value ORDER BY time", "SELECT 1 AS time, 2 AS value "),
        ("SELECT 1 AS time, 2 AS value order  by Time\n", "SELECT 1 AS time, 2 AS value "),
        ("SELECT 1 AS time ORDER BY time LIMIT 5", None),
        ("SELECT 1 AS time ORDER BY time DESC", None),
        ("SELECT 1 AS time ORDER BY time, account", None),
        ("SELECT 1 AS time, sum(x) OVER (ORDER BY time)", None),
        ("SELECT 1 AS time ORDER BY lifetime", None),
    ],
)
def test_only_an_order_by_time_at_the_very_end_is_left_out(text: str, left: str | None) -> None:
    assert unsorted(text) == (text if left is None else left)


@pytest.mark.parametrize(
    ("text", "points"),
    [("SELECT 1 AS time, 2 AS value", True), ("SELECT 1 as time, x as Value", True), ("SELECT 1 AS time, t AS title", False)],
)
def test_points_have_a_value_and_events_none(text: str, points: bool) -> None:
    assert yields_points(text) is points
