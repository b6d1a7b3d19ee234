"""Parses steps, numbers, flags, lists of names and instants: one grammar for every contract. Errors say what is allowed.

An instant is an epoch, ISO 8601, or relative as in Grafana (`now-1M/M`), rounded as Grafana does, in UTC.
Filters are in `filters`.
"""

from __future__ import annotations

import json
import math
import re
from calendar import monthrange
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from app.clock import SECONDS_BELOW
from app.errors import BadQuery, LimitExceeded

HOUR_MS = 3_600_000

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": HOUR_MS, "d": 24 * HOUR_MS, "w": 7 * 24 * HOUR_MS}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(ms|[smhdw])?")
_ESCAPED = re.compile(r"\\([^A-Za-z0-9\s])")
_SEPARATOR = re.compile(r",|(?<!\\)\|")
#: The step that makes the window itself the one bucket.
RANGE = "range"
#: The end of the year 9999, epoch ms.
MOST_MS = 253_402_300_799_000
#: No number, flag, duration or instant is longer.
_LONGEST = 60

_MONTHS = {"M": 1, "Q": 3, "y": 12}
#: 1 January 1970 was a Thursday: the first Monday is this far from the epoch.
_MONDAY_MS = 4 * _UNIT_MS["d"]
_NOW = re.compile(r"now((?:[+-]\d{0,9}(?:ms|f?[Qy]|[smhdwM])|/1?(?:f[Qy]|[smhdwMQy]))*)")
_TERM = re.compile(r"([+/-])(\d*)f?(ms|[smhdwMQy])")
_AROUND = re.compile(r"\s*([+/-])\s*")
#: A blank that was a `+` before URL decoding: in front of the count of a relative time, or of the zone of an ISO time.
_LOST_PLUS = re.compile(r"(?<=[nowsmhdwMQy])\s+(?=\d)")
_LOST_ZONE = re.compile(r"(?<=\d) (?=\d\d(?::?\d\d)?$)")
FORMS = (
    "epoch ms or s, ISO 8601 (2026-01-31T12:00:00Z), now, now-6h, now-1M/M, now/w; units ms s m h d w M Q y, fQ and fy after /"
)


def unset(text: object) -> bool:
    """Whether a value means "not given": null, a blank text, or a Grafana variable that was not filled in.

    This holds for times, steps and names. In a filter an unfilled variable is an error (`filters`).
    """
    return text is None or (isinstance(text, str) and (not text.strip() or text.strip().startswith("$")))


def shown_value(value: object) -> str:
    """A value as an error message shows it, cut short."""
    if isinstance(value, str):
        return repr(value[:_LONGEST])
    return repr(str(value)[:_LONGEST]) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


def _short_text(value: object) -> str:
    """The text of a number, flag, duration or instant; empty if the value cannot be one."""
    text = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    return text if len(text) <= _LONGEST else ""


def step_ms(value: object, field: str = "step") -> int | None:
    """A step in ms, at least 1; None for auto and for `range`. A bare number is ms, as Grafana's `$__interval_ms`. Raises
    BadQuery."""
    if unset(value) or value in ("auto", RANGE):
        return None
    # The plan raises a step below one second to one second, with a notice.
    return _duration_ms(value, field, ", auto, or range (one bucket)")


def duration_ms(value: object, field: str) -> int | None:
    """A length of time in ms, at least 1; None if it is not given. A bare number is ms. Raises BadQuery naming `field`."""
    return None if unset(value) else _duration_ms(value, field)


def _duration_ms(value: object, field: str, more: str = "") -> int:
    found = _DURATION.fullmatch(_short_text(value))
    if found is None:
        raise BadQuery(f"{field}: {shown_value(value)} is not a duration; allowed: 30s, 5m, 1h, 1d, 1w, 60000 (ms){more}")
    exact_ms = float(found[1]) * _UNIT_MS[found[2] or "ms"]
    if not exact_ms:
        raise BadQuery(f"{field}: {shown_value(value)} is too short; allowed: 1s or more (a number without a unit is in ms)")
    return max(round(exact_ms), 1)


def whole_number(value: object, field: str, least: int, most: int, default: int) -> int:
    """A whole number within bounds. Raises BadQuery naming `field`."""
    found = default if unset(value) else _whole_or_none(value, exact=True)
    if found is None or not least <= found <= most:
        raise BadQuery(f"{field}: {shown_value(value)} is not allowed; allowed: a whole number from {least} to {most}")
    return found


def clamped_number(value: object, field: str, least: int, most: int, default: int) -> int:
    """A whole number, moved to the nearest bound if it is out of bounds. Raises BadQuery for anything else."""
    found = default if unset(value) else _whole_or_none(value)
    if found is None:
        raise BadQuery(f"{field}: {shown_value(value)} is not allowed; allowed: a whole number")
    return min(max(found, least), most)


def _whole_or_none(value: object, exact: bool = False) -> int | None:
    try:
        found = float(_short_text(value))
        return None if exact and not found.is_integer() else int(found)
    except (ValueError, OverflowError):
        return None


def flag(value: object, field: str, default: bool = False) -> bool:
    """A yes or no. Raises BadQuery naming `field`."""
    if unset(value):
        return default
    text = "true" if value is True else "false" if value is False else _short_text(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise BadQuery(f"{field}: {shown_value(value)} is not allowed; allowed: true or false")


def choice(value: object, field: str, allowed: Sequence[str], default: str) -> str:
    """One of a few words. Raises BadQuery naming `field`."""
    if unset(value):
        return default
    if not isinstance(value, str) or value not in allowed:
        raise BadQuery(f"{field}: {shown_value(value)} is not allowed; allowed: {', '.join(allowed)}")
    return value


def words(values: Iterable[object], field: str = "names", most: int = 1000) -> list[str]:
    """The names in a list, in order, each once, for every format of a Grafana variable. Names are stripped.

    `a,b` (csv), `{a,b}` (glob), `a|b` and `(a|b)` (pipe, regex; escapes undone), `["a","b"]` (json), or several values.
    Raises LimitExceeded for more than `most` before it parses them.
    """
    given = [str(value) for value in values if not unset(value) and isinstance(value, str | int | float)]
    count = sum(1 + value.count(",") + value.count("|") for value in given)
    if count > most:
        raise LimitExceeded(f"{field}: {count} in one request; at most {most} are allowed")
    found = (word.strip() for value in given for word in list_items(value.strip()))
    return [word for word in dict.fromkeys(found) if word]


def list_items(text: str) -> list[str]:
    """The items of a list, unstripped. A text that is not a list is its only item."""
    whole = json_list(text)
    if whole is not None:
        return [item for item in whole if isinstance(item, str)]
    if (text[:1], text[-1:]) in (("{", "}"), ("(", ")")):
        text = text[1:-1]
    return [_ESCAPED.sub(r"\1", part) for part in _SEPARATOR.split(text)]


def json_list(text: str) -> list[Any] | None:
    """The items of a JSON list, with numbers and booleans as written; None if the text is not a JSON list."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    items = found if isinstance(found, list) else []
    return [str(item).lower() if isinstance(item, bool) else item for item in items]


def window_ms(since: object, until: object, now_ms: int, prefix: str = "") -> tuple[int, int]:
    """The requested window, epoch ms; by default the last hour. Raises BadQuery naming `from` or `to` (after the prefix)."""
    to_ms = instant_ms(until, f"{prefix}to", now_ms, now_ms, ends=True)
    return instant_ms(since, f"{prefix}from", now_ms, to_ms - HOUR_MS), to_ms


def instant_ms(value: object, field: str, now_ms: int, default_ms: int, ends: bool = False) -> int:
    """An instant as epoch ms. If it `ends` a window, a unit is rounded up to its last ms. Raises BadQuery naming `field`."""
    if unset(value):
        return default_ms
    text = _short_text(value)
    found = _found_ms(text, now_ms, ends) if text else None
    if found is None or not 0 <= found <= MOST_MS:
        raise BadQuery(f"{field}: {shown_value(value)} is not a time; allowed: {FORMS}")
    return found


def _found_ms(text: str, now_ms: int, ends: bool) -> int | None:
    if text[4:5] == "-" and (plain := _iso_ms(text)) is not None and 0 <= plain <= MOST_MS:
        return plain  # the form that Grafana sends, so it is tried first
    if text.startswith("now"):
        return _relative_ms(_LOST_PLUS.sub("+", _AROUND.sub(r"\1", text)), now_ms, ends)
    found = _epoch_ms(text)
    return _iso_ms(text) if found is None else found


def _relative_ms(text: str, now_ms: int, ends: bool) -> int | None:
    """`now` with its terms (add, subtract, round), applied from left to right."""
    found = _NOW.fullmatch(text)
    at_ms: int | None = now_ms
    for sign, count, unit in _TERM.findall(found[1]) if found else ():
        if at_ms is None or not 0 <= at_ms <= MOST_MS:
            return None
        at_ms = _rounded_ms(at_ms, unit, ends) if sign == "/" else _shifted_ms(at_ms, unit, int(f"{sign}{count or 1}"))
    return at_ms if found else None


def _shifted_ms(at_ms: int, unit: str, count: int) -> int | None:
    if unit in _UNIT_MS:
        return at_ms + count * _UNIT_MS[unit]
    day = datetime.fromtimestamp(at_ms // 1000, UTC)
    year, month = divmod(day.year * 12 + day.month - 1 + count * _MONTHS[unit], 12)
    if not 1970 <= year <= 9999:
        return None
    # 31 January and a month is the last day of February.
    moved = day.replace(year=year, month=month + 1, day=min(day.day, monthrange(year, month + 1)[1]))
    return round(moved.timestamp()) * 1000 + at_ms % 1000


def _rounded_ms(at_ms: int, unit: str, ends: bool) -> int | None:
    start_ms = _start_ms(at_ms, unit)
    if not ends:
        return start_ms
    after_ms = _shifted_ms(start_ms, unit, 1)
    return None if after_ms is None else after_ms - 1


def _start_ms(at_ms: int, unit: str) -> int:
    """The start of the unit that holds the instant. Weeks begin on Monday, fiscal years in January (Grafana's defaults)."""
    if unit in _UNIT_MS:
        origin_ms = _MONDAY_MS if unit == "w" else 0
        return (at_ms - origin_ms) // _UNIT_MS[unit] * _UNIT_MS[unit] + origin_ms
    day = datetime.fromtimestamp(at_ms // 1000, UTC)
    months = _MONTHS[unit]
    return round(datetime(day.year, (day.month - 1) // months * months + 1, 1, tzinfo=UTC).timestamp()) * 1000


def _epoch_ms(text: str) -> int | None:
    try:
        found = float(text)
    except ValueError:
        return None
    if not math.isfinite(found):
        return None
    return round(found * 1000) if abs(found) < SECONDS_BELOW else round(found)


@lru_cache(4096)
def _iso_ms(text: str) -> int | None:
    try:
        found = datetime.fromisoformat(_LOST_ZONE.sub("+", text) if "T" in text else text)
        # A zone can move the very first day before year 1.
        return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
