"""What is asked: a Query of a panel, and the Statements that are sent to sources.

Times are integer UTC milliseconds; a bucket is named by its start and covers [start, start + step).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from app.model.frame import Times

#: Every filter operator: equal, not, one of, none of, regex (RE2, anchored), not regex, order.
Operator = Literal["=", "!=", "=|", "!=|", "=~", "!~", "<", "<=", ">", ">="]
OPERATORS: tuple[Operator, ...] = ("=", "!=", "=|", "!=|", "=~", "!~", "<", "<=", ">", ">=")

#: What people write for "everything" (a custom All in Grafana). It may also be the name of a value.
PEOPLES_ALL = (".*", ".+", "*", "All")


@dataclass(frozen=True, slots=True)
class Matcher:
    """One filter: the label's value must satisfy the operator. `values` has one element, except for `=|` and `!=|`.

    A missing label counts as the empty text. Regular expressions are RE2 and must match the whole value. The order operators
    compare as numbers when the operand is a number (values that are no numbers never match), else as text.
    """

    label: str
    operator: Operator
    values: tuple[str, ...]


def is_text(value: str) -> bool:
    """Whether a value is text that every store can hold: no NUL, no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The instants [from_ms, to_ms), put into buckets of `step_ms` that begin at `origin_ms` and every step from there.

    A plan's range has whole buckets. A statement's range may begin or end inside a bucket, if another source answers for the rest
    of it. `origin_ms` is 0 (buckets aligned to the epoch), except for `step=range`, whose one bucket begins at `from_ms`.
    """

    from_ms: int
    to_ms: int
    step_ms: int
    origin_ms: int = 0

    def __len__(self) -> int:
        """The number of buckets that it touches."""
        if self.to_ms <= self.from_ms:
            return 0
        first, last = ((at - self.origin_ms) // self.step_ms for at in (self.from_ms, self.to_ms - 1))
        return last - first + 1

    @property
    def exact(self) -> bool:
        """True for the one bucket of `step=range`."""
        return self.origin_ms > 0

    def bucket(self, times: Times) -> Times:
        """The start of the bucket that each instant is in."""
        return (times - self.origin_ms) // self.step_ms * self.step_ms + self.origin_ms

    def bucket_ms(self, at_ms: int) -> int:
        """The start of the bucket that an instant is in."""
        return (at_ms - self.origin_ms) // self.step_ms * self.step_ms + self.origin_ms


#: In which order series come: by the figure that is compared (ascending, descending), or by their labels.
SortOrder = Literal["value", "-value", "label"]
SORT_ORDERS: tuple[SortOrder, ...] = ("value", "-value", "label")
#: Which figure of a series is compared: its last value in the window, its highest, its lowest, or the sum of its values.
TopBy = Literal["last", "max", "min", "sum"]
TOP_BY: tuple[TopBy, ...] = ("last", "max", "min", "sum")


@dataclass(frozen=True, slots=True)
class Ranking:
    """In which order the series of an answer come, and how many of them: the first `top` of that order.

    With `top` and no `sort` the highest come first. Series without a value come last, equal ones by their labels.
    """

    sort: SortOrder | None = None
    top: int | None = None
    top_by: TopBy = "last"

    @property
    def order(self) -> SortOrder | None:
        """The order of the series; None where nobody has asked for one."""
        return self.sort or ("-value" if self.top is not None else None)


#: the order of labels, all series
UNRANKED = Ranking()


@dataclass(frozen=True, slots=True)
class Query:
    """The question of one line of a panel. With `step_ms` None the bridge chooses from the range and `max_points`."""

    metric: str
    from_ms: int
    to_ms: int
    ref_id: str = "A"
    step_ms: int | None = None
    max_points: int = 1000
    by: tuple[str, ...] = ()
    where: tuple[Matcher, ...] = ()
    instant: bool = False
    #: `step=range`: one bucket, exactly from `from_ms` to `to_ms`
    exact: bool = False
    #: for alert rules: a whole and fresh answer or an error, never a thinned, partial or stale one
    strict: bool = False
    #: who goes first when slots are short
    lane: Lane = "interactive"
    #: which series are shown, in which order; all are fetched, so questions that differ in it share the sources' answers
    ranking: Ranking = UNRANKED
    #: an average or ratio of fewer answers than that in a bucket is null; the metric's own `least` holds in any case
    least: int = 0


#: Who goes first when slots are short: alert rules, then people, then background work.
Lane = Literal["alert", "interactive", "background"]
LANES: tuple[Lane, ...] = ("alert", "interactive", "background")

#: Which answers a caller accepts: fresh ones; else stale ones, marked; only cached ones, without a fetch.
Accept = Literal["fresh", "stale", "cached_only"]


#: How the figures of two sources for parts of one bucket become one: amounts add up, extremes compare, a mean (an average or a
#: ratio) weighs both sides, `last` is the later one. A figure without parts (a quantile, a rate that a source has computed) is
#: answered by one source alone.
Parts = Literal["sum", "min", "max", "mean", "last", "none"]
#: the ones whose seam may lie inside a bucket
MERGEABLE: tuple[Parts, ...] = ("sum", "min", "max", "mean")


class ReadTraits(Protocol):
    """What the plan and the policies need to know of a catalogue's read (see `sources.base.Read`)."""

    spared_by_coarser: ClassVar[bool]

    @property
    def sliceable(self) -> bool:
        """Whether a bucket's values are the same whatever other buckets are asked for."""

    @property
    def given_parts(self) -> Parts | None:
        """How its figures for two parts of one bucket become one."""


@dataclass(frozen=True, slots=True)
class CacheTimes:
    """A metric's own cache times. None leaves one to the `policy:` of the source."""

    fresh_s: float | None = None
    stale_s: float | None = None
    volatile_s: float | None = None


#: the cache times of a metric that has none of its own
SOURCES_TIMES = CacheTimes()


@dataclass(frozen=True, slots=True)
class Statement:
    """The question to one source. Hashable; `key` says which statements ask for the same thing.

    `text` is the statement in the source's own language and identifies the read completely, `params` its bound values (hashable:
    lists as tuples; never pasted into the text), `labels` the names of the label columns that come back, `read` the catalogue's
    read (a frozen model of the source's kind) for sources that need more than text. `now_ms` is the request's instant floored to
    the second when the open bucket is asked for, else 0. With `thin_ms` the source gives only the lowest and the highest value of
    each stretch of that width, and the newest value of each series (see `series.thin`); from `thin_to_ms` on it gives every row.
    `cache` has the metric's own cache times.

    `accept`, `lane` and `until_s` (the event loop's time until which the caller waits) belong to the caller, not to the question.
    """

    source: str
    metric: str
    text: str
    params: tuple[tuple[str, Any], ...]
    range: TimeRange
    labels: tuple[str, ...] = ()
    where: tuple[Matcher, ...] = ()
    read: ReadTraits | None = field(default=None, compare=False)
    now_ms: int = 0
    thin_ms: int = 0
    thin_to_ms: int = 0
    cache: CacheTimes = SOURCES_TIMES
    accept: Accept = field(default="stale", compare=False)
    lane: Lane = field(default="interactive", compare=False)
    until_s: float = field(default=math.inf, compare=False)

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Equal for statements that share an answer: the same question with the same cache times."""
        return (*self.question, self.cache)

    @property
    def question(self) -> tuple[Hashable, ...]:
        """The question to the source, without the instant of asking."""
        bound = tuple(pair for pair in self.params if pair[0] != "now_ms")
        is_open = self.now_ms > 0
        return (self.source, self.text, bound, self.range, self.labels, self.where, is_open, self.thin_ms, self.thin_to_ms)

    @property
    def shape(self) -> tuple[Hashable, ...]:
        """The question without its window: equal for all refreshes of a panel with a sliding range."""
        bound = tuple(pair for pair in self.params if pair[0] not in _WINDOW)
        # The width of an exact window is its step, so a stand-in for it has the same length.
        return (
            self.source,
            self.text,
            bound,
            self.range.step_ms,
            self.range.exact,
            self.labels,
            self.where,
            self.thin_ms,
        )


_WINDOW = frozenset(("from_ms", "to_ms", "now_ms"))
