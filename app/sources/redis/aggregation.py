"""How the hashes and events of a read become figures: the value of a row, and many rows to one value per label set and bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field

from app.documents.schema import Strict
from app.model import NO_REMARKS, Flags, Indices, Labels, Parts, Remarks, Times, Values, gap_remark
from app.sources.redis.parse import Cell, instants, numbers, text
from app.sources.redis.reads import Grouped, KeyRead, ReadContext, Run, unparsed_remark

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


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How the rows of one label set and bucket become one value. `seconds` gives for each bucket how long it has lasted (`rate`).

    With `weighs` the values have a second column: the weight behind each mean.
    """

    aggregate: Aggregate
    quantile: float
    seconds: Callable[[Times], Values]
    weighs: bool = False


def aggregate_rows(rows: Rows, label_sets: Sequence[Labels], rule: Aggregation) -> list[Run]:
    """One run per label set. Every aggregate leaves nulls out; an aggregate of nothing but nulls is null."""
    if not len(rows.time):
        return []
    order = np.lexsort((rows.time, rows.place))
    time, place = rows.time[order], rows.place[order]
    first = np.flatnonzero(np.append(True, (time[1:] != time[:-1]) | (place[1:] != place[:-1])))
    cells = _Cells(rows.above[order], rows.below[order], first, rule.seconds(time[first]), rule.quantile)
    time, place, value = time[first], place[first], _FOLDS[rule.aggregate](cells)
    if rule.weighs and rule.aggregate in _WEIGHTS:
        value = np.column_stack((value, _WEIGHTS[rule.aggregate](cells)))
    edges = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1], [True])))
    return [(label_sets[place[start]], time[start:end], value[start:end]) for start, end in pairwise(edges)]


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
    value, _ = _known_values(cells)
    parts = np.split(value, cells.first[1:])
    known = [part[~np.isnan(part)] for part in parts]
    return np.array([np.quantile(part, cells.quantile) if len(part) else np.nan for part in known])


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
#: the weight behind a mean
_WEIGHTS: Mapping[Aggregate, Callable[[_Cells], Values]] = {"avg": _count, "ratio": _denominator}
#: how the parts of a figure of events become one
PARTS: Mapping[Aggregate, Parts] = {"sum": "sum", "count": "sum", "min": "min", "max": "max", "avg": "mean", "ratio": "mean"}


class Ratio(Strict):
    """(sum of `plus` - sum of `minus`) / `over` * scale; without `over` the plain sum. No value is below `least`.

    A denominator below `zero` counts as 0, and 0 makes the ratio null: sums of floats leave residues where nothing is left, and
    a ratio to a negative margin or peak has no meaning. The default is half of the last digit in the tables of the history
    (DECIMAL(18, 4)); their templates do the same.
    """

    plus: tuple[str, ...] = Field(min_length=1)
    minus: tuple[str, ...] = ()
    over: str | None = None
    scale: float = 1.0
    zero: float = Field(0.00005, gt=0)
    least: float | None = None

    def sides(self, known: Mapping[str, Values], count: int) -> tuple[Values, Values]:
        """Numerator, scaled, and denominator of each row."""
        above = sum((known[field] for field in self.plus), np.zeros(count))
        above = (above - sum((known[field] for field in self.minus), np.zeros(count))) * self.scale
        below = np.ones(count)
        if self.over:
            below = np.where(known[self.over] < self.zero, 0.0, known[self.over])
        return (above if self.least is None else np.maximum(above, self.least * below)), below


class ValueSpec(KeyRead):
    """The value of one hash or event (one of value, field, age_of, ratio), and how several values become one.

    `aggregate: ratio` divides the sum of the numerators by the sum of the denominators; any other aggregate is of the single
    values. `scale` multiplies the value. `same` names a field that must be the same in all hashes or entries behind one figure,
    the currency of amounts for example: where it differs the figure is null and partial. An empty field counts as the same.
    """

    value: Literal["count"] | None = None
    field: str | None = None
    age_of: str | None = None
    ratio: Ratio | None = None
    scale: float = 1.0
    aggregate: Aggregate = "sum"
    quantile: float = Field(0.95, ge=0, le=1)
    same: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the value is computed from."""
        parts = (*self.ratio.plus, *self.ratio.minus, self.ratio.over) if self.ratio else (self.field, self.age_of)
        return tuple(dict.fromkeys(part for part in parts if part))

    def aggregation_rule(self, context: ReadContext) -> Aggregation:
        """How rows of one label set and bucket become one value."""
        return Aggregation(self.aggregate, self.quantile, context.bucket_seconds, weighs=self.given_parts == "mean")

    def parse_fields(self, cells: Mapping[str, Sequence[Cell]], pattern: str) -> tuple[dict[str, Values], Remarks]:
        """The value's fields as numbers (instants as epoch ms), with a remark for each field that does not parse everywhere."""
        known, remarks = dict[str, Values](), NO_REMARKS
        for field in self.fields:
            known[field], bad = (instants if field == self.age_of else numbers)(cells[field])
            remarks += unparsed_remark(pattern, field, bad)
            if missing := cells[field].count(None):
                remarks += gap_remark(f"{pattern}: {field} is missing {missing} times; shown as null")
        return known, remarks

    def find_unlike(self, cells: Mapping[str, Sequence[Cell]], where: Grouped, pattern: str) -> tuple[Flags, Remarks]:
        """Which of the rows that were kept have several values of `same` in their label set, with a remark. `cells` has these
        rows only."""
        none = np.zeros(len(where.place), dtype=np.bool_)
        if self.same is None:
            return none, NO_REMARKS
        said = [text(cell).strip().upper() for cell in cells[self.same]]
        if len(set(said) - {""}) <= 1:
            return none, NO_REMARKS
        by_set: list[set[str]] = [set() for _ in where.label_sets]
        for place, word in zip(where.place.tolist(), said, strict=True):
            by_set[place] |= {word} - {""}
        several = np.array([len(found) > 1 for found in by_set], dtype=np.bool_)
        if not several.any():
            return none, NO_REMARKS
        words = ", ".join(sorted(set().union(*(found for found in by_set if len(found) > 1)))[:5])
        advice = "such figures are not added up; keep the labels that tell them apart"
        return several[where.place], gap_remark(f"{pattern}: {self.same} differs ({words}): {advice}")

    def value_sides(self, known: Mapping[str, Values], count: int, now_ms: int | Times) -> tuple[Values, Values]:
        """Numerator and denominator of each row's value."""
        one = np.ones(count)
        if self.field:
            return known[self.field] * self.scale, one
        if self.age_of:
            # No negative age where the store's clock is ahead of ours.
            return np.maximum(now_ms - known[self.age_of], 0) / 1000 * self.scale, one
        if self.ratio:
            above, below = self.ratio.sides(known, count)
            return above * self.scale, below
        return one * self.scale, one

    def problems(self) -> Iterator[tuple[str, str]]:
        """Value forms and aggregates that do not fit together."""
        forms = ("value", "field", "age_of", "ratio")
        given = [form for form in forms if getattr(self, form) is not None]
        if len(given) != 1 and not self._is_share:
            yield "value", f"exactly one of {', '.join(forms)} is needed; found {' and '.join(given) or 'none'}"
        if self.aggregate == "ratio" and not (self.ratio and self.ratio.over) and not self._is_share:
            yield "aggregate", "ratio needs a `ratio` with `over`"
        if self.value == "count" and self.aggregate not in ("sum", "count", "rate"):
            yield "aggregate", f"{self.aggregate} of `value: count` says nothing; allowed: sum, count"
        if self.same and not (self.field or self.ratio):
            yield "same", "needs `field` or `ratio`: only amounts are added up"
        if self.same and self.aggregate in ("count", "rate"):
            yield "same", f"does not go with `aggregate: {self.aggregate}`, which adds up no amounts"
        if self.ratio and self.ratio.least is not None and (self.aggregate == "ratio" or not self.ratio.over):
            yield "ratio.least", "is of single ratios: it needs `over` and does not go with `aggregate: ratio`"

    @property
    def _is_share(self) -> bool:
        """True where the value is a share of events and has no other form."""
        return False
