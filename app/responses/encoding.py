"""Tables as bytes: JSON, CSV, lines of JSON, Arrow. They are encoded column by column, some thousand rows at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import orjson

from app.errors import BadQuery
from app.model import Indices, Times, Values
from app.responses.figures import without_noise
from app.responses.series import number_texts
from app.responses.table import Coded, Column, Table


def json_rows(table: Table) -> Iterator[bytes]:
    """The pieces of a JSON array of objects that all have the same keys."""
    yield b"["
    for place, rows in enumerate(table.stretches()):
        text = _row_texts(rows, b",{", b"}")
        yield text if place else text[1:]
    yield b"]"


def json_arrays(table: Table) -> Iterator[bytes]:
    """The pieces of a JSON array of arrays: the cells of each row."""
    yield b"["
    for place, rows in enumerate(table.stretches()):
        text = _row_texts(rows, b",[", b"]", keyed=False)
        yield text if place else text[1:]
    yield b"]"


def ndjson(table: Table) -> Iterator[bytes]:
    """An object a line."""
    for rows in table.stretches():
        yield _row_texts(rows, b"{", b"}\n")


def _row_texts(table: Table, begin: bytes, end: bytes, keyed: bool = True) -> bytes:
    """The rows as JSON, `begin` and `end` around the members of each."""
    pieces = list(_row_pieces(table, begin, end, keyed))
    row: list[bytes] = [b""] * (len(pieces) * len(table))
    for place, column in enumerate(pieces):
        row[place :: len(pieces)] = column
    return b"".join(row)


def _row_pieces(table: Table, begin: bytes, end: bytes, keyed: bool) -> Iterator[list[bytes]]:
    """The pieces of all rows, one column of texts at a time. Between two columns of numbers, the text that all rows of a series
    share is one piece: keys and texts are encoded once per series, not once per row."""
    between = _Between(len(table), begin)
    for place, (name, cells) in enumerate(table.columns):
        key = (b"," if place else b"") + (orjson.dumps(name) + b":" if keyed else b"")
        if isinstance(cells, Coded):
            if between.codes is not None and between.codes is not cells.codes:
                yield between.column()
                between = _Between(len(table), b"")
            between = between.append_codes(cells.codes, [key + orjson.dumps(cell) for cell in cells.known])
        else:
            yield between.append(key).column()
            yield _number_cells(cells)
            between = _Between(len(table), b"")
    yield between.append(end).column()


class _Between:
    """The text between two columns of numbers: one for all rows, or one for each code."""

    def __init__(self, rows: int, *known: bytes, codes: Indices | None = None) -> None:
        self._rows = rows
        self._known = known
        self.codes = codes

    def append(self, text: bytes) -> _Between:
        """The same with a text behind it."""
        return _Between(self._rows, *[known + text for known in self._known], codes=self.codes)

    def append_codes(self, codes: Indices, given: Sequence[bytes]) -> _Between:
        """The same with a text for each code behind it."""
        before = self._known * len(given) if self.codes is None else self._known
        return _Between(self._rows, *map(bytes.__add__, before, given), codes=codes)

    def column(self) -> list[bytes]:
        """The text of each row."""
        if self.codes is None:
            return [self._known[0]] * self._rows
        return [self._known[code] for code in self.codes.tolist()]


def csv_text(table: Table) -> Iterator[bytes]:
    """RFC 4180 with a header; null is an empty cell; lines end with a single newline."""
    yield _csv_lines([[name for name, _ in table.columns]])
    for rows in table.stretches():
        yield _csv_lines(zip(*(_csv_cells(cells) for _, cells in rows.columns), strict=True))


def _csv_lines(rows: Iterator[Sequence[Any]] | Sequence[Sequence[Any]]) -> bytes:
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows(rows)
    return output.getvalue().encode()


def _csv_cells(cells: Column) -> list[Any]:
    if isinstance(cells, Coded):
        return ["" if cell is None else cell for cell in cells.cells()]
    return ["" if cell == b"null" else cell.decode() for cell in _number_cells(cells)]


def _number_cells(cells: Times | Values) -> list[bytes]:
    return number_texts(_without_noise(cells))


def _without_noise(cells: Times | Values) -> Times | Values:
    return cells if cells.dtype == np.int64 else without_noise(cast("Values", cells))


def arrow_stream(table: Table) -> Iterator[bytes]:
    """An Arrow IPC stream; an instant is a timestamp (ms, UTC). Raises BadQuery when pyarrow is not installed."""
    try:
        import pyarrow as pa  # an extra, loaded on demand
    except ImportError:
        raise BadQuery("format: arrow needs pyarrow, which is not installed; allowed: json, csv, ndjson") from None
    kinds = {"instant": pa.timestamp("ms", "UTC"), "number": pa.float64(), "text": pa.string()}
    schema = pa.schema([(name, kinds[_arrow_kind(cells, name in table.instants)]) for name, cells in table.columns])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for rows in table.stretches():
            given = [_arrow_cells(cells) for _, cells in rows.columns]
            arrays = [pa.array(cells, kind, from_pandas=True) for cells, kind in zip(given, schema.types, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            yield b""  # other requests get their turn here
    yield sink.getvalue().to_pybytes()


def _arrow_kind(cells: Column, instant: bool) -> str:
    if instant:
        return "instant"
    number = not isinstance(cells, Coded) or any(isinstance(cell, int | float) for cell in cells.known)
    return "number" if number else "text"


def _arrow_cells(cells: Column) -> Any:
    if isinstance(cells, Coded):
        return cells.cells()
    return _without_noise(cells)


#: the media type of each format
TYPES: Mapping[str, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
}
ENCODERS: Mapping[str, Callable[[Table], Iterator[bytes]]] = {
    "json": json_rows,
    "csv": csv_text,
    "ndjson": ndjson,
    "arrow": arrow_stream,
}


def accepted_format(accept: str) -> str:
    """The format that the Accept header names first; JSON for anything else, XML among it."""
    kinds = {kind.split(";")[0]: name for name, kind in TYPES.items()}
    return kinds.get(accept.split(",")[0].split(";")[0].strip().lower(), "json")
