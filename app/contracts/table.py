"""Answers as one table of rows, in the order of time, metric, labels; encoded column by column, a stretch of rows at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from app.contracts.rendering import texts
from app.errors import BadQuery
from app.model import Labels, Places, Result, Times, Values

#: Rows that are encoded in one go: about 2 ms.
_STRETCH = 5000


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of few distinct cells: cell i is `known[codes[i]]`. Columns with the same codes share the array."""

    codes: Places
    known: Sequence[Any]

    def __len__(self) -> int:
        return len(self.codes)

    def cells(self) -> list[Any]:
        """The cells themselves."""
        return [self.known[code] for code in self.codes.tolist()]


Column = Times | Values | Coded

#: A series: its metric, labels, times and values.
Run = tuple[str, Labels, Times, Values]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length by name."""

    columns: tuple[tuple[str, Column], ...]

    def __len__(self) -> int:
        return len(self.columns[0][1])

    def page(self, first: int, count: int) -> Table:
        """Some of the rows."""
        rows = slice(first, first + count)
        codes = {id(cells.codes): cells.codes[rows] for _, cells in self.columns if isinstance(cells, Coded)}
        return Table(
            tuple(
                (name, Coded(codes[id(cells.codes)], cells.known) if isinstance(cells, Coded) else cells[rows])
                for name, cells in self.columns
            )
        )

    def stretches(self) -> Iterator[Table]:
        """The rows, some at a time."""
        for first in range(0, len(self), _STRETCH):
            yield self.page(first, _STRETCH)


def long_table(results: Sequence[Result], by: Sequence[str], marks: bool = False) -> Table:
    """time, metric, the labels, value: a row for each point. With `marks` also its answer's status and age_s; an answer without a
    point has a row too, with nulls at the end of its window: an error, or nothing in that window."""
    runs = [run for result in results for run in _marked(result)] if marks else _runs(results)
    time = np.concatenate([times for _, _, times, _ in runs]) if runs else np.empty(0, np.int64)
    value = np.concatenate([values for _, _, _, values in runs]) if runs else np.empty(0)
    order, owner = _by_time(time, [len(times) for _, _, times, _ in runs])
    names = [metric for metric, _, _, _ in runs]
    labels = [dict(found) for _, found, _, _ in runs]
    columns: list[tuple[str, Column]] = [("time", time[order]), ("metric", Coded(owner, names))]
    columns += [(label, Coded(owner, [found.get(label) for found in labels])) for label in by]
    columns.append(("value", value[order]))
    return Table((*columns, *_marks(results, names, owner)) if marks else tuple(columns))


def _runs(results: Sequence[Result]) -> list[Run]:
    return [(result.query.metric, *run) for result in results if result.error is None for run in result.frame.runs()]


def _marked(result: Result) -> list[Run]:
    return _runs([result]) or [(result.query.metric, (), np.array([result.query.to_ms]), np.array([np.nan]))]


def _by_time(time: Times, lengths: Sequence[int]) -> tuple[Places, Places]:
    """The rows' places in order of time, and the run that each is of. Runs are in the order of metric and labels already."""
    if lengths and len(set(lengths)) == 1:
        grid = time.reshape(len(lengths), -1)
        if (grid == grid[0]).all():
            order = np.arange(len(time)).reshape(grid.shape).T.ravel()
            return order, np.tile(np.arange(len(lengths)), grid.shape[1])
    order = np.argsort(time, kind="stable")
    return order, np.repeat(np.arange(len(lengths)), lengths)[order]


def _marks(results: Sequence[Result], names: Sequence[str], owner: Places) -> list[tuple[str, Column]]:
    """For clients that see nothing but rows: how each row's answer came about."""
    by_metric = {result.query.metric: result for result in results}
    statuses = [by_metric[name].status for name in names]
    ages_s = [None if by_metric[name].error else round(by_metric[name].age_s, 3) for name in names]
    return [("status", Coded(owner, statuses)), ("age_s", Coded(owner, ages_s))]


def wide_table(results: Sequence[Result]) -> Table:
    """time and one column of numbers per series; a missing cell is null."""
    runs = _runs(results)
    time = np.unique(np.concatenate([times for _, _, times, _ in runs])) if runs else np.empty(0, np.int64)
    columns: dict[str, Column] = {"time": time}
    for metric, labels, times, values in runs:
        cells = np.full(len(time), np.nan)
        cells[np.searchsorted(time, times)] = values
        columns[_free_name("_".join([metric, *(value for _, value in labels)]), columns)] = cells
    return Table(tuple(columns.items()))


def _free_name(wanted: str, taken: dict[str, Column]) -> str:
    """A column name of letters, digits and _ that nobody has."""
    name = "".join(char if char.isascii() and (char.isalnum() or char == "_") else "_" for char in wanted)
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name}_{count}", count + 1
    return unique


def json_rows(table: Table) -> Iterator[bytes]:
    """The pieces of a JSON array of objects that all have the same keys."""
    yield b"["
    for place, rows in enumerate(table.stretches()):
        text = _rows(rows, b",{", b"}")
        yield text if place else text[1:]
    yield b"]"


def json_arrays(table: Table) -> Iterator[bytes]:
    """The pieces of a JSON array of arrays: the cells of each row."""
    yield b"["
    for place, rows in enumerate(table.stretches()):
        text = _rows(rows, b",[", b"]", keyed=False)
        yield text if place else text[1:]
    yield b"]"


def ndjson(table: Table) -> Iterator[bytes]:
    """An object a line."""
    for rows in table.stretches():
        yield _rows(rows, b"{", b"}\n")


def _rows(table: Table, begin: bytes, end: bytes, keyed: bool = True) -> bytes:
    """The rows as JSON, `begin` and `end` around the members of each."""
    pieces = list(_pieces(table, begin, end, keyed))
    row: list[bytes] = [b""] * (len(pieces) * len(table))
    for place, column in enumerate(pieces):
        row[place :: len(pieces)] = column
    return b"".join(row)


def _pieces(table: Table, begin: bytes, end: bytes, keyed: bool) -> Iterator[list[bytes]]:
    """What each row is put together from, a column of texts at a time. What is the same for all rows of a series, between two
    columns of numbers, is one piece: keys and texts are encoded once a series, not once a row."""
    between = _Between(len(table), begin)
    for place, (name, cells) in enumerate(table.columns):
        key = (b"," if place else b"") + (orjson.dumps(name) + b":" if keyed else b"")
        if isinstance(cells, Coded):
            if between.codes is not None and between.codes is not cells.codes:
                yield between.column()
                between = _Between(len(table), b"")
            between = between.followed(cells.codes, [key + orjson.dumps(cell) for cell in cells.known])
        else:
            yield between.and_then(key).column()
            yield texts(cells)
            between = _Between(len(table), b"")
    yield between.and_then(end).column()


class _Between:
    """What stands between two columns of numbers: one text for all rows, or one for each code."""

    def __init__(self, rows: int, *known: bytes, codes: Places | None = None) -> None:
        self._rows = rows
        self._known = known
        self.codes = codes

    def and_then(self, text: bytes) -> _Between:
        """With a text behind it."""
        return _Between(self._rows, *[known + text for known in self._known], codes=self.codes)

    def followed(self, codes: Places, given: Sequence[bytes]) -> _Between:
        """With a text for each code behind it."""
        before = self._known * len(given) if self.codes is None else self._known
        return _Between(self._rows, *map(bytes.__add__, before, given), codes=codes)

    def column(self) -> list[bytes]:
        """The text of each row."""
        if self.codes is None:
            return [self._known[0]] * self._rows
        return [self._known[code] for code in self.codes.tolist()]


def csv_text(table: Table) -> Iterator[bytes]:
    """RFC 4180 with a header; null is an empty cell; lines end with a single newline."""
    yield _csv([[name for name, _ in table.columns]])
    for rows in table.stretches():
        yield _csv(zip(*(_plain(cells) for _, cells in rows.columns), strict=True))


def _csv(rows: Iterator[Sequence[Any]] | Sequence[Sequence[Any]]) -> bytes:
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows(rows)
    return output.getvalue().encode()


def _plain(cells: Column) -> list[Any]:
    if isinstance(cells, Coded):
        return ["" if cell is None else cell for cell in cells.cells()]
    return ["" if cell == b"null" else cell.decode() for cell in texts(cells)]


def arrow_stream(table: Table) -> Iterator[bytes]:
    """An Arrow IPC stream. Raises BadQuery when pyarrow is not installed."""
    try:
        import pyarrow as pa  # an extra: loaded when it is asked for
    except ImportError:
        raise BadQuery("format: arrow needs pyarrow, which is not installed; allowed: json, csv, ndjson") from None
    given = [(name, cells.cells() if isinstance(cells, Coded) else cells) for name, cells in table.columns]
    batch = pa.table({name: pa.array(cells, from_pandas=True) for name, cells in given})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_table(batch)
    yield sink.getvalue().to_pybytes()
