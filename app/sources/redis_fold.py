"""Many rows to one value per label set and bucket: the aggregates of the Redis reads, as pure functions over columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from app.model import Labels, Places, Times, Values

Aggregate = Literal["sum", "avg", "min", "max", "count", "quantile", "ratio", "rate"]

#: Aggregates of which "nothing there" is zero.
COUNTING: tuple[Aggregate, ...] = ("sum", "count", "rate")


@dataclass(frozen=True, slots=True)
class Rows:
    """One row for each hash or event and bucket: the bucket's start, the place of its label set, above / below = its value."""

    time: Times
    place: Places
    above: Values
    below: Values


@dataclass(frozen=True, slots=True)
class Rule:
    """How rows become one. `seconds` gives the time that the bucket starting at each given time has lasted, for `rate`."""

    aggregate: Aggregate
    quantile: float
    seconds: Callable[[Times], Values]


def fold(rows: Rows, label_sets: Sequence[Labels], rule: Rule) -> list[tuple[Labels, Times, Values]]:
    """One run per label set. Nulls are left out of every aggregate; what has nothing but nulls is null."""
    if not len(rows.time):
        return []
    order = np.lexsort((rows.time, rows.place))
    time, place = rows.time[order], rows.place[order]
    first = np.flatnonzero(np.append(True, (time[1:] != time[:-1]) | (place[1:] != place[:-1])))
    cells = _Cells(rows.above[order], rows.below[order], first, rule.seconds(time[first]), rule.quantile)
    time, place, value = time[first], place[first], _FOLDS[rule.aggregate](cells)
    edges = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1], [True])))
    return [(label_sets[place[start]], time[start:end], value[start:end]) for start, end in pairwise(edges)]


@dataclass(frozen=True, slots=True)
class _Cells:
    """Rows in order; cell i is rows first[i] to first[i + 1] and lasted seconds[i]."""

    above: Values
    below: Values
    first: Places
    seconds: Values
    quantile: float


def divided(above: Values, below: Values) -> Values:
    """above / below, null where below is 0."""
    quotient: Values = np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0)
    return quotient


def _known(cells: _Cells) -> tuple[Values, Values]:
    value = divided(cells.above, cells.below)
    return value, np.add.reduceat((~np.isnan(value)).astype(np.float64), cells.first)


def _count(cells: _Cells) -> Values:
    return _known(cells)[1]


def _rate(cells: _Cells) -> Values:
    return divided(_count(cells), cells.seconds)


def _sum(cells: _Cells) -> Values:
    value, known = _known(cells)
    total: Values = np.add.reduceat(np.nan_to_num(value), cells.first)
    return np.where(known > 0, total, np.nan)


def _avg(cells: _Cells) -> Values:
    value, known = _known(cells)
    return divided(np.add.reduceat(np.nan_to_num(value), cells.first), known)


def _min(cells: _Cells) -> Values:
    # fmin and fmax pass a null over where there is anything else
    least: Values = np.fmin.reduceat(_known(cells)[0], cells.first)
    return least


def _max(cells: _Cells) -> Values:
    most: Values = np.fmax.reduceat(_known(cells)[0], cells.first)
    return most


def _quantile(cells: _Cells) -> Values:
    value, _ = _known(cells)
    parts = np.split(value, cells.first[1:])
    known = [part[~np.isnan(part)] for part in parts]
    return np.array([np.quantile(part, cells.quantile) if len(part) else np.nan for part in known])


def _ratio(cells: _Cells) -> Values:
    both = ~np.isnan(cells.above) & ~np.isnan(cells.below)
    above = np.add.reduceat(np.where(both, cells.above, 0), cells.first)
    return divided(above, np.add.reduceat(np.where(both, cells.below, 0), cells.first))


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
