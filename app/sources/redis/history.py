"""Samples in zsets (`hist:{field}:{id}`) to one value per hash and bucket. Pure functions over columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.model import Flags, Indices, Statement, TimeRange, Times, Values
from app.sources.redis.aggregation import divide_columns
from app.sources.redis.parse import samples

OverTime = Literal["last", "rate", "increase", "max", "avg"]

_LOOKBACK_MS = 60_000


def lookback_ms(whole: TimeRange) -> int:
    """How far before the range the base sample of a counter may lie."""
    return max(whole.step_ms, _LOOKBACK_MS)


@dataclass(frozen=True, slots=True)
class SampleSeries:
    """Samples of one field: for each the row of its hash, its epoch ms and its value."""

    row: Indices
    time: Times
    value: Values


@dataclass(frozen=True, slots=True)
class Sampled:
    """One row per hash and bucket with a sample: the hash's row, the bucket, and each field's value (NaN for none)."""

    row: Indices
    time: Times
    known: dict[str, Values]
    #: per field, how many members could not be read as a sample
    bad: dict[str, int]


def sample_buckets(
    members: Mapping[str, Sequence[Sequence[bytes]]], present: Mapping[str, Values], asked: Statement, over_time: OverTime
) -> Sampled:
    """The samples (per field a list of members per hash) in the range's buckets; the present value is the newest one of the open
    bucket."""
    buckets, bad = dict[str, SampleSeries](), dict[str, int]()
    for field, lists in members.items():
        series, bad[field] = _series_of(lists)
        if asked.now_ms:
            series = _with_present(series, present[field], asked.now_ms)
        buckets[field] = _one_per_bucket(series, asked.range, over_time)
    return Sampled(*_side_by_side(buckets, asked.range), bad)


def _series_of(lists: Sequence[Sequence[bytes]]) -> tuple[SampleSeries, int]:
    time, value, bad = samples([member for members in lists for member in members])
    counts = [len(members) for members in lists]
    if bad:  # rare: count the samples of each list by itself
        counts = [len(samples(members)[0]) for members in lists]
    return SampleSeries(np.repeat(np.arange(len(lists)), counts), time, value), bad


def _with_present(series: SampleSeries, present: Values, now_ms: int) -> SampleSeries:
    """The samples with the hash's own value as the newest one; samples of a clock ahead of ours are moved back to now."""
    rows = np.flatnonzero(~np.isnan(present))
    return SampleSeries(
        np.concatenate((series.row, rows)),
        np.concatenate((np.minimum(series.time, now_ms), np.full(len(rows), now_ms))),
        np.concatenate((series.value, present[rows])),
    )


def _one_per_bucket(series: SampleSeries, whole: TimeRange, over_time: OverTime) -> SampleSeries:
    """One sample per row and bucket, the time being the bucket's start."""
    known = np.flatnonzero(~np.isnan(series.value))
    if not len(known):
        return SampleSeries(known, np.empty(0, np.int64), np.empty(0))
    order = known[np.lexsort((series.time[known], series.row[known]))]  # stable: the present value stays last
    row, time, value = series.row[order], series.time[order], series.value[order]
    bucket = whole.bucket(time)
    first = np.flatnonzero(np.append(True, (bucket[1:] != bucket[:-1]) | (row[1:] != row[:-1])))
    figure = _OVER_TIME[over_time](_Ordered(row, time, value, first))
    row, bucket = row[first], bucket[first]
    keep: Flags = (bucket >= whole.bucket_ms(whole.from_ms)) & (bucket < whole.to_ms) & ~np.isnan(figure)
    return SampleSeries(row[keep], bucket[keep], figure[keep])


@dataclass(frozen=True, slots=True)
class _Ordered:
    """Samples by row and time; bucket i begins at sample first[i]."""

    row: Indices
    time: Times
    value: Values
    first: Indices

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
    return divide_columns(ordered.sums(ordered.value), ordered.sums(np.ones(len(ordered.value))))


def _increase(ordered: _Ordered) -> Values:
    grown, steps, _ = _counter_growth(ordered)
    return np.where(steps > 0, grown, np.nan)


def _rate(ordered: _Ordered) -> Values:
    grown, _, lasted_s = _counter_growth(ordered)
    return divide_columns(grown, lasted_s)


def _counter_growth(ordered: _Ordered) -> tuple[Values, Values, Values]:
    """Per bucket: the growth from sample to sample, how many samples have one before them, the seconds between."""
    follows = np.append(False, ordered.row[1:] == ordered.row[:-1])
    change = np.append(0.0, np.diff(ordered.value))
    # A counter that falls was restarted at 0: its whole value is growth.
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


def _side_by_side(buckets: Mapping[str, SampleSeries], whole: TimeRange) -> tuple[Indices, Times, dict[str, Values]]:
    """The fields side by side: a row for each hash and bucket in which any field has a value."""
    width, begins_ms = max(len(whole), 1), whole.bucket_ms(whole.from_ms)
    codes = {field: series.row * width + (series.time - begins_ms) // whole.step_ms for field, series in buckets.items()}
    cells = np.unique(np.concatenate(list(codes.values())))
    known = {field: np.full(len(cells), np.nan) for field in buckets}
    for field, series in buckets.items():
        known[field][np.searchsorted(cells, codes[field])] = series.value
    return cells // width, begins_ms + cells % width * whole.step_ms, known
