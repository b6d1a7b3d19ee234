"""What all Redis reads share: their context, the way from an index to its members and hashes, and the grouping of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator

from app.errors import SourceGarbled, SourceRejected
from app.filters import accepts_all
from app.model import (
    NO_REMARKS,
    Flags,
    Frame,
    Indices,
    Labels,
    Matcher,
    Remarks,
    Statement,
    Times,
    Values,
    gap_remark,
)
from app.sources.base import Ask, Read
from app.sources.redis.connections import Command, Reply
from app.sources.redis.link import Session

#: The word that stands for the id itself where a hash field is expected.
ID = "$id"

#: Text where YAML may give a number: `retcode: [10009, 10010]`.
Text = Annotated[str, BeforeValidator(lambda raw: str(raw) if isinstance(raw, int | float) else raw)]


@dataclass(frozen=True, slots=True)
class ReadContext:
    """One statement, and what its source provides to answer it."""

    statement: Statement
    connections: Session
    prefix: str
    max_members: int
    max_rows: int

    @property
    def used_labels(self) -> tuple[str, ...]:
        """The labels of the answer and of its filters."""
        return tuple(dict.fromkeys((*self.statement.labels, *(matcher.label for matcher in self.statement.where))))

    @property
    def open_ms(self) -> int:
        """The start of the range's last bucket: a read of the present gives its points this time."""
        return self.statement.range.bucket_ms(self.statement.range.to_ms - 1)

    def key(self, template: str, ident: bytes = b"") -> bytes:
        """The key of a template for one id. Only `{id}` is replaced, so a template may have hash tags."""
        return self.full_template(template).replace(b"{id}", ident)

    def full_template(self, template: str) -> bytes:
        """The template with the source's prefix."""
        return (self.prefix + template).encode()

    def bucket_seconds(self, buckets: Times) -> Values:
        """How long each bucket has lasted: its step, or up to now for the open one (a second at least)."""
        lasted = np.full(len(buckets), self.statement.range.step_ms / 1000)
        if self.statement.now_ms:
            lasted = np.minimum(lasted, np.maximum(self.statement.now_ms - buckets, 1000) / 1000)
        return lasted


class KeyRead(Read):
    """A read of Redis keys. Keys are templates: `{id}` stands for a member of the index; the source's `prefix` comes first."""

    read: str

    def statement(self, ask: Ask) -> Statement:
        """The Statement. Its text is the whole read; labels and filters are fields of their own."""
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

    async def answer(self, context: ReadContext) -> Frame:
        """Ask Redis and build the frame. Raises SourceError."""
        raise NotImplementedError  # pragma: no cover


@dataclass(frozen=True, slots=True)
class Grouped:
    """The rows that pass the filters, and for each of them the index of its label set."""

    keep: Indices
    place: Indices
    label_sets: list[Labels]

    def only_in_group(self, rows: Flags) -> Flags:
        """The given rows whose label set has no other rows."""
        every, some = (np.bincount(found, minlength=len(self.label_sets)) for found in (self.place, self.place[rows]))
        found: Flags = rows & (every == some)[self.place]
        return found


@contextmanager
def expect_reply(source: str, command: str) -> Iterator[None]:
    """For code that takes a reply apart, and nothing else. Raises SourceGarbled where the reply has an unexpected form."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as odd:
        raise SourceGarbled(source, f"answered {command} with something else than Redis does") from odd


class Grouping:
    """Rows that come in pieces: each piece is filtered, and each row put to its label set.

    A filter is evaluated once for each distinct combination of labels.
    """

    def __init__(self, by: Sequence[str], where: Sequence[Matcher]) -> None:
        self._by = sorted(set(by))
        self._tested = list(dict.fromkeys(matcher.label for matcher in where))
        self._accepts = accepts_all(where)
        self._verdicts: dict[tuple[str, ...], bool] = {}
        self._sets: dict[tuple[str, ...], int] = {}

    def group_piece(self, labels: Mapping[str, Sequence[str]], count: int) -> tuple[Indices, Indices]:
        """The rows of the piece that the filters accept, and for each of them the index of its label set. `labels` has a column
        for each label."""
        keep = self._accepted_rows(labels, count)
        rows = list(zip(*(labels[name] for name in self._by), strict=True)) if self._by else [()] * count
        kept = rows if len(keep) == count else [rows[row] for row in keep.tolist()]
        sets = self._sets
        for row in dict.fromkeys(kept):
            sets.setdefault(row, len(sets))
        return keep, np.fromiter(map(sets.__getitem__, kept), np.intp, len(kept))

    def label_sets(self) -> list[Labels]:
        """The label sets of all pieces so far, by their indices."""
        return [tuple(zip(self._by, values, strict=True)) for values in self._sets]

    def _accepted_rows(self, labels: Mapping[str, Sequence[str]], count: int) -> Indices:
        if not self._tested:
            return np.arange(count)
        rows = list(zip(*(labels[name] for name in self._tested), strict=True))
        for row in set(rows) - self._verdicts.keys():
            self._verdicts[row] = self._accepts(dict(zip(self._tested, row, strict=True)))
        return np.flatnonzero(np.fromiter(map(self._verdicts.__getitem__, rows), np.bool_, count))


def group_rows(labels: Mapping[str, Sequence[str]], count: int, by: Sequence[str], where: Sequence[Matcher]) -> Grouped:
    """The rows that the filters accept, grouped by their values of the `by` labels. `labels` has a column for each label."""
    grouping = Grouping(by, where)
    keep, place = grouping.group_piece(labels, count)
    return Grouped(keep, place, grouping.label_sets())


def unparsed_remark(pattern: str, field: str, count: int) -> Remarks:
    """The remark on values that are no number or time: where and how many, never which.

    They make a figure partial even if it has no other values: a null by itself means "known to have no value", and no alert rule
    reports it.
    """
    return gap_remark(f"{pattern}: {field} does not parse {count} times; shown as null") if count else NO_REMARKS


def truncated_remark(what: str, limit: int, name: str) -> Remarks:
    """The remark on something that was longer than its limit."""
    return gap_remark(f"{what}: more than {limit} found; only the newest {limit} are shown ({name})")


@dataclass(frozen=True, slots=True)
class Members:
    """The content of an index: ids, with their scores where these are times of events. It is complete from `since_ms` on."""

    ids: list[bytes]
    scores: Times
    since_ms: int
    remarks: Remarks = NO_REMARKS

    def where(self, keep: Sequence[int]) -> Members:
        """Only the members at these indices."""
        scores = self.scores[list(keep)] if len(self.scores) else self.scores
        return replace(self, ids=[self.ids[place] for place in keep], scores=scores)

    def trim_to(self, keeps_s: int, now_ms: int) -> Members:
        """Only the members younger than `keeps_s`, up to which age the index is complete."""
        begins_ms = now_ms - keeps_s * 1000
        if begins_ms <= self.since_ms:
            return self
        kept = self.where(np.flatnonzero(self.scores >= begins_ms).tolist())
        return replace(kept, since_ms=begins_ms)


def union_command(key: bytes) -> Command:
    """A union of one key, which reads sets and zsets alike; for `ask_indexes`."""
    return ("ZUNION", 1, key)


async def ask_indexes(context: ReadContext, commands: Sequence[Command]) -> list[Reply]:
    """The replies. A Redis before 6.2 does not know unions: there a second pipeline reads the indexes. Raises SourceError."""
    replies = await context.connections.ask(commands, missing=("unknown command",))
    unknown = [place for place, reply in enumerate(replies) if reply is None]
    unions = [commands[place][2] for place in unknown if commands[place][0] == "ZUNION"]
    if len(unions) < len(unknown):
        await context.connections.ask(commands)  # raises the error of that command
    asked: list[Command] = [command for key in unions for command in (("ZRANGE", key, 0, -1), ("SMEMBERS", key))]
    found = await context.connections.ask(asked, missing=("WRONGTYPE",))
    for place, in_order, unordered in zip(unknown, found[::2], found[1::2], strict=True):
        if in_order is None and unordered is None:
            raise SourceRejected(context.statement.source, "WRONGTYPE: an index that is neither a set nor a zset")
        replies[place] = sorted(unordered) if in_order is None else in_order
    return replies


def members_of(index: str, reply: Reply, scored: bool, context: ReadContext) -> Members:
    """The index's reply as members, the newest `max_members` of them."""
    limit, since_ms = context.max_members, context.statement.range.from_ms
    with expect_reply(context.statement.source, "the asking for an index"):
        if scored:
            return _dated_members(reply[::2], [float(score) for score in reply[1::2]], limit, since_ms)
        kept = Members(reply[-limit:], np.empty(0, np.int64), since_ms)
        return kept if len(reply) <= limit else replace(kept, remarks=truncated_remark(index, limit, "max_members"))


def _dated_members(ids: list[bytes], scores: Sequence[float], limit: int, since_ms: int) -> Members:
    """The newest members. Where there are too many, the oldest remaining millisecond is left out: it may be incomplete."""
    times = np.array(scores).astype(np.int64)
    if len(ids) <= limit:
        return Members(ids, times, since_ms)
    since_ms = int(times[limit - 1]) + 1
    return Members(ids, times, since_ms).where(np.flatnonzero(times >= since_ms).tolist())
