"""Reads of a stream's entries as events: each belongs to the bucket of its entry id's time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

import numpy as np
import orjson
from pydantic import Field

from app.cooperative import run_apart
from app.documents.schema import Strict
from app.model import Flags, Frame, Indices, Parts, Times, Values
from app.sources.redis.aggregation import PARTS, Rows, aggregate_rows
from app.sources.redis.columns import ValueColumns, join_pieces, pick_rows
from app.sources.redis.connections import Command, Reply
from app.sources.redis.parse import Cell, Texts, pairs, text
from app.sources.redis.reads import Grouped, Grouping, ReadContext, Text, expect_reply
from app.sources.redis.rounds import COMMAND_CELLS, Slices, ask_in_rounds, slice_evenly
from app.sources.redis.values import ValueSpec

#: Entries of one round, about two megabytes of replies.
_ROUND_ENTRIES = 2_000
_NO_TIMES: Times = np.empty(0, np.int64)
_NO_INDICES: Indices = np.empty(0, np.intp)


class Not(Strict):
    """Any value except these."""

    none_of: tuple[Text, ...] = Field(min_length=1)


#: Field -> the values that it may have: a list, or `{none_of: [...]}`. All fields must match; a missing field is an empty text.
Match = dict[str, tuple[Text, ...] | Not]


def match_rows(match: Match, cells: Mapping[str, Sequence[Cell]], count: int) -> Flags:
    """The rows in which every field of the match fits. Each distinct value is compared once."""
    found = np.ones(count, dtype=np.bool_)
    for field, wanted in match.items():
        fits = {cell: _fits(wanted, text(cell)) for cell in set(cells[field])}
        found &= np.fromiter(map(fits.__getitem__, cells[field]), np.bool_, count)
    return found


def _fits(wanted: tuple[Text, ...] | Not, value: str) -> bool:
    return value not in wanted.none_of if isinstance(wanted, Not) else value in wanted


class Share(Strict):
    """The share of entries matching `of` in those matching `among` (default: all), times `scale`."""

    of: Match
    among: Match = Field(default_factory=dict)
    scale: float = 100.0


class EventsRead(ValueSpec):
    """A stream's entries over a range: counted, or a field of theirs aggregated, per bucket and label set.

    live: {source: rtrs, read: events, stream: trade_results, match: {event: [execution]}, labels: {broker: broker_id},
           field: execution_latency_ms, scale: 0.001, aggregate: quantile, quantile: 0.95}
    live: {source: rtrs, read: events, stream: trade_results, match: {retcode: [10009, 10010]}, value: count, aggregate: rate}
    live: {source: rtrs, read: events, stream: trade_results, aggregate: ratio, labels: {broker: broker_id},
           ratio_of: {of: {retcode: {none_of: [0, 10008, 10009, 10010, 10025]}}, among: {event: [execution, reject]}}}

    `rate` is the count per second; the open bucket is divided by its elapsed part. `age_of` is the entry's own time minus that
    field. A bucket without entries has no point. Where the stream was trimmed, or the range has more than `max_rows` entries, the
    frame says from when on it has everything (`covers_from_ms`).
    """

    read: Literal["events"] = "events"
    stream: str
    match: Match = Field(default_factory=dict)
    ratio_of: Share | None = None

    async def answer(self, context: ReadContext) -> Frame:
        """The entries and where the stream begins, in one pipeline; a large stream comes in several, the newest entries first."""
        table = _EventTable(self, context)
        await ask_in_rounds(context.connections, table, missing=("no such key",))
        return await run_apart(table.build_frame, table.size)

    def is_counted(self, cells: Mapping[str, Sequence[Cell]], count: int) -> Flags:
        """The entries that are counted."""
        found = match_rows(self.match, cells, count)
        return found & match_rows(self.ratio_of.among, cells, count) if self.ratio_of else found

    @property
    def read_fields(self) -> set[str]:
        """The fields that the value needs, its matches included."""
        share = {*self.ratio_of.of, *self.ratio_of.among} if self.ratio_of else set()
        return {*self.fields, *self.match, *share, *([self.same] if self.same else [])}

    @property
    def given_parts(self) -> Parts | None:
        """Events can be counted in parts."""
        return PARTS.get(self.aggregate, "none")

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every value form; a share has no other form beside it."""
        yield from super().problems()
        if self.ratio_of and (self.aggregate != "ratio" or self.value or self.fields):
            yield "ratio_of", "needs `aggregate: ratio` and no value, field, age_of or ratio beside it"

    @property
    def _is_share(self) -> bool:
        return self.ratio_of is not None


class _EventTable:
    """The entries that pass the filters, as columns. `Rounds` of an asking: each goes back from where the last one ended."""

    def __init__(self, read: EventsRead, context: ReadContext) -> None:
        self._read = read
        self._context = context
        self._words = {label: read.word(label) for label in context.used_labels}
        self._fields = sorted(read.read_fields.union(self._words.values()))
        self._grouping = Grouping(context.statement.labels, context.statement.where)
        self._columns = ValueColumns(read)
        self._texts = Texts()
        self._time: list[Times] = []
        self._place: list[Indices] = []
        self._share: list[Values] = []
        #: entries asked for in this round, come in all, handled, and the time of the oldest of those
        self._asked = self.size = self._handled = self._oldest_ms = 0
        self._begins_ms = 0

    def next_commands(self, replies: Sequence[Reply]) -> Sequence[Command]:
        """The entries before those that have come."""
        whole = self._context.statement.range
        if not replies:
            return self._commands(f"{whole.to_ms - 1}")
        with self._expect_reply():
            self.size += len(replies[0])
            if len(replies[0]) < self._asked or self.size > self._context.max_rows:
                return ()
            return self._commands(_entry_before(replies[0][-1][0]))

    def _commands(self, newest: str) -> Sequence[Command]:
        key, begin_ms = self._context.key(self._read.stream), self._context.statement.range.from_ms
        self._asked = min(_ROUND_ENTRIES, self._context.max_rows + 1 - self.size)
        # Where the stream begins is asked with each round: entries that are trimmed meanwhile are not taken for none.
        return [("XREVRANGE", key, newest, begin_ms, "COUNT", self._asked), ("XINFO", "STREAM", key)]

    def take_replies(self, replies: Sequence[Reply]) -> Slices:
        """Handle the entries of one round. One more than `max_rows` says only that there are more."""
        with self._expect_reply():
            self._begins_ms = _begins_ms(replies[1])
            found = replies[0][: self._context.max_rows - self._handled]
            cells = len(found[0][1]) // 2 + COMMAND_CELLS if found else 0
        for part in slice_evenly(len(found), cells):
            with self._expect_reply():
                self._take_slice(found[part])
            yield cells * (part.stop - part.start)

    def _take_slice(self, found: Sequence[Reply]) -> None:
        times = _entry_times([entry_id for entry_id, _ in found])
        self._handled, self._oldest_ms = self._handled + len(found), int(times[-1])
        cells = _field_columns([flat for _, flat in found], self._fields)
        counted = np.flatnonzero(self._read.is_counted(cells, len(found)) & (times >= self._begins_ms))
        cells = pick_rows(cells, counted)
        labels = {label: self._texts.read_column(cells[word]) for label, word in self._words.items()}
        keep, place = self._grouping.group_piece(labels, len(counted))
        cells = pick_rows(cells, keep)
        self._time.append(times[counted][keep])
        self._place.append(place)
        self._columns.add_piece(cells)
        if share := self._read.ratio_of:
            self._share.append(np.where(match_rows(share.of, cells, len(keep)), share.scale, 0.0))

    def build_frame(self) -> Frame:
        """What has come, as a frame."""
        where, times, covers_from_ms = self._complete_part()
        columns, read = self._columns, self._read
        unlike, differ = columns.find_unlike(where, read.stream)
        above, below = join_pieces(self._share), np.ones(len(times))
        if not read.ratio_of:
            above, below = read.value_sides(columns.known_values(), len(times), times)
        buckets = self._context.statement.range.bucket(times)
        rows = Rows(buckets, where.place, np.where(unlike, np.nan, above), below)
        remarks, rule = columns.odd_remarks(read.stream) + differ, read.aggregation_rule(self._context)
        return aggregate_rows(rows, where.label_sets, rule, remarks, covers_from_ms=covers_from_ms)

    def _complete_part(self) -> tuple[Grouped, Times, int | None]:
        """The entries from the instant from which the answer is complete, their times, and that instant; None where the whole
        range is complete.

        Where there were too many entries the newest are here, and some of the oldest one's millisecond may be missing.
        """
        times, place = np.concatenate((_NO_TIMES, *self._time)), np.concatenate((_NO_INDICES, *self._place))
        begins_ms = self._begins_ms
        if self.size > self._context.max_rows:
            begins_ms = max(begins_ms, self._oldest_ms + 1)
        where = Grouped(np.arange(len(place)), place, self._grouping.label_sets())
        if begins_ms <= self._context.statement.range.from_ms:
            return where, times, None
        whole = times >= begins_ms
        self._columns.keep_rows(whole)
        self._share = [join_pieces(self._share)[whole]] if self._share else []
        return replace(where, place=place[whole]), times[whole], begins_ms

    def _expect_reply(self) -> AbstractContextManager[None]:
        return expect_reply(self._context.statement.source, "XREVRANGE and XINFO")


def _entry_before(entry_id: bytes) -> str:
    """The greatest id below this one. `(id` would say it too, but not to a Redis before 6.2."""
    time_ms, _, sequence = entry_id.partition(b"-")
    return f"{int(time_ms)}-{int(sequence) - 1}" if int(sequence) else f"{int(time_ms) - 1}-{2**64 - 1}"


def _entry_times(entry_ids: Sequence[bytes]) -> Times:
    """The epoch ms of ids `ms-sequence`."""
    numbers = orjson.loads(b"[%b]" % b",".join(entry_ids).replace(b"-", b","))
    return np.array(numbers[::2], dtype=np.int64)


def _field_columns(entries: Sequence[Sequence[bytes]], fields: Sequence[str]) -> Mapping[str, Sequence[Cell]]:
    """A column of cells for each field. Entries are flat lists of names and values. Raises ValueError for an odd one."""
    if any(length % 2 for length in set(map(len, entries))):
        raise ValueError("a name without a value")
    places = {name: 2 * place for place, name in enumerate(entries[0][::2])} if entries else {}
    by_name: list[dict[bytes, bytes]] = []
    columns = dict[str, Sequence[Cell]]()
    for field in fields:
        key = field.encode()
        column = _column_at(entries, places.get(key, 0), key)
        if column is None:
            by_name = by_name or [pairs(entry) for entry in entries]
            column = [entry.get(key) for entry in by_name]
        columns[field] = column
    return columns


def _column_at(entries: Sequence[Sequence[bytes]], place: int, key: bytes) -> list[Cell] | None:
    """The values behind the name at this place of every entry; None where some entry has another name there."""
    try:
        if [entry[place] for entry in entries].count(key) == len(entries):
            return [entry[place + 1] for entry in entries]
    except IndexError:
        pass
    return None


def _begins_ms(info: Reply) -> int:
    """Start of the untrimmed part of the stream, epoch ms; 0 if it was never trimmed.

    A Redis before 7.0 does not count the entries added: there the stream is certainly complete only from its first entry on.
    """
    known: dict[bytes, Reply] = pairs(info) if info else {}
    if not known or known.get(b"entries-added", math.inf) <= known[b"length"]:
        return 0
    first = known[b"first-entry"]
    entry_id: bytes = first[0] if first else known[b"last-generated-id"]
    time_ms, _, sequence = entry_id.partition(b"-")
    # Entries of the same millisecond may have been trimmed before it.
    return int(time_ms) + (0 if first and int(sequence or 0) == 0 else 1)
