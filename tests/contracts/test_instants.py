"""Instants as Grafana writes and rounds them; the arithmetic is done a second time here, with calendars."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.values import FORMS, instant_ms, window_ms
from app.errors import BadQuery


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


#: a Saturday
NOW = ms("2026-11-28T18:11:20.250")


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("now/d", "2026-11-28", "2026-11-28T23:59:59.999"),
        ("now/w", "2026-11-23", "2026-11-29T23:59:59.999"),
        ("now-1w/w", "2026-11-16", "2026-11-22T23:59:59.999"),
        ("now/M", "2026-11-01", "2026-11-30T23:59:59.999"),
        ("now-1M/M", "2026-10-01", "2026-10-31T23:59:59.999"),
        ("now/Q", "2026-10-01", "2026-12-31T23:59:59.999"),
        ("now/fQ", "2026-10-01", "2026-12-31T23:59:59.999"),
        ("now-1Q/Q", "2026-07-01", "2026-09-30T23:59:59.999"),
        ("now/y", "2026-01-01", "2026-12-31T23:59:59.999"),
        ("now/fy", "2026-01-01", "2026-12-31T23:59:59.999"),
        ("now-1y/y", "2025-01-01", "2025-12-31T23:59:59.999"),
        ("now/m", "2026-11-28T18:11", "2026-11-28T18:11:59.999"),
        ("now/1d", "2026-11-28", "2026-11-28T23:59:59.999"),
        ("now-1d/d+8h", "2026-11-27T08:00", "2026-11-28T07:59:59.999"),
        ("now/M-1d", "2026-10-31", "2026-11-29T23:59:59.999"),
        (" now - 1d / d ", "2026-11-27", "2026-11-27T23:59:59.999"),
    ],
)
def test_a_unit_is_rounded_down_where_a_window_begins_and_up_where_it_ends(text: str, start: str, end: str) -> None:
    assert window_ms(text, text, NOW) == (ms(start), ms(end))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", NOW),
        ("now-6h", NOW - 6 * 3_600_000),
        ("now-d", NOW - 86_400_000),
        ("now-5m", NOW - 300_000),
        ("now-500ms", NOW - 500),
        ("now-6M", ms("2026-05-28T18:11:20.250")),
        ("now-9M", ms("2026-02-28T18:11:20.250")),
        ("now-1y", ms("2025-11-28T18:11:20.250")),
        ("now 1h", NOW + 3_600_000),
        ("now-1h+30m-1s", NOW - 1_801_000),
        ("2026-11-27T17:00+01:00", ms("2026-11-27T16:00")),
        ("2026-11-27T17:00 01:00", ms("2026-11-27T16:00")),
        ("2026-11-27T17:00:00.5 0530", ms("2026-11-27T11:30:00.500")),
        ("2026-11-27 17:00", ms("2026-11-27T17:00")),
        ("2026-11-27 17:00:10", ms("2026-11-27T17:00:10")),
        ("2026-11-27", ms("2026-11-27")),
        (1_795_800_000, 1_795_800_000_000),
        ("1795800000123", 1_795_800_000_123),
        (1_795_800_000.5, 1_795_800_000_500),
    ],
)
def test_an_instant_is_read_in_every_form(text: object, at: int) -> None:
    assert instant_ms(text, "from", NOW, 0) == at


@pytest.mark.parametrize(("now", "text", "at"), [
    ("2026-01-31T12:00", "now+1M", "2026-02-28T12:00"),
    ("2028-01-31T12:00", "now+1M", "2028-02-29T12:00"),
    ("2028-02-29T12:00", "now-1y", "2027-02-28T12:00"),
    ("2026-03-31T12:00", "now-1Q", "2025-12-31T12:00"),
    ("2026-01-01T00:00", "now-1M/M", "2025-12-01T00:00"),
    ("2026-11-23T00:00", "now/w", "2026-11-23T00:00"),
    ("2026-11-22T23:59:59.999", "now/w", "2026-11-16T00:00"),
])  # fmt: skip
def test_months_of_different_lengths_end_on_their_last_day(now: str, text: str, at: str) -> None:
    assert instant_ms(text, "from", ms(now), 0) == ms(at)


@pytest.mark.parametrize(
    "text",
    [
        "now/x", "now-", "now/", "now-1", "now/2d", "now-1f", "now+/d", "nowhere", "now--1d", "now-9999999999d", "now-99999y",
        "now+999999M", "now-60y", "now+99999Q", "yesterday", "2026-13-01", "2026-11-27T25:00", "inf", "nan", "-5", True, [], {},
        "0001-01-01T00:00+23:59", "x" * 10_000, "9" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_the_forms_that_are(text: object) -> None:
    with pytest.raises(BadQuery) as caught:
        instant_ms(text, "range.from", NOW, 0)
    assert (caught.value.message.startswith("range.from: "), caught.value.message.endswith(FORMS)) == (True, True)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("text", [None, "", "  ", "$__from", "${__from}"])
def test_a_time_that_nobody_filled_in_is_the_default(text: object) -> None:
    assert (instant_ms(text, "from", NOW, 42), window_ms(text, text, NOW)) == (42, (NOW - 3_600_000, NOW))


def begins(unit: str, at: datetime) -> datetime:
    """The start of the unit, by the calendar's own fields."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    match unit:
        case "s" | "m" | "h":
            return at.replace(**{"s": {}, "m": {"second": 0}, "h": {"second": 0, "minute": 0}}[unit], microsecond=0)  # type: ignore[arg-type]
        case "d":
            return day
        case "w":
            return day - timedelta(days=day.weekday())
        case "M":
            return day.replace(day=1)
        case "Q" | "fQ":
            return day.replace(day=1, month=(day.month - 1) // 3 * 3 + 1)
        case _:
            return day.replace(day=1, month=1)


def follows(unit: str, start: datetime) -> datetime:
    """The start of the unit after this one: the first that begins after it, looking day by day."""
    if unit in "smh":
        return start + {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}[unit]
    later = start + timedelta(days=1)
    while begins(unit, later) != later:
        later += timedelta(days=1)
    return later


INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
)


def epoch_ms(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@given(INSTANTS, st.sampled_from(["s", "m", "h", "d", "w", "M", "Q", "fQ", "y", "fy"]))
def test_every_rounding_is_the_calendars(at: datetime, unit: str) -> None:
    start = begins(unit, at)
    expected = (epoch_ms(start), epoch_ms(follows(unit, start)) - 1)
    assert window_ms(f"now/{unit}", f"now/{unit}", epoch_ms(at)) == expected


@given(INSTANTS, st.integers(-11, 400))
def test_a_month_more_or_less_is_the_same_day_or_the_months_last(at: datetime, months: int) -> None:
    found = datetime.fromtimestamp(instant_ms(f"now{months:+d}M", "from", epoch_ms(at), 0) / 1000, UTC)
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    assert (found.year, found.month) == (year, month + 1)
    assert found.day == min(at.day, calendar.monthrange(year, month + 1)[1])
    assert found.time() == at.time()
