"""What every kind of source shares: its duties, its limits, how a driver's errors become ours, and the meaning of a filter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

import re2
from pydantic import BaseModel, ConfigDict, Field

from app.errors import BadQuery, BridgeError, SourceCrashed, SourceError
from app.model import Fetch, Frame, Matcher, Notice, Statement, TimeRange

Name = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")]


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceConfig(Strict):
    """Where a source is and how it is reached. Each kind adds its own keys and its own `kind` literal.

    The limits are a ladder: connect <= attempt <= total (the policies hold the last two, see `policies.Policy`).
    """

    enabled: bool = True
    pool_size: int = Field(5, ge=1, le=100, description="connections held at most")
    connect_timeout_s: float = Field(1.0, gt=0, le=30)
    max_rows: int = Field(200_000, ge=1, le=5_000_000, description="rows that one statement may bring back")


@dataclass(frozen=True, slots=True)
class Ask:
    """What a read turns into a Statement: one metric over aligned buckets, the labels to keep, the filters to apply.

    `now_ms` is the request's instant, floored to the second, where the open bucket is wanted (the last one of the range, then);
    0 asks for closed buckets only.
    """

    metric: str
    range: TimeRange
    by: tuple[str, ...] = ()
    where: tuple[Matcher, ...] = ()
    now_ms: int = 0


class Read(Strict):
    """One way to read a metric from one source, as the catalogue writes it. Each kind of source has its own subclass(es).

    `labels` maps each label to the source's own word for it (a column, a hash field); a label that is not listed is read under
    its own name.
    """

    #: True when a live read can answer for a range of buckets, False when it knows only the present instant.
    ranged: ClassVar[bool] = True
    #: True when fewer buckets are less work for the source.
    spared_by_coarser: ClassVar[bool] = False

    source: Name
    labels: dict[Name, str] = Field(default_factory=dict)

    def word(self, label: str) -> str:
        """The source's own word for a label."""
        return self.labels.get(label, label)

    def statement(self, ask: Ask) -> Statement:
        """The Statement for this read; values are bound in it, never pasted."""
        raise NotImplementedError  # pragma: no cover

    @property
    def sliceable(self) -> bool:
        """True when a bucket's values are the same whatever other buckets are asked for; False where that is not certain."""
        return False

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, what is wrong and what is allowed) for mistakes that the model's types cannot see."""
        return iter(())


#: Clocks further apart than this make a live edge wrong by as much.
SKEW_LIMIT_S = 2.0


def wall_ms() -> int:
    """The clock of the bridge's own host, epoch ms, to compare a store's with."""
    return time.time_ns() // 1_000_000


def skew_s(store_ms: float, before_ms: int) -> float:
    """How far a store's clock is ahead of ours, seconds, when it was read at some moment since `before_ms`."""
    return (store_ms - (before_ms + wall_ms()) / 2) / 1000


@dataclass(frozen=True, slots=True)
class Memory:
    """What tells a server from the one that it was before: its process (run id), and how many keys it has."""

    run_id: str
    keys: int


class Source(Protocol):
    """One configured upstream. It binds values, translates its driver's errors, and makes cancellation real; nothing else.

    It contains no retry, no sleep, no cache and no lock: those are policies.
    """

    name: str

    @property
    def skew_s(self) -> float | None:
        """How far the store's clock was ahead of ours at the last ping, None where it does not tell."""

    @property
    def warning(self) -> str | None:
        """What an operator should know of a store that answers, None where all is well."""

    async def open(self) -> None:
        """Make ready to connect. A store that is down is no error here."""

    async def close(self) -> None:
        """Give every connection and thread back."""

    async def reconnect(self) -> None:
        """Let go of idle connections after an outage; those in use are dropped when their askings end."""

    async def fetch(self, statement: Statement) -> Frame:
        """Ask. Raises SourceError; when cancelled, stops the work at the store before it returns."""

    async def ping(self) -> str:
        """The cheapest question that shows the store answers; a word on what answered, its version say. Raises SourceError."""


def skew_text(source: Source) -> str | None:
    """What to say of a store whose clock is too far from ours."""
    if source.skew_s is None or abs(source.skew_s) <= SKEW_LIMIT_S:
        return None
    return f"its clock is {abs(source.skew_s):.1f}s {'ahead of' if source.skew_s > 0 else 'behind'} the bridge's"


def telling_skew(source: Source) -> Fetch:
    """The source's fetch; while its clock is off, each answer says so."""

    async def fetch(statement: Statement) -> Frame:
        frame = await source.fetch(statement)
        text = skew_text(source)
        return frame.remark(Notice("warning", f"{source.name}: {text}")) if text else frame

    return fetch


#: A driver's exception class -> the failure it is, or a function that decides from the exception.
ErrorTable = Mapping[type[BaseException], type[SourceError] | Callable[[BaseException], type[SourceError]]]


@contextmanager
def translate(source: str, table: ErrorTable) -> Iterator[None]:
    """Turn a driver's exception into ours by the most specific entry of the table; anything unlisted is a bug of ours.

    The driver's text goes into the message: tables must not list exceptions whose text carries credentials.
    """
    try:
        yield
    except BridgeError:
        raise
    except Exception as problem:
        raise _failure(table, problem)(source, first_line(problem)) from problem


def _failure(table: ErrorTable, problem: BaseException) -> type[SourceError]:
    for ancestor in type(problem).__mro__:
        found = table.get(ancestor)
        if found is not None:
            return found if isinstance(found, type) else found(problem)
    return SourceCrashed


def first_line(problem: BaseException, limit: int = 300) -> str:
    """A driver's message cut to one line that fits a panel."""
    # aiohttp says so of plain HTTP, too: people would look for TLS.
    lines = str(problem).replace(" ssl:default", "").strip().splitlines()
    return (lines[0] if lines else type(problem).__name__)[:limit]


def pattern(text: str) -> Callable[[str], bool]:
    """A compiled RE2 expression that must match the whole value. Raises BadQuery when it is not RE2."""
    try:
        options = re2.Options()
        options.log_errors = False
        compiled = re2.compile(text, options)
    except re2.error as problem:
        reason = problem.args[0].decode("utf-8", "replace") if isinstance(problem.args[0], bytes) else str(problem)
        raise BadQuery(f"filter: {text!r} is not a regular expression that RE2 accepts: {reason}") from problem
    return lambda value: compiled.fullmatch(value) is not None


def number(text: str) -> float:
    """The number a text stands for, NaN when it stands for none."""
    try:
        found = float(text)
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


_ORDER: Mapping[str, Callable[[object, object], bool]] = {
    "<": lambda left, right: left < right,  # type: ignore[operator]
    "<=": lambda left, right: left <= right,  # type: ignore[operator]
    ">": lambda left, right: left > right,  # type: ignore[operator]
    ">=": lambda left, right: left >= right,  # type: ignore[operator]
}


def accepts(matcher: Matcher) -> Callable[[str], bool]:
    """The filter as a predicate over the label's value: what every source's own dialect must agree with."""
    operand = matcher.values[0] if matcher.values else ""
    chosen = frozenset(matcher.values)
    match matcher.operator:
        case "=":
            return lambda value: value == operand
        case "!=":
            return lambda value: value != operand
        case "=|":
            return lambda value: value in chosen
        case "!=|":
            return lambda value: value not in chosen
        case "=~":
            return pattern(operand)
        case "!~":
            matches = pattern(operand)
            return lambda value: not matches(value)
        case order:
            compare, bound = _ORDER[order], number(operand)
            if math.isnan(bound):
                return lambda value: compare(value, operand)
            return lambda value: compare(number(value), bound)


def accepts_all(where: Sequence[Matcher]) -> Callable[[Mapping[str, str]], bool]:
    """All filters as one predicate over a series' labels."""
    tests = [(matcher.label, accepts(matcher)) for matcher in where]
    return lambda labels: all(test(labels.get(label, "")) for label, test in tests)
