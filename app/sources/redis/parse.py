"""Redis texts to numbers and instants, a whole column at a time: null for an empty text, and a count of what does not parse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson

from app.clock import SECONDS_BELOW
from app.model import Times, Values

#: A field as Redis gives it; None where the hash does not have it.
Cell = bytes | None

#: the end of the year 9999: no epoch in milliseconds is above it
_MILLISECONDS_BELOW = 253_402_300_800_000
_NO_VALUES: Values = np.empty(0, dtype=np.float64)
#: a backslash that would look like the escape of a byte that is not UTF-8
_ESCAPE_LIKE = re.compile(rb"\\(?=x[0-9a-f]{2})")


def numbers(cells: Sequence[Cell]) -> tuple[Values, int]:
    """The cells as numbers, NaN for null, and how many of them are neither a finite number nor null."""
    if b"_" in b"".join(filter(None, cells)):
        return _parse_each(cells, _parse_number)
    try:
        found = np.array([float(cell) if cell else math.nan for cell in cells])
    except ValueError:
        return _parse_each(cells, _parse_number)
    none = ~np.isfinite(found)
    found[none] = math.nan
    return found, int(none.sum()) - cells.count(None) - cells.count(b"")


def instants(cells: Sequence[Cell]) -> tuple[Values, int]:
    """The cells as epoch ms, NaN for null, and how many are no time. ISO-8601 (no zone means UTC), epoch s and ms are read."""
    return _parse_each(cells, _parse_instant)


def _parse_each(cells: Sequence[Cell], parse: Callable[[bytes], float]) -> tuple[Values, int]:
    found, bad = np.full(len(cells), math.nan), 0
    for place, cell in enumerate(cells):
        if not cell:
            continue
        try:
            value = parse(cell)
        except (ValueError, OverflowError):
            value = math.nan
        if math.isfinite(value):
            found[place] = value
        else:
            bad += 1
    return found, bad


def _parse_number(cell: bytes) -> float:
    """As `float`, but without Python's own form 1_000."""
    return math.nan if b"_" in cell else float(cell)


def _parse_instant(cell: bytes) -> float:
    if b":" in cell:  # no number has one
        return _parse_date(cell)
    try:
        epoch = _parse_number(cell)
    except ValueError:
        return _parse_date(cell)
    at_ms = epoch * 1000 if abs(epoch) < SECONDS_BELOW else epoch
    # Micro- or nanoseconds: taken for milliseconds they would lie in a far future.
    return at_ms if abs(at_ms) < _MILLISECONDS_BELOW else math.nan


def _parse_date(cell: bytes) -> float:
    moment = datetime.fromisoformat(cell.decode().strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def samples(lists: Sequence[Sequence[bytes]]) -> tuple[Times, Values, int]:
    """Members `ms:value` of all lists as times and values (NaN for null), and how many are no sample and are left out."""
    count = sum(map(len, lists))
    flat = _plain_numbers(b",-".join(map(b",-".join, filter(None, lists))), count)
    times = -flat[::2]
    # Out of step, or a time far from now: some member is not what it should be.
    if len(flat) == 2 * count and (times >= SECONDS_BELOW).all() and np.isfinite(flat).all():
        return times.astype(np.int64), flat[1::2], 0
    return _samples_one_by_one([member for members in lists for member in members])


def _plain_numbers(joined: bytes, count: int) -> Values:
    """All times, negated, and values of so many members that are written as JSON writes numbers; else nothing. The members are
    joined by `,-`: a time is told from a value by its sign.

    orjson reads a number in a third of the time that `float` takes, and as exactly.
    """
    numbers = joined.replace(b":", b".0,")
    # One colon a member, each of them two bytes longer now. A text, true and false are no numbers.
    if len(numbers) - len(joined) != 2 * count or b'"' in joined or b"u" in joined or b"a" in joined:
        return _NO_VALUES
    try:
        flat = orjson.loads(b"[-%b]" % numbers) if count else []
        return np.fromiter(flat, np.float64, len(flat))
    except (ValueError, TypeError):
        return _NO_VALUES


def _samples_one_by_one(members: Sequence[bytes]) -> tuple[Times, Values, int]:
    parts = [member.rpartition(b":") for member in members]
    times, _ = _parse_each([time for time, _, _ in parts], _parse_number)
    timed = np.flatnonzero(~np.isnan(times))
    values, bad = numbers([parts[place][2] for place in timed])
    return times[timed].astype(np.int64), values, bad + len(parts) - len(timed)


def text(cell: Cell) -> str:
    """A cell as a label's value; null is the empty text.

    Bytes that are not UTF-8 become `\\xNN`, and a backslash that looks like the start of such an escape becomes `\\x5c`. So two
    different cells never have the same text, every text is valid, and it can be used as a filter.
    """
    if not cell:
        return ""
    if b"\\x" in cell:
        cell = _ESCAPE_LIKE.sub(rb"\\x5c", cell)
    return cell.decode("utf-8", "backslashreplace")


class Texts:
    """Columns of cells as labels' values. Each distinct cell is read once."""

    def __init__(self) -> None:
        self._known: dict[Cell, str] = {}

    def read_column(self, cells: Sequence[Cell]) -> list[str]:
        """One column."""
        known = self._known
        for cell in set(cells) - known.keys():
            known[cell] = text(cell)
        return [known[cell] for cell in cells]


def pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    """A flat reply of names and values as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
