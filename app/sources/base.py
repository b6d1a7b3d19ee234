"""What every kind of source shares: its duties, its limits, and how a driver's errors become ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self, TypeVar, runtime_checkable

from pydantic import Field

from app.documents.schema import Name, Strict
from app.errors import BridgeError, SourceCrashed, SourceError
from app.model import Fetch, Frame, Matcher, Notice, Parts, Statement, TimeRange

_log = logging.getLogger(__name__)


class SourceConfig(Strict):
    """Where a source is and how it is reached. Each kind adds its own keys and its own `kind` literal.

    The time limits are a ladder: connect <= attempt <= total. The last two are in `policies.Policy`.
    """

    enabled: bool = Field(True, description="the same as `enabled` of the source; set one of the two")
    pool_size: int = Field(5, ge=1, le=100, description="most connections to this source")
    connect_timeout_s: float = Field(1.0, gt=0, le=30, description="time limit of connecting")
    max_rows: int = Field(
        2_500_000, ge=1, le=50_000_000, description="most rows that one statement may return; before that the step is raised"
    )

    @property
    def one_process_only(self) -> bool:
        """Whether only one process at a time can have this source open."""
        return False

    def build(self, name: str) -> Source:
        """The source under its configured name."""
        raise NotImplementedError  # pragma: no cover


@dataclass(frozen=True, slots=True)
class Ask:
    """What a read turns into a Statement: one metric over aligned buckets, the labels to keep, the filters to apply.

    `now_ms` asks for the open bucket, which is the last of the range: the request's instant, floored to the second. 0 asks for
    closed buckets only.
    """

    metric: str
    range: TimeRange
    by: tuple[str, ...] = ()
    where: tuple[Matcher, ...] = ()
    now_ms: int = 0


class Read(Strict):
    """One way to read a metric from one source, as the catalogue writes it. Each kind of source has its own subclasses.

    `labels` maps each label to its name in the source (a column, a hash field). Other labels have the same name there.
    """

    #: True when a live read can answer for a range of buckets, False when it knows only the present instant.
    ranged: ClassVar[bool] = True
    #: True when fewer buckets are less work for the source.
    spared_by_coarser: ClassVar[bool] = False
    #: True when it can answer for a part of a bucket, because it reads the instants of the range and no others.
    cuts_buckets: ClassVar[bool] = False
    #: True when the source itself can thin a long series (`Statement.thin_ms`).
    thins: ClassVar[bool] = False
    #: True when it is a text in which placeholders stand for the labels and the filters.
    is_template: ClassVar[bool] = False

    source: Name
    labels: dict[Name, str] = Field(default_factory=dict)

    def word(self, label: str) -> str:
        """The label's name in the source."""
        return self.labels.get(label, label)

    def with_labels(self, labels: Iterable[str]) -> Self:
        """A template with its name for each of these labels, mapped or not: what `problems` must see. Other reads as they are."""
        if not self.is_template:
            return self
        return self.model_copy(update={"labels": {label: self.word(label) for label in (*labels, *self.labels)}})

    def statement(self, ask: Ask) -> Statement:
        """The Statement for this read; values are bound in it, never pasted."""
        raise NotImplementedError  # pragma: no cover

    @property
    def given_parts(self) -> Parts | None:
        """How the figures for two parts of one bucket become one; None where that is not known."""
        return None

    def begins_statement(self, metric: str) -> Statement | None:
        """The question from when on (epoch ms, the value of its one point) the store has data at all; None where the read does
        not know how to ask."""
        return None

    def more_statements(self, metric: str, to_ms: int) -> Iterator[Statement]:
        """Statements that its source sends in another form than `statement` says: what `bridge check` must see, too."""
        return iter(())

    @property
    def each(self) -> tuple[str, ...]:
        """The labels that keep the store's own series apart, so that it can thin each by itself; empty if that is not known."""
        return ()

    @property
    def thins_from_ms(self) -> int:
        """Thinned in stretches of multiples of this width, series of samples cost the store far less; 0 where they do not."""
        return 0

    @property
    def rolled_steps_ms(self) -> tuple[int, ...]:
        """The steps from which on the store has fewer rows to read."""
        return ()

    @property
    def gives_age(self) -> bool:
        """True when its values tell how old something is at the moment of asking."""
        return False

    @property
    def sliceable(self) -> bool:
        """True when a bucket's values are the same whatever other buckets are asked for; False where that is not certain."""
        return False

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, what is wrong and what is allowed) for mistakes that the model's types cannot see."""
        return iter(())


_R = TypeVar("_R", bound=Read)


def expect_read(statement: Statement, kind: type[_R]) -> _R:
    """The statement's read as its own source knows it: the source made the statement from it."""
    assert isinstance(statement.read, kind)  # noqa: S101  see above
    return statement.read


#: Clocks further apart than this make a live edge wrong by as much.
SKEW_LIMIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What shows that a server has restarted or lost data: its process (run id) and its number of keys; of several servers the
    ids together and the sum. `servers` are their addresses."""

    run_id: str
    keys: int
    servers: tuple[str, ...] = ()


class Source(Protocol):
    """One configured upstream. It binds values, translates its driver's errors, and makes cancellation real; nothing else.

    It has no retry, no cache and no circuit breaker: those are policies. `tests/sources/conformance` tests these duties.
    """

    name: str

    @property
    def skew_s(self) -> float | None:
        """How far the store's clock was ahead of ours at the last ping; None where that is not known."""

    @property
    def warning(self) -> str | None:
        """A problem of a store that answers, for the operator; None where all is well."""

    async def open(self) -> None:
        """Make ready to connect. A store that is down is no error here."""

    async def close(self) -> None:
        """Close every connection and end every thread. It may be called twice."""

    async def reconnect(self) -> None:
        """Close the idle connections after an outage. Those in use are closed when their fetches end."""

    async def fetch(self, statement: Statement) -> Frame:
        """Answer a statement. Raises SourceError. A cancelled fetch stops its work at the store before it returns."""

    async def ping(self) -> str:
        """Ask the cheapest question that shows that the store answers; its name and version. Raises SourceError."""


@runtime_checkable
class Explains(Protocol):
    """A source whose store can plan a statement without running it."""

    async def explain(self, statement: Statement) -> None:
        """Let the store plan the statement. Raises SourceError where it would not answer."""


def skew_text(source: Source) -> str | None:
    """The remark on a store whose clock is too far from ours; None where it is not."""
    if source.skew_s is None or abs(source.skew_s) <= SKEW_LIMIT_S:
        return None
    return f"its clock is {abs(source.skew_s):.1f}s {'ahead of' if source.skew_s > 0 else 'behind'} the bridge's"


def with_skew_notice(source: Source) -> Fetch:
    """The source's fetch. While the store's clock is off, each answer has a notice of that, and how far it is behind."""

    async def fetch(statement: Statement) -> Frame:
        frame = await source.fetch(statement)
        text = skew_text(source)
        if source.skew_s is None or text is None:
            return frame
        behind_ms = max(round(-source.skew_s * 1000), 0)
        return replace(frame.remark(Notice("warning", f"{source.name}: {text}")), behind_ms=behind_ms)

    return fetch


#: A driver's exception class -> the failure it is, or a function that decides from the exception.
ErrorTable = Mapping[type[BaseException], type[SourceError] | Callable[[BaseException], type[SourceError]]]


@contextmanager
def translate(source: str, table: ErrorTable) -> Iterator[None]:
    """Turn a driver's exception into ours by the most specific entry of the table. An exception that is not listed is our bug.

    The driver's text goes into the message, so a table must not list exceptions whose text has credentials. The text of a bug
    goes to the log only.
    """
    try:
        yield
    except BridgeError:
        raise
    except Exception as problem:
        failure = _failure_of(table, problem)
        if failure is None:
            _log.exception("%s: a bug of the bridge", source)
            text = f"a bug of the bridge ({type(problem).__name__}, its log says where); the store is not to blame"
            raise SourceCrashed(source, text) from problem
        raise failure(source, first_line(problem)) from problem


def _failure_of(table: ErrorTable, problem: BaseException) -> type[SourceError] | None:
    for ancestor in type(problem).__mro__:
        found = table.get(ancestor)
        if found is not None:
            return found if isinstance(found, type) else found(problem)
    return None


def first_line(problem: BaseException, limit: int = 300) -> str:
    """A driver's message cut to one line that fits a panel."""
    # aiohttp writes this for plain HTTP, too, and people would look for TLS.
    lines = str(problem).replace(" ssl:default", "").strip().splitlines()
    return (lines[0] if lines else type(problem).__name__)[:limit]
