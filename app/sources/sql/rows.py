"""The statements that are sent (the filled template, limited, points as a row a series), and their rows as a frame.

The template stands between line breaks, because it may end in a comment. An answer that must not become a frame is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

import numpy as np

from app.errors import SourceForeign, SourceRejected, TooManyRows
from app.model import Frame, Statement, TimeRange, Times, Values, frame_of_parts
from app.sources.sql.dialect import FLOAT, SeriesDialect
from app.sources.sql.template import drop_final_order, yields_weight

#: The list columns of a row of `select_series`. No label has such a name.
TIMES, VALUES, WEIGHTS = "$times", "$values", "$weights"


def select_rows(text: str, max_rows: int) -> str:
    """The rows of a statement, limited to one more than is allowed."""
    return f"SELECT * FROM (\n{text}\n) LIMIT {max_rows + 1}"  # noqa: S608  the catalogue's own text; its values are bound


def select_series(statement: Statement, max_rows: int, dialect: SeriesDialect) -> str:
    """The points of a statement, limited, a row a series.

    A label's text crosses over once and not with each point, and the engine makes floats far faster than Python does.
    """
    text = drop_final_order(statement.text)
    rows = _select_stretches(text, statement, dialect) if statement.thin_ms else f"SELECT * FROM (\n{text}\n)"  # noqa: S608
    lists = ", ".join(f'{cell} AS "{name}"' for name, cell in _list_cells(statement, dialect))
    names = _quote_labels(statement.labels)
    grouped = f"GROUP BY {names.rstrip(', ')} " if names else ""
    return f"SELECT {names}{lists} FROM ({rows} LIMIT {max_rows + 1}) {grouped}HAVING count(*) > 0"  # noqa: S608  as above


def list_columns(statement: Statement, dialect: SeriesDialect) -> tuple[str, ...]:
    """The names of the columns that `select_series` collects."""
    return tuple(name for name, _ in _list_cells(statement, dialect))


def _list_cells(statement: Statement, dialect: SeriesDialect) -> list[tuple[str, str]]:
    """The list columns and how each is made."""
    if statement.thin_ms:
        lists = ((TIMES, dialect.thinned_times), (VALUES, dialect.thinned_values))
        return [(name, cells.format(thin_to_ms=statement.thin_to_ms)) for name, cells in lists]
    cells = [(TIMES, "time"), (VALUES, dialect.as_float.format(column="value", otherwise=dialect.nan))]
    if yields_weight(statement.text, dialect.quoting):
        cells.append((WEIGHTS, dialect.as_float.format(column="weight", otherwise="0")))
    return [(name, f"{dialect.collect}({cell})") for name, cell in cells]


def _select_stretches(text: str, statement: Statement, dialect: SeriesDialect) -> str:
    """A row for each stretch of each series, with what `series.thin` and `series.newest` keep of it."""
    names = _quote_labels(statement.labels)
    rows = f"SELECT *, {dialect.thinned_value} AS {FLOAT} FROM (\n{text}\n)"  # noqa: S608  as above
    # From `thin_to_ms` on each row is a stretch of its own.
    alone = f"CASE WHEN time >= {statement.thin_to_ms} THEN time ELSE 0 END"
    stretch = f"{dialect.stretch.format(width=statement.thin_ms)}, {alone}"
    return f"SELECT {names}{dialect.extremes} FROM ({rows}) GROUP BY {names}{stretch}"  # noqa: S608  as above


def _quote_labels(labels: Sequence[str]) -> str:
    return "".join(f'"{label}", ' for label in labels)


def frame_of_points(
    statement: Statement,
    cells: Mapping[str, Sequence[Any]],
    times: Sequence[Times],
    values: Sequence[Values],
    weights: Sequence[Values] | None = None,
    **marks: Any,
) -> Frame:
    """A row a series as a frame: the labels' cells (NULL is the empty text), times, values, and the weights of means.

    Raises SourceForeign where a point has no time.
    """
    if any(len(one) != len(other) for one, other in zip(times, values, strict=True)):
        raise SourceForeign(statement.source, "answered what was not asked: a point without a time")
    if statement.thin_ms:
        times, values = _on_grid(times, values, statement.range)
    if weights is not None:
        values = [np.column_stack(pair) for pair in zip(values, weights, strict=True)]
    names = sorted(statement.labels)
    rows = zip(*(cells[name] for name in names), strict=True) if names else [()] * len(times)
    named = [tuple((name, "" if cell is None else str(cell)) for name, cell in zip(names, row, strict=True)) for row in rows]
    found = frame_of_parts(zip(named, times, values, strict=True), **marks)
    # An infinity is the quotient of a division by zero: known to have no value.
    found.value[np.isinf(found.value)] = np.nan
    return date_exact_bucket(found, statement.range)


def _on_grid(times: Sequence[Times], values: Sequence[Values], span: TimeRange) -> tuple[list[Times], list[Values]]:
    """Thinned points in the order of time, each dated with its bucket: a store may thin samples with times of their own."""
    orders = [np.argsort(one, kind="stable") for one in times]
    dated = [span.bucket(one[order]) for one, order in zip(times, orders, strict=True)]
    return dated, [one[order] for one, order in zip(values, orders, strict=True)]


def date_exact_bucket(frame: Frame, span: TimeRange) -> Frame:
    """The frame with the one bucket of an exact window at its own time. The template has put it at the epoch."""
    if not span.exact:
        return frame
    return replace(frame, time=np.where(frame.time == 0, span.origin_ms, frame.time))


def frame_of_events(times: Iterable[int], columns: Mapping[str, Sequence[Any]], **marks: Any) -> Frame:
    """Events in the order of time: one run without labels, NaN values, and every column but `time` as text."""
    time = np.array(times, dtype=np.int64)
    order = np.argsort(time, kind="stable")
    rows = order.tolist()
    text = {name: tuple(_cell_text(cells[row]) for row in rows) for name, cells in columns.items() if name != "time"}
    if not rows:
        return Frame(text=text, **marks)
    return Frame(time[order], np.full(len(rows), np.nan), ((),), (0, len(rows)), text, **marks)


def _cell_text(cell: Any) -> str | None:
    if cell is None:
        return None
    return ",".join(str(item) for item in cell) if isinstance(cell, list | tuple | np.ndarray) else str(cell)


def expect_columns(source: str, columns: Mapping[str, Any], *names: str) -> None:
    """Raise SourceRejected for a statement that does not return one of these columns."""
    for name in names:
        if name not in columns:
            raise SourceRejected(source, f"the statement returns no column {name!r}; it returns {', '.join(columns)}")


def expect_row_count(source: str, rows: int, max_rows: int) -> None:
    """Raise TooManyRows for an answer of more rows than are allowed: it was cut."""
    if rows > max_rows:
        raise TooManyRows(source, f"more than {max_rows} rows (max_rows)")


def count_rows(lists: Sequence[Sized], statement: Statement) -> int:
    """How many rows an answer has, without the two of each series that thinning adds to its extremes."""
    found = sum(map(len, lists))
    return max(found - 2 * len(lists), 0) if statement.thin_ms else found


def no_integer_time(source: str, found: str, advice: str) -> SourceRejected:
    """The failure of a statement whose column `time` is something else."""
    return SourceRejected(source, f"the column `time` is {found}; {advice}")
