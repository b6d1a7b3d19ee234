"""Answers as one table of rows, in the order of time, metric, labels; encoded column by column."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from app.contracts.rendering import texts
from app.errors import BadQuery
from app.model import Result


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length: a name and either numbers (an array) or texts (a list)."""

    columns: tuple[tuple[str, Any], ...]

    def __len__(self) -> int:
        return len(self.columns[0][1])

    def page(self, first: int, count: int) -> Table:
        """Some of the rows."""
        return Table(tuple((name, cells[first : first + count]) for name, cells in self.columns))


def long_table(results: Sequence[Result], by: Sequence[str], marks: bool = False) -> Table:
    """time, metric, the labels, value: a row for each point. With `marks` also its answer's status and age_s."""
    runs = [(result.query.metric, *run) for result in results if result.error is None for run in result.frame.runs()]
    lengths = [len(times) for _, _, times, _ in runs]
    time = np.concatenate([times for _, _, times, _ in runs]) if runs else np.empty(0, np.int64)
    value = np.concatenate([values for _, _, _, values in runs]) if runs else np.empty(0)
    # Runs are in the order of metric and labels already, so a stable sort by time is all that is missing.
    order = np.argsort(time, kind="stable")
    owner = np.repeat(np.arange(len(runs)), lengths)[order].tolist()
    names = [metric for metric, _, _, _ in runs]
    labels = [dict(found) for _, found, _, _ in runs]
    columns: list[tuple[str, Any]] = [("time", time[order]), ("metric", [names[run] for run in owner])]
    for label in by:
        cells = [found.get(label) for found in labels]
        columns.append((label, [cells[run] for run in owner]))
    columns.append(("value", value[order]))
    return Table((*columns, *_marks(results, names, owner)) if marks else tuple(columns))


def _marks(results: Sequence[Result], names: Sequence[str], owner: Sequence[int]) -> list[tuple[str, Any]]:
    """For clients that see nothing but rows: how each row's answer came about."""
    by_metric = {result.query.metric: result for result in results}
    statuses: list[str] = [by_metric[name].status for name in names]
    ages = np.array([round(by_metric[name].age_s, 3) for name in names])
    return [("status", [statuses[run] for run in owner]), ("age_s", ages[owner] if owner else np.empty(0))]


def wide_table(results: Sequence[Result]) -> Table:
    """time and one column of numbers per series; a missing cell is null."""
    runs = [(result.query.metric, *run) for result in results if result.error is None for run in result.frame.runs()]
    time = np.unique(np.concatenate([times for _, _, times, _ in runs])) if runs else np.empty(0, np.int64)
    columns: dict[str, Any] = {"time": time}
    for metric, labels, times, values in runs:
        cells = np.full(len(time), np.nan)
        cells[np.searchsorted(time, times)] = values
        columns[_free_name("_".join([metric, *(value for _, value in labels)]), columns)] = cells
    return Table(tuple(columns.items()))


def _free_name(wanted: str, taken: dict[str, Any]) -> str:
    """A column name of letters, digits and _ that nobody has."""
    name = "".join(char if char.isascii() and (char.isalnum() or char == "_") else "_" for char in wanted)
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name}_{count}", count + 1
    return unique


def json_rows(table: Table) -> bytes:
    """A JSON array of objects that all have the same keys."""
    return b"[" + b",".join(_objects(table)) + b"]"


def ndjson(table: Table) -> bytes:
    """An object a line."""
    return b"".join(line + b"\n" for line in _objects(table))


def _objects(table: Table) -> list[bytes]:
    """Each row as JSON. Keys and texts are encoded once, not once a row."""
    pieces: list[list[bytes]] = []
    for place, (name, cells) in enumerate(table.columns):
        key = (b"{" if place == 0 else b",") + orjson.dumps(name) + b":"
        pieces.append([key + cell for cell in _cells(cells)])
    return [b"".join(row) + b"}" for row in zip(*pieces, strict=True)]


def _cells(cells: Any) -> list[bytes]:
    if isinstance(cells, np.ndarray):
        return texts(cells)
    known = {cell: orjson.dumps(cell) for cell in set(cells)}
    return [known[cell] for cell in cells]


def csv_text(table: Table) -> bytes:
    """RFC 4180 with a header; null is an empty cell; lines end with a single newline."""
    plain = [_plain(cells) for _, cells in table.columns]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([name for name, _ in table.columns])
    writer.writerows(zip(*plain, strict=True))
    return output.getvalue().encode()


def _plain(cells: Any) -> list[Any]:
    if isinstance(cells, np.ndarray):
        return ["" if cell == b"null" else cell.decode() for cell in texts(cells)]
    return ["" if cell is None else cell for cell in cells]


def arrow_stream(table: Table) -> bytes:
    """An Arrow IPC stream. Raises BadQuery when pyarrow is not installed."""
    try:
        import pyarrow as pa  # an extra: loaded when it is asked for
    except ImportError:
        raise BadQuery("format: arrow needs pyarrow, which is not installed; allowed: json, csv, ndjson") from None
    batch = pa.table({name: pa.array(cells, from_pandas=True) for name, cells in table.columns})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_table(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded
