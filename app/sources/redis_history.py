"""Samples kept in zsets, `hist:{field}:{id}`, to one value per hash and bucket: pure functions over columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.model import Flags, Places, Statement, TimeRange, Times, Values
from app.sources.redis_fold import divided
from app.sources.redis_parse import samples

OverTime = Literal["last", "rate", "increase", "max", "avg"]

_LOOKBACK_MS = 60_000


def lookback_ms(whole: TimeRange) -> int:
    """How far before the range a counter's base sample is looked for."""
    return max(whole.step_ms, _LOOKBACK_MS)


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one field: the row of the hash that each belongs to, its epoch ms, its value."""

    row: Places
    time: Times
    value: Values


@dataclass(frozen=True, slots=True)
class Sampled:
    """One row per hash and bucket that has a sample: the hash's row, the bucket, each field's value (NaN where it has none)."""

    row: Places
    time: Times
    known: dict[str, Values]
    #: per field, how many members are no sample
    bad: dict[str, int]


def sampled(
    members: Mapping[str, Sequence[Sequence[bytes]]], present: Mapping[str, Values], asked: Statement, over_time: OverTime
) -> Sampled:
    """The samples (per field, a list of members per hash) in the range's buckets; the present is the newest of the open one."""
    buckets, bad = dict[str, Series](), dict[str, int]()
    for field, lists in members.items():
        series, bad[field] = _series(lists)
        if asked.now_ms:
            series = _with_present(series, present[field], asked.now_ms)
        buckets[field] = _bucketed(series, asked.range, over_time)
    return Sampled(*_joined(buckets, asked.range), bad)


def _series(lists: Sequence[Sequence[bytes]]) -> tuple[Series, int]:
    time, value, bad = samples([member for members in lists for member in members])
    counts = [len(members) for members in lists]
    if bad:  # rare: find out whose they are one list at a time
        counts = [len(samples(members)[0]) for members in lists]
    return Series(np.repeat(np.arange(len(lists)), counts), time, value), bad


def _with_present(series: Series, present: Values, now_ms: int) -> Series:
    """The hash's own value after all samples; a store whose clock runs ahead of ours does not come after it."""
    rows = np.flatnonzero(~np.isnan(present))
    return Series(
        np.concatenate((series.row, rows)),
        np.concatenate((np.minimum(series.time, now_ms), np.full(len(rows), now_ms))),
        np.concatenate((series.value, present[rows])),
    )


def _bucketed(series: Series, whole: TimeRange, over_time: OverTime) -> Series:
    """One sample per row and bucket, the time being the bucket's start."""
    known = np.flatnonzero(~np.isnan(series.value))
    if not len(known):
        return Series(known, np.empty(0, np.int64), np.empty(0))
    order = known[np.lexsort((series.time[known], series.row[known]))]  # stable: the present stays last
    row, time, value = series.row[order], series.time[order], series.value[order]
    bucket = time // whole.step_ms * whole.step_ms
    first = np.flatnonzero(np.append(True, (bucket[1:] != bucket[:-1]) | (row[1:] != row[:-1])))
    figure = _OVER_TIME[over_time](_Ordered(row, time, value, first))
    row, bucket = row[first], bucket[first]
    keep: Flags = (bucket >= whole.from_ms) & (bucket < whole.to_ms) & ~np.isnan(figure)
    return Series(row[keep], bucket[keep], figure[keep])


@dataclass(frozen=True, slots=True)
class _Ordered:
    """Samples by row and time; bucket i begins at sample first[i]."""

    row: Places
    time: Times
    value: Values
    first: Places

    def sums(self, column: Values) -> Values:
        """The sum of each bucket's samples."""
        total: Values = np.add.reduceat(column, self.first)
        return total


def _last(ordered: _Ordered) -> Values:
    newest: Values = ordered.value[np.append(ordered.first[1:], len(ordered.value)) - 1]
    return newest


def _max(ordered: _Ordered) -> Values:
    most: Values = np.maximum.reduceat(ordered.value, ordered.first)
    return most


def _avg(ordered: _Ordered) -> Values:
    return divided(ordered.sums(ordered.value), ordered.sums(np.ones(len(ordered.value))))


def _increase(ordered: _Ordered) -> Values:
    grown, steps, _ = _growth(ordered)
    return np.where(steps > 0, grown, np.nan)


def _rate(ordered: _Ordered) -> Values:
    grown, _, lasted_s = _growth(ordered)
    return divided(grown, lasted_s)


def _growth(ordered: _Ordered) -> tuple[Values, Values, Values]:
    """Per bucket: the growth from sample to sample, how many samples have one before them, the seconds between."""
    follows = np.append(False, ordered.row[1:] == ordered.row[:-1])
    change = np.append(0.0, np.diff(ordered.value))
    # A counter that falls was restarted: all it shows has come since.
    growth = np.where(follows, np.where(change < 0, ordered.value, change), 0.0)
    lasted = np.where(follows, np.append(0, np.diff(ordered.time)) / 1000, 0.0)
    return ordered.sums(growth), ordered.sums(follows.astype(np.float64)), ordered.sums(lasted)


_OVER_TIME: Mapping[OverTime, Callable[[_Ordered], Values]] = {
    "last": _last,
    "rate": _rate,
    "increase": _increase,
    "max": _max,
    "avg": _avg,
}


def _joined(buckets: Mapping[str, Series], whole: TimeRange) -> tuple[Places, Times, dict[str, Values]]:
    """The fields side by side: a row for each hash and bucket that any of them has."""
    width = max(len(whole), 1)
    codes = {field: series.row * width + (series.time - whole.from_ms) // whole.step_ms for field, series in buckets.items()}
    cells = np.unique(np.concatenate(list(codes.values())))
    known = {field: np.full(len(cells), np.nan) for field in buckets}
    for field, series in buckets.items():
        known[field][np.searchsorted(cells, codes[field])] = series.value
    return cells // width, whole.from_ms + cells % width * whole.step_ms, known
