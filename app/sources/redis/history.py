"""Samples in zsets (`hist:{field}:{id}`) to one value per hash and bucket. Pure functions over columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.model import Flags, Indices, Statement, TimeRange, Times, Values
from app.sources.redis.aggregation import divide_columns, is_ordered, start_rows
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


def read_samples(rows: Sequence[int], lists: Sequence[Sequence[bytes]]) -> tuple[SampleSeries, int]:
    """The members of samples of each row, a list a row, and how many of them are no sample."""
    time, value, bad = samples(lists)
    counts = [len(members) for members in lists]
    if bad:  # rare: count the samples of each list by itself
        counts = [len(samples([members])[0]) for members in lists]
    return SampleSeries(np.repeat(np.array(rows, dtype=np.intp), counts), time, value), bad


def join_samples(pieces: Sequence[SampleSeries]) -> SampleSeries:
    """Pieces in the order of their rows as one."""
    columns = zip(*((piece.row, piece.time, piece.value) for piece in (_NO_SAMPLES, *pieces)), strict=True)
    return SampleSeries(*(np.concatenate(column) for column in columns))


_NO_SAMPLES = SampleSeries(np.empty(0, np.intp), np.empty(0, np.int64), np.empty(0))


def sample_buckets(
    series: Mapping[str, SampleSeries], present: Mapping[str, Values], asked: Statement, over_time: OverTime
) -> Sampled:
    """The samples of each field in the range's buckets; the present value is the newest one of the open bucket. Samples come in
    the order of their rows."""
    buckets = dict[str, SampleSeries]()
    for field, found in series.items():
        sampled = _with_present(found, present[field], asked.now_ms) if asked.now_ms else found
        buckets[field] = _one_per_bucket(sampled, asked.range, over_time)
    return _side_by_side(buckets, asked.range)


def _with_present(series: SampleSeries, present: Values, now_ms: int) -> SampleSeries:
    """The samples with the hash's own value as the newest one; samples of a clock ahead of ours are moved back to now."""
    rows = np.flatnonzero(~np.isnan(present))
    after = np.searchsorted(series.row, rows, side="right")
    return SampleSeries(
        np.insert(series.row, after, rows),
        np.insert(np.minimum(series.time, now_ms), after, now_ms),
        np.insert(series.value, after, present[rows]),
    )


def _one_per_bucket(series: SampleSeries, whole: TimeRange, over_time: OverTime) -> SampleSeries:
    """One sample per row and bucket, the time being the bucket's start."""
    series = _in_order(series)
    if not len(series.time):
        return series
    bucket = whole.bucket(series.time)
    first = start_rows(series.row, bucket)
    figure = _OVER_TIME[over_time](_Ordered(series.row, series.time, series.value, first))
    row, bucket = series.row[first], bucket[first]
    keep: Flags = (bucket >= whole.bucket_ms(whole.from_ms)) & (bucket < whole.to_ms) & ~np.isnan(figure)
    return SampleSeries(row, bucket, figure) if keep.all() else SampleSeries(row[keep], bucket[keep], figure[keep])


def _in_order(series: SampleSeries) -> SampleSeries:
    """The samples that are not null, in the order of row and time. A zset's samples come in that order."""
    null = np.isnan(series.value)
    if null.any():
        series = SampleSeries(series.row[~null], series.time[~null], series.value[~null])
    if is_ordered(series.row, series.time):
        return series
    order = np.lexsort((series.time, series.row))  # stable: the present value stays last
    return SampleSeries(series.row[order], series.time[order], series.value[order])


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


def _side_by_side(buckets: Mapping[str, SampleSeries], whole: TimeRange) -> Sampled:
    """The fields side by side: a row for each hash and bucket in which any field has a value."""
    fields = list(buckets.values())
    if all(np.array_equal(one.row, fields[0].row) and np.array_equal(one.time, fields[0].time) for one in fields[1:]):
        return Sampled(fields[0].row, fields[0].time, {field: series.value for field, series in buckets.items()})
    width, begins_ms = max(len(whole), 1), whole.bucket_ms(whole.from_ms)
    codes = {field: series.row * width + (series.time - begins_ms) // whole.step_ms for field, series in buckets.items()}
    cells = np.unique(np.concatenate(list(codes.values())))
    known = {field: np.full(len(cells), np.nan) for field in buckets}
    for field, series in buckets.items():
        known[field][np.searchsorted(cells, codes[field])] = series.value
    return Sampled(cells // width, begins_ms + cells % width * whole.step_ms, known)
