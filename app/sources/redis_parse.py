"""Redis texts to numbers and instants: whole columns at a time, null for what is empty, and a count of what does not parse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from app.model import Times, Values

#: A field as Redis gives it; None where the hash does not have it.
Cell = bytes | None

#: Epoch numbers below this are seconds (up to the year 5138), others milliseconds (from 1973 on).
_SECONDS_BELOW = 1e11


def numbers(cells: Sequence[Cell]) -> tuple[Values, int]:
    """The cells as numbers, NaN for null, and how many of them are neither a finite number nor null."""
    try:
        found = np.array([float(cell) if cell else math.nan for cell in cells])
    except ValueError:
        return _each(cells, float)
    bad = np.isinf(found)
    found[bad] = math.nan
    return found, int(bad.sum())


def instants(cells: Sequence[Cell]) -> tuple[Values, int]:
    """The cells as epoch ms, NaN for null, and how many are no time. ISO-8601 (no zone means UTC), epoch s and ms are read."""
    return _each(cells, _instant)


def _each(cells: Sequence[Cell], parse: Callable[[bytes], float]) -> tuple[Values, int]:
    found, bad = np.full(len(cells), math.nan), 0
    for place, cell in enumerate(cells):
        if not cell:
            continue
        try:
            found[place] = parse(cell)
        except (ValueError, OverflowError):
            bad += 1
    unbounded = np.isinf(found)
    found[unbounded] = math.nan
    return found, bad + int(unbounded.sum())


def _instant(cell: bytes) -> float:
    try:
        epoch = float(cell)
    except ValueError:
        moment = datetime.fromisoformat(cell.decode().strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
    return epoch * 1000 if abs(epoch) < _SECONDS_BELOW else epoch


def samples(members: Sequence[bytes]) -> tuple[Times, Values, int]:
    """Members `ms:value` as times, values (NaN for null) and how many are no sample; those are left out."""
    try:
        flat = np.array(list(map(float, b":".join(members).split(b":")))) if members else np.empty(0)
        if len(flat) == 2 * len(members) and np.isfinite(flat).all():
            return flat[::2].astype(np.int64), flat[1::2], 0
    except ValueError:
        pass
    return _samples_one_by_one(members)


def _samples_one_by_one(members: Sequence[bytes]) -> tuple[Times, Values, int]:
    parts = [member.rpartition(b":") for member in members]
    times, _ = _each([time for time, _, _ in parts], float)
    timed = np.flatnonzero(~np.isnan(times))
    values, bad = numbers([parts[place][2] for place in timed])
    return times[timed].astype(np.int64), values, bad + len(parts) - len(timed)


def text(cell: Cell) -> str:
    """A cell as a label's value; null is the empty text."""
    return cell.decode("utf-8", "replace") if cell else ""


def pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    """A flat reply of names and values as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
