"""Samples in zsets (`hist:{field}:{id}`) to one value per hash and bucket. Pure functions over columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

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

    def slice_samples(self, samples: slice) -> SampleSeries:
        """Only these samples."""
        return SampleSeries(self.row[samples], self.time[samples], self.value[samples])


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


class SampleBuckets:
    """The samples of one field in the range's buckets. They come in pieces, and what is kept of a piece are its buckets.

    `present` has the value of each row's hash, the newest sample of the open bucket; it is left out where only closed buckets are
    asked for.
    """

    def __init__(self, asked: Statement, over_time: OverTime, present: Values) -> None:
        self._asked = asked
        self._over_time = over_time
        self._present = present
        self._waiting = _NO_SAMPLES
        self._next_row = 0
        self._buckets: list[SampleSeries] = []
        #: how many values of buckets there are so far
        self.size = 0

    def add_piece(self, series: SampleSeries) -> None:
        """One piece, in the order of rows. Its last row may go on in the next piece."""
        if not len(series.row):
            return
        series = join_samples((self._waiting, series)) if len(self._waiting.row) else series
        last = int(series.row[-1])
        whole = int(np.searchsorted(series.row, last))
        self._waiting = series.slice_samples(slice(whole, None))
        self._put_into_buckets(series.slice_samples(slice(whole)), last)

    def finish_buckets(self) -> SampleSeries:
        """Everything; nothing can be added afterwards."""
        self._put_into_buckets(self._waiting, len(self._present))
        self._waiting = _NO_SAMPLES
        return join_samples(self._buckets)

    def _put_into_buckets(self, series: SampleSeries, end: int) -> None:
        """The rows up to `end`, all of whose samples are here."""
        if self._asked.now_ms:
            present = self._present[self._next_row : end]
            rows = np.flatnonzero(~np.isnan(present)) + self._next_row
            series = _with_present(series, rows, self._present[rows], self._asked.now_ms)
        self._next_row = max(end, self._next_row)
        found = _one_per_bucket(series, self._asked.range, self._over_time)
        self._buckets.append(found)
        self.size += len(found.row)


def _with_present(series: SampleSeries, rows: Indices, present: Values, now_ms: int) -> SampleSeries:
    """The samples with these rows' present values as the newest ones; samples of a clock ahead of ours are moved back to now."""
    at = np.searchsorted(series.row, rows, side="right") + np.arange(len(rows))
    before = np.ones(len(series.row) + len(rows), dtype=np.bool_)
    before[at] = False
    columns = ((series.row, rows), (np.minimum(series.time, now_ms), now_ms), (series.value, present))
    return SampleSeries(*(_interleave(column, np.flatnonzero(before), added, at) for column, added in columns))


def _interleave(column: npt.NDArray[Any], places: Indices, added: npt.NDArray[Any] | int, at: Indices) -> npt.NDArray[Any]:
    """A column with its values at these places and the added ones at others. (`np.insert` takes three times as long.)"""
    found = np.empty(len(places) + len(at), column.dtype)
    found[places], found[at] = column, added
    return found


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


def place_side_by_side(buckets: Mapping[str, SampleSeries], whole: TimeRange) -> Sampled:
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
