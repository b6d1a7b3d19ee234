"""The value of one hash or event: which fields it is computed from, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from app.documents.schema import Strict
from app.model import Times, Values
from app.sources.redis.aggregation import Aggregate, Aggregation
from app.sources.redis.reads import KeyRead, ReadContext


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
