"""Results as one table of rows, ordered by time, metric, labels; and the position at which a page of it begins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np

from app.model import Indices, Labels, Result, Times, Values
from app.responses.column_names import column_name
from app.responses.marks import MARK_COLUMNS, Mark, empty_mark, newest_marks
from app.responses.series import EVENT_COLUMNS, event_rows

#: Rows that are encoded in one step: about 2 ms.
_STRETCH = 5000


@dataclass(frozen=True, slots=True)
class Coded:
    """A column with few distinct cells: cell i is `known[codes[i]]`. Columns with the same codes share the array."""

    codes: Indices
    known: Sequence[Any]

    def __len__(self) -> int:
        return len(self.codes)

    def cells(self) -> list[Any]:
        """The cells themselves."""
        return [self.known[code] for code in self.codes.tolist()]


Column = Times | Values | Coded


class Run(NamedTuple):
    """A series: its result and the index of that result, its labels, times and values, and the key that it was ordered by."""

    place: int
    result: Result
    labels: Labels
    times: Times
    values: Values
    key: float = 0.0


class SeriesKey(NamedTuple):
    """The place of a series among all: its result's index, the key that it was ordered by (0 without an order), its labels."""

    place: int
    key: float
    labels: Labels


class Position(NamedTuple):
    """The position of a row, which stays the same when other rows come and go: its instant and its series (see SeriesKey).

    If rows belong to no series, `rank` is the number of rows of that instant up to this one.
    """

    time_ms: int
    rank: int
    labels: Labels = ()
    key: float = 0.0


#: before every row
BEGINNING = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length by name; the first one is `time`, ascending unless the rows are `by_series`.

    `instants` names the columns of epoch ms. `owner[i]` is the index in `series` of the series of row i (None if rows belong to
    no series).
    """

    columns: tuple[tuple[str, Column], ...]
    instants: tuple[str, ...] = ("time",)
    owner: Indices | None = None
    series: tuple[SeriesKey, ...] = ()
    #: one row for each series, in the order of the series whatever their times are
    by_series: bool = False

    def __len__(self) -> int:
        return len(self.columns[0][1])

    def page(self, first: int, count: int) -> Table:
        """Some of the rows."""
        rows = slice(first, first + count)
        codes = {id(cells.codes): cells.codes[rows] for _, cells in self.columns if isinstance(cells, Coded)}
        cut = tuple(
            (name, Coded(codes[id(cells.codes)], cells.known) if isinstance(cells, Coded) else cells[rows])
            for name, cells in self.columns
        )
        return Table(cut, self.instants)

    def stretches(self) -> Iterator[Table]:
        """The rows, some at a time."""
        for first in range(0, len(self), _STRETCH):
            yield self.page(first, _STRETCH)

    def position(self, row: int) -> Position:
        """The position of a row."""
        time_ms = int(self._times[row])
        if self.owner is None:
            return Position(time_ms, row + 1 - int(np.searchsorted(self._times, time_ms)))
        place, key, labels = self.series[self.owner[row]]
        return Position(time_ms, place, labels, key)

    def row_after(self, given: Position) -> int:
        """The first row behind that position, whether or not the row at that position still exists."""
        if self.by_series:
            return bisect_right(self.series, SeriesKey(given.rank, given.key, given.labels))
        begin, end = (int(np.searchsorted(self._times, given.time_ms, side)) for side in ("left", "right"))
        if self.owner is None:
            return min(begin + given.rank, end)
        before = bisect_right(self.series, SeriesKey(given.rank, given.key, given.labels))
        return begin + int(np.count_nonzero(self.owner[begin:end] < before))

    @property
    def _times(self) -> Times:
        return cast("Times", self.columns[0][1])


def long_table(results: Sequence[Result], by: Sequence[str], marks: bool = False) -> Table:
    """time, metric, the labels, value: a row for each point, by time; the newest points of ranked series in the order of the
    series. With `marks` also status, age_s and reason; then a result without points (an error, or nothing in that window) has a
    row of nulls at the end of its window."""
    runs = [run for place, result in enumerate(results) for run in (_runs_or_gap if marks else _runs_of)(place, result)]
    time = np.concatenate([run.times for run in runs]) if runs else np.empty(0, np.int64)
    value = np.concatenate([run.values for run in runs]) if runs else np.empty(0)
    by_series = all(run.result.query.instant and run.result.query.ranking.order is not None for run in runs)
    order, owner = _order_by_series(len(time)) if by_series else _order_by_time(time, [len(run.times) for run in runs])
    labels = [dict(run.labels) for run in runs]
    columns: list[tuple[str, Column]] = [("time", time[order])]
    columns.append(("metric", Coded(owner, [run.result.query.metric for run in runs])))
    columns += [(label, Coded(owner, [found.get(label) for found in labels])) for label in by]
    columns.append(("value", value[order]))
    columns += _mark_columns(runs, owner) if marks else []
    return Table(tuple(columns), owner=owner, series=tuple(map(_series_key, runs)), by_series=by_series)


def _series_key(run: Run) -> SeriesKey:
    return SeriesKey(run.place, run.key, run.labels)


def _order_by_series(rows: int) -> tuple[Indices, Indices]:
    """Each series has one row."""
    return np.arange(rows), np.arange(rows)


def _runs_of(place: int, result: Result) -> list[Run]:
    if result.error is not None:
        return []
    keys = result.ranked.keys.tolist() or [0.0] * len(result.frame.series)
    return [Run(place, result, *run, key) for run, key in zip(result.frame.runs(), keys, strict=True)]


def _runs_or_gap(place: int, result: Result) -> list[Run]:
    nothing = Run(place, result, (), np.array([result.query.to_ms]), np.array([np.nan]))
    return _runs_of(place, result) or [nothing]


def _order_by_time(time: Times, lengths: Sequence[int]) -> tuple[Indices, Indices]:
    """The row indices in order of time, and the run of each. Runs are already ordered by metric and labels."""
    if lengths and len(set(lengths)) == 1:
        grid = time.reshape(len(lengths), -1)
        if (grid == grid[0]).all():
            order = np.arange(len(time)).reshape(grid.shape).T.ravel()
            return order, np.tile(np.arange(len(lengths)), grid.shape[1])
    order = np.argsort(time, kind="stable")
    return order, np.repeat(np.arange(len(lengths)), lengths)[order]


def _mark_columns(runs: Sequence[Run], owner: Indices) -> list[tuple[str, Column]]:
    """For clients that see only rows: the status, age and reason of each series."""
    newest = {run.place: newest_marks(run.result) for run in {run.place: run for run in runs}.values()}
    marks = [newest[run.place].get(run.labels) or empty_mark(run.result) for run in runs]
    return mark_columns(marks, owner)


def mark_columns(marks: Sequence[Mark], owner: Indices) -> list[tuple[str, Column]]:
    """The columns of marks, where row i has the mark at index owner[i]."""
    ages_s = np.array([np.nan if mark.age_s is None else mark.age_s for mark in marks])
    columns = (Coded(owner, [mark.status for mark in marks]), ages_s[owner], Coded(owner, [mark.reason for mark in marks]))
    return list(zip(MARK_COLUMNS, columns, strict=True))


def wide_table(results: Sequence[Result]) -> Table:
    """time and one column of numbers per series, named as `column_names` has it; a missing cell is null."""
    runs = [run for place, result in enumerate(results) for run in _runs_of(place, result)]
    time = np.unique(np.concatenate([run.times for run in runs])) if runs else np.empty(0, np.int64)
    columns: list[tuple[str, Column]] = [("time", time)]
    for run in runs:
        cells = np.full(len(time), np.nan)
        cells[np.searchsorted(time, run.times)] = run.values
        columns.append((column_name(run.result.query.metric, [value for _, value in run.labels]), cells))
    return Table(tuple(columns))


def event_table(result: Result) -> Table:
    """A row for each event, by time."""
    rows = event_rows(result)
    each = np.arange(len(rows))
    columns: list[tuple[str, Column]] = [("time", result.frame.time)]
    columns += [(name, Coded(each, [row[name] for row in rows])) for name in EVENT_COLUMNS[1:]]
    return Table(tuple(columns), instants=("time", "timeEnd"))


def without_time(table: Table) -> Table:
    """The same rows without the column `time`: for tables of now, in which each row says its age."""
    return replace(table, columns=table.columns[1:], instants=())


def with_iso_times(table: Table) -> Table:
    """The same rows, their instants as texts: ISO 8601, UTC, milliseconds (`2026-11-27T16:00:00.000Z`)."""
    columns = ((name, _iso_column(cells) if name in table.instants else cells) for name, cells in table.columns)
    return Table(tuple(columns), instants=())


def _iso_column(cells: Column) -> Coded:
    if isinstance(cells, Coded):
        return Coded(cells.codes, [None if cell is None else _iso_texts(np.array([cell]))[0] for cell in cells.known])
    distinct, codes = np.unique(cast("Times", cells), return_inverse=True)
    return Coded(codes, _iso_texts(distinct))


def _iso_texts(times: Times) -> list[str]:
    return [f"{text}Z" for text in np.datetime_as_string(times.astype("datetime64[ms]"), unit="ms").tolist()]
