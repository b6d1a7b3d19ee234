"""What all Redis reads share: what they are given, their value forms, and how rows find their label sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from app.model import Flags, Frame, Labels, Matcher, Notice, Places, Statement, Times, Values, frame_of_runs
from app.sources.base import Ask, Read, Strict, accepts_all
from app.sources.redis_fold import Aggregate, Rule
from app.sources.redis_parse import Cell, instants, numbers
from app.sources.redis_wire import Wire

#: The word that stands for the id itself where a hash field is expected.
ID = "$id"

#: Text where YAML may give a number: `retcode: [10009, 10010]`.
Text = Annotated[str, BeforeValidator(lambda raw: str(raw) if isinstance(raw, int | float) else raw)]


@dataclass(frozen=True, slots=True)
class Asking:
    """One statement on its way, and what the source lends to answer it."""

    statement: Statement
    wire: Wire
    prefix: str
    max_members: int
    max_rows: int

    @property
    def used_labels(self) -> tuple[str, ...]:
        """The labels that are kept or filtered on."""
        return tuple(dict.fromkeys((*self.statement.labels, *(matcher.label for matcher in self.statement.where))))

    @property
    def open_ms(self) -> int:
        """The start of the range's last bucket: where a read of the present puts its points."""
        return self.statement.range.to_ms - self.statement.range.step_ms

    def key(self, template: str, ident: bytes = b"") -> bytes:
        """The key that a template means for one id. Only `{id}` is replaced, so hash tags may stand in it."""
        return (self.prefix + template).encode().replace(b"{id}", ident)

    def seconds(self, buckets: Times) -> Values:
        """How long each bucket has lasted: its step, or up to now for the open one (a second at least)."""
        lasted = np.full(len(buckets), self.statement.range.step_ms / 1000)
        if self.statement.now_ms:
            lasted = np.minimum(lasted, np.maximum(self.statement.now_ms - buckets, 1000) / 1000)
        return lasted


class KeyRead(Read):
    """A read of Redis keys. Keys are templates: `{id}` stands for a member of the index, the source's `prefix` goes before."""

    read: str

    def statement(self, ask: Ask) -> Statement:
        """The Statement: its text is the read itself, in full; labels and filters stand beside it."""
        return Statement(
            source=self.source,
            metric=ask.metric,
            text=f"{self.read} {self.model_dump_json(exclude_defaults=True)}",
            params=(),
            range=ask.range,
            labels=ask.by,
            where=ask.where,
            read=self,
            now_ms=ask.now_ms,
        )

    async def answer(self, asking: Asking) -> Frame:
        """Ask and shape the answer. Raises SourceError."""
        raise NotImplementedError  # pragma: no cover


class Ratio(Strict):
    """(sum of `plus` - sum of `minus`) / `over` * scale; without `over` the plain sum. A 0 below makes it null."""

    plus: tuple[str, ...] = Field(min_length=1)
    minus: tuple[str, ...] = ()
    over: str | None = None
    scale: float = 1.0


class Form(KeyRead):
    """What one hash or event counts for (one of value, field, age_of, ratio), and how several become one.

    With `aggregate: ratio` the sums of the numerators and of the denominators are divided; any other aggregate is of the single
    values. `scale` multiplies the value.
    """

    value: Literal["count"] | None = None
    field: str | None = None
    age_of: str | None = None
    ratio: Ratio | None = None
    scale: float = 1.0
    aggregate: Aggregate = "sum"
    quantile: float = Field(0.95, ge=0, le=1)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the value is made of."""
        parts = (*self.ratio.plus, *self.ratio.minus, self.ratio.over) if self.ratio else (self.field, self.age_of)
        return tuple(dict.fromkeys(part for part in parts if part))

    def rule(self, asking: Asking) -> Rule:
        """How rows of one label set and bucket become one value."""
        return Rule(self.aggregate, self.quantile, asking.seconds)

    def parsed(self, cells: Mapping[str, Sequence[Cell]], pattern: str) -> tuple[dict[str, Values], tuple[Notice, ...]]:
        """The value's fields as numbers (instants as epoch ms), with a notice for each field that does not parse everywhere."""
        known, notices = dict[str, Values](), list[Notice]()
        for field in self.fields:
            known[field], bad = (instants if field == self.age_of else numbers)(cells[field])
            notices += unparsed(pattern, field, bad)
        return known, tuple(notices)

    def divided(self, known: Mapping[str, Values], count: int, now_ms: int | Times) -> tuple[Values, Values]:
        """Numerator and denominator of each row's value."""
        one = np.ones(count)
        if self.field:
            return known[self.field] * self.scale, one
        if self.age_of:
            # A clock that runs ahead of ours makes no negative age.
            return np.maximum(now_ms - known[self.age_of], 0) / 1000 * self.scale, one
        if self.ratio:
            above = sum((known[field] for field in self.ratio.plus), np.zeros(count))
            above = above - sum((known[field] for field in self.ratio.minus), np.zeros(count))
            return above * self.ratio.scale * self.scale, known[self.ratio.over] if self.ratio.over else one
        return one * self.scale, one

    def problems(self) -> Iterator[tuple[str, str]]:
        """Value forms and aggregates that do not go together."""
        forms = ("value", "field", "age_of", "ratio")
        given = [form for form in forms if getattr(self, form) is not None]
        if len(given) != 1 and not self._shares:
            yield "value", f"exactly one of {', '.join(forms)} is needed; found {' and '.join(given) or 'none'}"
        if self.aggregate == "ratio" and not (self.ratio and self.ratio.over) and not self._shares:
            yield "aggregate", "ratio needs a `ratio` with `over`"
        if self.value == "count" and self.aggregate not in ("sum", "count", "rate"):
            yield "aggregate", f"{self.aggregate} of `value: count` says nothing; allowed: sum, count"

    @property
    def _shares(self) -> bool:
        """True where the value is a share of events, which stands in place of a form."""
        return False


@dataclass(frozen=True, slots=True)
class Placed:
    """Which rows pass the filters, and for each of those the place of its label set."""

    keep: Places
    place: Places
    label_sets: list[Labels]

    def alone(self, rows: Flags) -> Flags:
        """Those of these rows that have no others beside them in their label set."""
        every, some = (np.bincount(found, minlength=len(self.label_sets)) for found in (self.place, self.place[rows]))
        found: Flags = rows & (every == some)[self.place]
        return found


def placed(labels: Mapping[str, Sequence[str]], count: int, by: Sequence[str], where: Sequence[Matcher]) -> Placed:
    """Rows to label sets of the `by` labels, those left out that the filters do not accept. `labels` has a column for each."""
    keep = _accepted(labels, count, where)
    names = sorted(set(by))
    sets: dict[tuple[str, ...], int] = {}
    columns = [labels[name] for name in names]
    place = [sets.setdefault(tuple(column[row] for column in columns), len(sets)) for row in keep]
    label_sets = [tuple(zip(names, values, strict=True)) for values in sets]
    return Placed(np.array(keep, dtype=np.intp), np.array(place, dtype=np.intp), label_sets)


def _accepted(labels: Mapping[str, Sequence[str]], count: int, where: Sequence[Matcher]) -> Sequence[int]:
    if not where:
        return range(count)
    names = list(dict.fromkeys(matcher.label for matcher in where))
    test = accepts_all(where)
    rows = list(zip(*(labels[name] for name in names), strict=True))
    verdicts = {row: test(dict(zip(names, row, strict=True))) for row in set(rows)}
    return [place for place, row in enumerate(rows) if verdicts[row]]


def unparsed(pattern: str, field: str, count: int) -> Iterable[Notice]:
    """The remark on values that are no number or time: where and how many, never which."""
    if count:
        yield Notice("warning", f"{pattern}: {field} does not parse {count} times; shown as null")


def told(runs: Sequence[tuple[Labels, Times, Values]], notices: Sequence[Notice]) -> Frame:
    """The runs as a frame. What a warning says is missing from its figures makes it partial: no alert takes those for true."""
    return frame_of_runs(runs, notices=tuple(notices), partial=any(notice.severity == "warning" for notice in notices))


def cut(what: str, limit: int, name: str) -> Notice:
    """The remark on something that was longer than its limit."""
    return Notice("warning", f"{what}: more than {limit} found; only the newest {limit} are shown ({name})")
