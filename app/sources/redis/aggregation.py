"""Many rows to one value per label set and bucket. Pure functions over columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from app.model import NO_REMARKS, Frame, Indices, Labels, Parts, Remarks, Times, Values

Aggregate = Literal["sum", "avg", "min", "max", "count", "quantile", "ratio", "rate"]

#: aggregates of no rows that are zero
COUNTING: tuple[Aggregate, ...] = ("sum", "count", "rate")


@dataclass(frozen=True, slots=True)
class Rows:
    """One row for each hash or event and bucket: the bucket's start, the index of its label set; its value is above / below."""

    time: Times
    place: Indices
    above: Values
    below: Values


def join_rows(pieces: Sequence[Rows]) -> Rows:
    """The rows of all pieces."""
    columns = zip(*((one.time, one.place, one.above, one.below) for one in (_NO_ROWS, *pieces)), strict=True)
    return Rows(*(np.concatenate(column) for column in columns))


_NO_ROWS = Rows(np.empty(0, np.int64), np.empty(0, np.intp), np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How the rows of one label set and bucket become one value. `seconds` gives for each bucket how long it has lasted (`rate`).

    With `weighs` the values have a second column: the weight behind each mean.
    """

    aggregate: Aggregate
    quantile: float
    seconds: Callable[[Times], Values]
    weighs: bool = False


@dataclass(frozen=True, slots=True)
class ZeroFill:
    """Label sets that have 0 in each of these buckets in which they have no value."""

    label_sets: Sequence[Labels] = ()
    buckets: Times = field(default_factory=lambda: np.empty(0, np.int64))


def aggregate_rows(
    rows: Rows,
    label_sets: Sequence[Labels],
    rule: Aggregation,
    remarks: Remarks = NO_REMARKS,
    zeros: ZeroFill | None = None,
    **said: Any,
) -> Frame:
    """The rows as a frame of one run per label set, with the remarks and what else the source says of it (`Frame`'s fields).

    Every aggregate leaves nulls out; an aggregate of nothing but nulls is null.

    The work is done on whole columns: label sets are sorted once, and rows that come in order are not sorted again.
    """
    given = dict.fromkeys((*label_sets, *(zeros.label_sets if zeros else ())))
    series = sorted(given)
    rank = {labels: index for index, labels in enumerate(series)}
    rank_of = np.array([rank[labels] for labels in label_sets], dtype=np.intp)
    table = _fold_rows(rows.time, rank_of[rows.place], rows, rule)
    if zeros:
        table = _fill_zeros(table, np.array([rank[labels] for labels in zeros.label_sets], dtype=np.intp), zeros.buckets)
    return _frame_of_table(table, series, {"notices": remarks.notices, "partial": remarks.partial, **said})


#: Rows in the order of label set and time: time, label set, values (a second column has weights).
_Table = tuple[Times, Indices, Values]


def _fold_rows(time: Times, place: Indices, rows: Rows, rule: Aggregation) -> _Table:
    if not len(time):
        return time, place, rows.above
    above, below = rows.above, rows.below
    if not is_ordered(place, time):
        order = np.lexsort((time, place))
        time, place, above, below = time[order], place[order], above[order], below[order]
    first = start_rows(place, time)
    if len(first) == len(time) and rule.aggregate in _OF_ONE and not rule.weighs:
        return time, place, divide_columns(above, below)
    cells = _Cells(above, below, first, rule.seconds(time[first]), rule.quantile)
    value = _FOLDS[rule.aggregate](cells)
    if rule.weighs and rule.aggregate in _WEIGHTS:
        value = np.column_stack((value, _WEIGHTS[rule.aggregate](cells)))
    return time[first], place[first], value


def is_ordered(place: Indices, time: Times) -> bool:
    """Whether rows are in the order of `place` and time."""
    ascends = (place[1:] > place[:-1]) | ((place[1:] == place[:-1]) & (time[1:] >= time[:-1]))
    return bool(ascends.all())


def start_rows(*columns: Indices | Times) -> Indices:
    """The rows that differ from the one before them in any column."""
    changes = np.ones(len(columns[0]), dtype=np.bool_)
    changes[1:] = False
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changes)


def _fill_zeros(table: _Table, places: Indices, buckets: Times) -> _Table:
    """The table with a row of 0 for each of the label sets and buckets that it has no row for."""
    time = np.concatenate((table[0], np.tile(buckets, len(places))))
    place = np.concatenate((table[1], np.repeat(places, len(buckets))))
    value = np.concatenate((table[2], np.zeros(len(place) - len(table[1]))))
    order = np.lexsort((time, place))  # stable: a value comes before the zero for the same bucket
    first = order[start_rows(place[order], time[order])]
    return time[first], place[first], value[first]


def _frame_of_table(table: _Table, series: Sequence[Labels], said: Mapping[str, Any]) -> Frame:
    time, place, value = table
    if not len(time):
        return Frame(**said)
    begins = start_rows(place)
    columns = (value,) if value.ndim == 1 else (np.ascontiguousarray(value[:, 0]), np.ascontiguousarray(value[:, 1]))
    return Frame(
        time=time,
        value=columns[0],
        weight=columns[1] if len(columns) > 1 else Frame().weight,
        series=tuple(series[index] for index in place[begins].tolist()),
        offsets=(*begins.tolist(), len(time)),
        **said,
    )


@dataclass(frozen=True, slots=True)
class _Cells:
    """Rows in order; cell i is rows first[i] to first[i + 1] and lasted seconds[i]."""

    above: Values
    below: Values
    first: Indices
    seconds: Values
    quantile: float


def divide_columns(above: Values, below: Values) -> Values:
    """above / below, null where below is 0."""
    quotient: Values = np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0)
    return quotient


def _known_values(cells: _Cells) -> tuple[Values, Values]:
    value = divide_columns(cells.above, cells.below)
    return value, np.add.reduceat((~np.isnan(value)).astype(np.float64), cells.first)


def _count(cells: _Cells) -> Values:
    return _known_values(cells)[1]


def _rate(cells: _Cells) -> Values:
    return divide_columns(_count(cells), cells.seconds)


def _sum(cells: _Cells) -> Values:
    value, known = _known_values(cells)
    total: Values = np.add.reduceat(np.nan_to_num(value), cells.first)
    return np.where(known > 0, total, np.nan)


def _avg(cells: _Cells) -> Values:
    value, known = _known_values(cells)
    return divide_columns(np.add.reduceat(np.nan_to_num(value), cells.first), known)


def _min(cells: _Cells) -> Values:
    # fmin and fmax ignore nulls unless all values are null
    least: Values = np.fmin.reduceat(_known_values(cells)[0], cells.first)
    return least


def _max(cells: _Cells) -> Values:
    most: Values = np.fmax.reduceat(_known_values(cells)[0], cells.first)
    return most


def _quantile(cells: _Cells) -> Values:
    """As `np.quantile` of each cell's known values, to the last digit."""
    value, known = _known_values(cells)
    cell = np.repeat(np.arange(len(cells.first)), np.diff(np.append(cells.first, len(value))))
    ascending = value[np.lexsort((value, cell))]  # nulls come last in their cell
    place = np.maximum(known - 1, 0) * cells.quantile
    below = cells.first + place.astype(np.intp)
    above = np.minimum(below + 1, cells.first + np.maximum(known - 1, 0).astype(np.intp))
    low, high, share = ascending[below], ascending[above], place % 1
    between = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))
    return np.where(known > 0, between, np.nan)


def _ratio(cells: _Cells) -> Values:
    both = ~np.isnan(cells.above) & ~np.isnan(cells.below)
    above = np.add.reduceat(np.where(both, cells.above, 0), cells.first)
    return divide_columns(above, _denominator(cells))


def _denominator(cells: _Cells) -> Values:
    both = ~np.isnan(cells.above) & ~np.isnan(cells.below)
    below: Values = np.add.reduceat(np.where(both, cells.below, 0), cells.first)
    return below


_FOLDS: Mapping[Aggregate, Callable[[_Cells], Values]] = {
    "sum": _sum,
    "avg": _avg,
    "min": _min,
    "max": _max,
    "count": _count,
    "quantile": _quantile,
    "ratio": _ratio,
    "rate": _rate,
}
#: aggregates of one row that are its value
_OF_ONE: frozenset[Aggregate] = frozenset(("sum", "avg", "min", "max", "quantile", "ratio"))
#: the weight behind a mean
_WEIGHTS: Mapping[Aggregate, Callable[[_Cells], Values]] = {"avg": _count, "ratio": _denominator}
#: how the parts of a figure of events become one
PARTS: Mapping[Aggregate, Parts] = {"sum": "sum", "count": "sum", "min": "min", "max": "max", "avg": "mean", "ratio": "mean"}
