"""What travels inside the bridge: Query, Statement, Frame, Result, and the one seam, Fetch.

Times are integer UTC milliseconds; a bucket is named by its start and covers [start, start + step).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.errors import BridgeError

Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

#: The labels of one series, sorted by name.
Labels = tuple[tuple[str, str], ...]

#: Every filter operator of contract.md 1.4: equal, not, one of, none of, regex (RE2, anchored), not regex, order.
Operator = Literal["=", "!=", "=|", "!=|", "=~", "!~", "<", "<=", ">", ">="]
OPERATORS: tuple[Operator, ...] = ("=", "!=", "=|", "!=|", "=~", "!~", "<", "<=", ">", ">=")

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Matcher:
    """One filter: the label's value must satisfy the operator. `values` has one element but for `=|` and `!=|`.

    A missing label counts as the empty text. Regular expressions are RE2 and must match the whole value. The order operators
    compare as numbers when the operand is a number (labels that are none never match), else as text.
    """

    label: str
    operator: Operator
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Aligned buckets [from_ms, to_ms), each step_ms wide; all three are whole seconds and multiples of the step."""

    from_ms: int
    to_ms: int
    step_ms: int

    def __len__(self) -> int:
        return (self.to_ms - self.from_ms) // self.step_ms


@dataclass(frozen=True, slots=True)
class Query:
    """What one line of a panel asks. `step_ms` None lets the bridge choose from the range and `max_points`."""

    metric: str
    from_ms: int
    to_ms: int
    ref_id: str = "A"
    step_ms: int | None = None
    max_points: int = 1000
    by: tuple[str, ...] = ()
    where: tuple[Matcher, ...] = ()
    instant: bool = False
    #: an alert rule asks: the truth or an error, never a thinned, partial or stale answer
    strict: bool = False
    #: who goes first where there is no room for all
    lane: Lane = "interactive"
    #: what the caller may see; answers are never shared between different scopes
    scope: str = ""


#: Who goes first where places are short: alert rules, then people, then what nobody is waiting for.
Lane = Literal["alert", "interactive", "background"]
LANES: tuple[Lane, ...] = ("alert", "interactive", "background")

#: What an asker takes for an answer: one that is fresh; else one that is stale, marked; only what is kept (nobody is asked).
Accept = Literal["fresh", "stale", "kept"]


@dataclass(frozen=True, slots=True)
class Statement:
    """What one source is sent. Hashable; `key` says which statements ask for the same thing.

    `text` is the statement as the source speaks it and identifies the read entirely, `params` its bound values (hashable: lists
    as tuples; never pasted into the text), `labels` the names of the label columns that come back, `read` the catalogue's read (a
    frozen model of the source's own kind) for sources that need more than text. `now_ms` is the request's instant floored to the
    second when the open bucket is asked for, else 0.

    `accept`, `lane` and `until_s` (the event loop's time until which the asker waits) are the asker's, not the question's.
    """

    source: str
    metric: str
    text: str
    params: tuple[tuple[str, Any], ...]
    range: TimeRange
    labels: tuple[str, ...] = ()
    where: tuple[Matcher, ...] = ()
    read: Any = field(default=None, compare=False)
    now_ms: int = 0
    scope: str = ""
    accept: Accept = field(default="stale", compare=False)
    lane: Lane = field(default="interactive", compare=False)
    until_s: float = field(default=math.inf, compare=False)

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Equal for statements whose answers may stand for one another: the instant of asking is left out."""
        bound = tuple(pair for pair in self.params if pair[0] != "now_ms")
        return (self.source, self.text, bound, self.range, self.labels, self.where, self.now_ms > 0, self.scope)

    @property
    def shape(self) -> tuple[Hashable, ...]:
        """The question whatever its window: equal for the refreshes of a panel whose range slides along."""
        bound = tuple(pair for pair in self.params if pair[0] not in _WINDOW)
        return (self.source, self.text, bound, self.range.step_ms, self.labels, self.where, self.scope)


_WINDOW = frozenset(("from_ms", "to_ms", "now_ms"))


@dataclass(frozen=True, slots=True)
class Notice:
    """A remark that must reach the person who looks at the panel."""

    severity: Severity
    text: str


_NO_TIMES: Times = np.empty(0, dtype=np.int64)
_NO_VALUES: Values = np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Columns of equal length. Rows of one series stand together, ascending and unique in time.

    `series[i]` holds the labels of rows `offsets[i]` to `offsets[i + 1]`; series are sorted by their labels. NaN is null ("known
    to have no value"), a missing row is "no data". `text` carries further columns (events). `covers_to_ms` is the instant up to
    which the source's data is complete, where it knows (a snapshot's time); `asked_ms` is when the source was asked,
    `fresh_to_ms` until when the answer counts as fresh (None where nobody keeps it), `stale` why an older answer stands here.
    """

    time: Times = field(default_factory=lambda: _NO_TIMES)
    value: Values = field(default_factory=lambda: _NO_VALUES)
    series: tuple[Labels, ...] = ()
    offsets: tuple[int, ...] = (0,)
    text: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    covers_to_ms: int | None = None
    asked_ms: int = 0
    fresh_to_ms: int | None = None
    stale: str | None = None
    #: the source itself says that something is missing from it
    partial: bool = False
    #: until when (epoch ms) its settled buckets may be taken over into a later answer; 0 never
    reuse_to_ms: int = 0
    #: some of its buckets were taken over from an earlier answer
    pieced: bool = False

    def __len__(self) -> int:
        return len(self.time)

    @property
    def size_bytes(self) -> int:
        """About what the frame holds in memory."""
        text = sum(len(cell or "") + 50 for column in self.text.values() for cell in column)
        labels = sum(len(name) + len(value) + 100 for labels in self.series for name, value in labels)
        return self.time.nbytes + self.value.nbytes + text + labels + 500

    def runs(self) -> Iterator[tuple[Labels, Times, Values]]:
        """Each series as (labels, times, values); the arrays are views."""
        for index, labels in enumerate(self.series):
            rows = slice(self.offsets[index], self.offsets[index + 1])
            yield labels, self.time[rows], self.value[rows]

    def select(self, keep: Flags) -> Frame:
        """The rows where `keep` is true; series without any are left out."""
        return self.at(np.flatnonzero(keep))

    def at(self, places: Places) -> Frame:
        """The rows at these places, which ascend; series without any are left out."""
        kept_before = np.searchsorted(places, self.offsets)
        filled = np.flatnonzero(kept_before[1:] != kept_before[:-1])
        return replace(
            self,
            time=self.time[places],
            value=self.value[places],
            series=self.series if len(filled) == len(self.series) else tuple(self.series[place] for place in filled.tolist()),
            offsets=(0, *kept_before[filled + 1].tolist()),
            text={name: tuple(np.asarray(column, dtype=object)[places]) for name, column in self.text.items()},
        )

    def remark(self, *notices: Notice) -> Frame:
        """The same frame with further notices, each once."""
        if not notices:
            return self
        return replace(self, notices=tuple(dict.fromkeys((*self.notices, *notices))))


def frame_of_runs(runs: Sequence[tuple[Labels, Times, Values]], **rest: Any) -> Frame:
    """Series, in any order, as one frame. Empty series are left out."""
    kept = sorted((run for run in runs if len(run[1])), key=lambda run: run[0])
    if not kept:
        return Frame(**rest)
    lengths = np.cumsum([0, *(len(times) for _, times, _ in kept)])
    return Frame(
        time=np.concatenate([times for _, times, _ in kept]),
        value=np.concatenate([values for _, _, values in kept]),
        series=tuple(labels for labels, _, _ in kept),
        offsets=tuple(int(length) for length in lengths),
        **rest,
    )


def frame_of_parts(parts: Iterable[tuple[Labels, Times, Values]], **rest: Any) -> Frame:
    """Series in pieces, in any order, as a frame. Where a label set has the same time twice, the last one wins."""
    kept: dict[Labels, list[tuple[Times, Values]]] = {}
    for labels, times, values in parts:
        kept.setdefault(labels, []).append((times, values))
    runs = [(labels, *_put_together(pieces)) for labels, pieces in kept.items()]
    return frame_of_runs(runs, **rest)


def _put_together(pieces: Sequence[tuple[Times, Values]]) -> tuple[Times, Values]:
    """By time, of equal times the last one."""
    if len(pieces) == 1 and (pieces[0][0][1:] > pieces[0][0][:-1]).all():
        return pieces[0]
    times, values = np.concatenate([one for one, _ in pieces]), np.concatenate([one for _, one in pieces])
    if (times[1:] > times[:-1]).all():
        return times, values
    order = np.argsort(times, kind="stable")
    times = times[order]
    last = np.append(times[1:] != times[:-1], True)
    return times[last], values[order][last]


Status = Literal["fresh", "stale", "partial", "error"]


PartName = Literal["history", "live", "fallback"]


@dataclass(frozen=True, slots=True)
class Asked:
    """How one source took part in an answer: how long it took, why it is missing, or why an older answer stands for it."""

    source: str
    part: PartName
    seconds: float
    error: BridgeError | None = None
    stale: str | None = None
    age_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The answer to one Query: a frame or an error, never neither. Stands alone: no neighbour can spoil it."""

    query: Query
    frame: Frame = field(default_factory=Frame)
    error: BridgeError | None = None
    status: Status = "fresh"
    range: TimeRange = TimeRange(0, 1000, 1000)
    asked: tuple[Asked, ...] = ()
    #: the age of the oldest part, seconds
    age_s: float = 0.0
    #: until when (epoch ms) the same question has this same answer; None where that is not known
    good_to_ms: int | None = None
    #: the range begins on a multiple of this
    grid_ms: int = 1000


#: The one seam. A source gives one, a policy takes one and gives one.
Fetch = Callable[[Statement], Awaitable[Frame]]

#: Epoch milliseconds, injected wherever time is read.
Clock = Callable[[], int]


def age_text(age_ms: int) -> str:
    """An age as people read it."""
    seconds = max(age_ms, 0) // 1000
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}min"


def instant_text(time_ms: int) -> str:
    """An instant as people read it in a panel: UTC, whole seconds."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
