"""Reads of a stream's entries as events: each belongs to the bucket of its entry id's time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from app.documents.schema import Strict
from app.model import Frame, Parts, TimeRange, Times, Values
from app.sources.redis.aggregation import PARTS, Rows, ValueSpec, aggregate_rows
from app.sources.redis.connections import Reply
from app.sources.redis.parse import Cell, pairs, text
from app.sources.redis.reads import ReadContext, Text, expect_reply, frame_from_runs, group_rows

Entry = Mapping[bytes, bytes]


class Not(Strict):
    """Any value except these."""

    none_of: tuple[Text, ...] = Field(min_length=1)


#: Field -> the values that it may have: a list, or `{none_of: [...]}`. All fields must match; a missing field is an empty text.
Match = dict[str, tuple[Text, ...] | Not]


def matches_entry(match: Match, entry: Entry) -> bool:
    """True where every field of the match fits the entry."""
    for field, wanted in match.items():
        value = text(entry.get(field.encode()))
        fits = value not in wanted.none_of if isinstance(wanted, Not) else value in wanted
        if not fits:
            return False
    return True


class Share(Strict):
    """The share of entries matching `of` in those matching `among` (default: all), times `scale`."""

    of: Match
    among: Match = Field(default_factory=dict)
    scale: float = 100.0


@dataclass(frozen=True, slots=True)
class Events:
    """Stream entries and the epoch ms of each."""

    time: Times
    entries: Sequence[Entry]

    def where(self, keep: Sequence[int]) -> Events:
        """Only the events at these indices."""
        return Events(self.time[list(keep)], [self.entries[place] for place in keep])


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
        """One pipeline: the entries, and where the stream begins."""
        key, whole = context.key(self.stream), context.statement.range
        found, info = await context.connections.ask(
            [("XREVRANGE", key, whole.to_ms - 1, whole.from_ms, "COUNT", context.max_rows + 1), ("XINFO", "STREAM", key)],
            missing=("no such key",),
        )
        with expect_reply(context.statement.source, "XREVRANGE and XINFO"):
            events, covers_from_ms = _complete_part(
                _events_of(found[: context.max_rows]), info, whole, len(found) > context.max_rows
            )
        events = events.where([place for place, entry in enumerate(events.entries) if self._is_counted(entry)])
        return self._frame_of_events(events, covers_from_ms, context)

    def _is_counted(self, entry: Entry) -> bool:
        return matches_entry(self.match, entry) and (not self.ratio_of or matches_entry(self.ratio_of.among, entry))

    @property
    def given_parts(self) -> Parts | None:
        """Events can be counted in parts."""
        return PARTS.get(self.aggregate, "none")

    def _frame_of_events(self, events: Events, covers_from_ms: int | None, context: ReadContext) -> Frame:
        cells = _field_columns(events.entries, [self.word(label) for label in context.used_labels])
        labels = {label: [text(cell) for cell in cells[self.word(label)]] for label in context.used_labels}
        where = group_rows(labels, len(events.entries), context.statement.labels, context.statement.where)
        events = events.where(where.keep.tolist())
        cells = _field_columns(events.entries, (*self.fields, *([self.same] if self.same else [])))
        known, remarks = self.parse_fields(cells, self.stream)
        unlike, differ = self.find_unlike(cells, where, self.stream)
        above, below = self._shares_or_values(events, known)
        buckets = context.statement.range.bucket(events.time)
        rows = Rows(buckets, where.place, np.where(unlike, np.nan, above), below)
        return frame_from_runs(
            aggregate_rows(rows, where.label_sets, self.aggregation_rule(context)), remarks + differ, covers_from_ms
        )

    def _shares_or_values(self, events: Events, known: Mapping[str, Values]) -> tuple[Values, Values]:
        count = len(events.entries)
        if not self.ratio_of:
            return self.value_sides(known, count, events.time)
        share = np.array([matches_entry(self.ratio_of.of, entry) for entry in events.entries], dtype=np.float64)
        return share * self.ratio_of.scale, np.ones(count)

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every value form; a share has no other form beside it."""
        yield from super().problems()
        if self.ratio_of and (self.aggregate != "ratio" or self.value or self.fields):
            yield "ratio_of", "needs `aggregate: ratio` and no value, field, age_of or ratio beside it"

    @property
    def _is_share(self) -> bool:
        return self.ratio_of is not None


def _events_of(found: Sequence[Reply]) -> Events:
    times = np.array([int(entry_id.partition(b"-")[0]) for entry_id, _ in found], dtype=np.int64)
    return Events(times, [pairs(flat) for _, flat in found])


def _complete_part(events: Events, info: Reply, whole: TimeRange, is_cut: bool) -> tuple[Events, int | None]:
    """The events from the instant from which the answer is complete, and that instant; None where the whole range is complete.

    Where there were too many entries the newest are here, and some of the oldest one's millisecond may be missing.
    """
    begins_ms = _begins_ms(info)
    if is_cut:
        begins_ms = max(begins_ms, int(events.time.min()) + 1)
    if begins_ms <= whole.from_ms:
        return events, None
    return events.where(np.flatnonzero(events.time >= begins_ms).tolist()), begins_ms


def _field_columns(entries: Sequence[Entry], fields: Sequence[str]) -> dict[str, list[Cell]]:
    return {field: [entry.get(field.encode()) for entry in entries] for field in fields}


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
