"""Reads of a stream's entries as events: each belongs to the bucket of its entry id's time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from app.model import Frame, Notice, Times, Values, instant_text
from app.sources.base import Strict
from app.sources.redis_fold import Rows, fold
from app.sources.redis_parse import Cell, pairs, text
from app.sources.redis_reads import Asking, Form, Text, cut, placed, told
from app.sources.redis_wire import Reply

Entry = Mapping[bytes, bytes]


class Not(Strict):
    """Any value but these."""

    none_of: tuple[Text, ...] = Field(min_length=1)


#: Field -> the values that it may have: a list, or `{none_of: [...]}`. All fields must match; a missing field is the empty text.
Match = dict[str, tuple[Text, ...] | Not]


def matches(match: Match, entry: Entry) -> bool:
    """True where every field of the match fits the entry."""
    for field, wanted in match.items():
        value = text(entry.get(field.encode()))
        fits = value not in wanted.none_of if isinstance(wanted, Not) else value in wanted
        if not fits:
            return False
    return True


class Share(Strict):
    """The share of entries matching `of` in those matching `among` (all, where it is left out), times `scale`."""

    of: Match
    among: Match = Field(default_factory=dict)
    scale: float = 100.0


@dataclass(frozen=True, slots=True)
class Events:
    """Entries and the epoch ms of each."""

    time: Times
    entries: Sequence[Entry]

    def where(self, keep: Sequence[int]) -> Events:
        """Only the events at these places."""
        return Events(self.time[list(keep)], [self.entries[place] for place in keep])


class EventsRead(Form):
    """A stream's entries over a range: counted, or a field of theirs aggregated, per bucket and label set.

    live: {source: rtrs, read: events, stream: trade_results, match: {event: [execution]}, labels: {broker: broker_id},
           field: execution_latency_ms, scale: 0.001, aggregate: quantile, quantile: 0.95}
    live: {source: rtrs, read: events, stream: trade_results, match: {retcode: [10009, 10010]}, value: count, aggregate: rate}
    live: {source: rtrs, read: events, stream: trade_results, aggregate: ratio, labels: {broker: broker_id},
           ratio_of: {of: {retcode: {none_of: [0, 10008, 10009, 10010, 10025]}}, among: {event: [execution, reject]}}}

    `rate` is the count per second; the open bucket is divided by its elapsed part. `age_of` is the entry's own time minus that
    field. A bucket without entries has no point. Where the stream was trimmed, buckets that began before its first entry are left
    out with a remark. More than `max_rows` entries in the range are cut to the newest, with a warning.
    """

    read: Literal["events"] = "events"
    stream: str
    match: Match = Field(default_factory=dict)
    ratio_of: Share | None = None

    async def answer(self, asking: Asking) -> Frame:
        """One pipeline: the entries, and where the stream begins."""
        key, whole = asking.key(self.stream), asking.statement.range
        found, info = await asking.wire.ask(
            [("XREVRANGE", key, whole.to_ms - 1, whole.from_ms, "COUNT", asking.max_rows + 1), ("XINFO", "STREAM", key)],
            missing=("no such key",),
        )
        events, notices = self._whole_buckets(_events(found[: asking.max_rows]), info, asking)
        if len(found) > asking.max_rows:
            notices = (*notices, cut(self.stream, asking.max_rows, "max_rows"))
        events = events.where([place for place, entry in enumerate(events.entries) if self._counts(entry)])
        return self._frame(events, notices, asking)

    def _counts(self, entry: Entry) -> bool:
        return matches(self.match, entry) and (not self.ratio_of or matches(self.ratio_of.among, entry))

    def _whole_buckets(self, events: Events, info: Reply, asking: Asking) -> tuple[Events, tuple[Notice, ...]]:
        """The events of buckets that the stream still holds entirely."""
        begins_ms, whole = _begins_ms(info), asking.statement.range
        if begins_ms <= whole.from_ms:
            return events, ()
        first_whole_ms = -(-begins_ms // whole.step_ms) * whole.step_ms
        notice = Notice("info", f"{self.stream} was trimmed: it begins at {instant_text(begins_ms)}; buckets before are left out")
        return events.where(np.flatnonzero(events.time >= first_whole_ms).tolist()), (notice,)

    def _frame(self, events: Events, notices: tuple[Notice, ...], asking: Asking) -> Frame:
        cells = _columns(events.entries, (*self.fields, *(self.word(label) for label in asking.used_labels)))
        labels = {label: [text(cell) for cell in cells[self.word(label)]] for label in asking.used_labels}
        where = placed(labels, len(events.entries), asking.statement.labels, asking.statement.where)
        known, remarks = self.parsed(cells, self.stream)
        above, below = self._shares_or_values(events, known)
        step_ms = asking.statement.range.step_ms
        rows = Rows((events.time // step_ms * step_ms)[where.keep], where.place, above[where.keep], below[where.keep])
        return told(fold(rows, where.label_sets, self.rule(asking)), (*notices, *remarks))

    def _shares_or_values(self, events: Events, known: Mapping[str, Values]) -> tuple[Values, Values]:
        count = len(events.entries)
        if not self.ratio_of:
            return self.divided(known, count, events.time)
        share = np.array([matches(self.ratio_of.of, entry) for entry in events.entries], dtype=np.float64)
        return share * self.ratio_of.scale, np.ones(count)

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every form; a share has no other form beside it."""
        yield from super().problems()
        if self.ratio_of and (self.aggregate != "ratio" or self.value or self.fields):
            yield "ratio_of", "needs `aggregate: ratio` and no value, field, age_of or ratio beside it"

    @property
    def _shares(self) -> bool:
        return self.ratio_of is not None


def _events(found: Sequence[Reply]) -> Events:
    times = np.array([int(entry_id.partition(b"-")[0]) for entry_id, _ in found], dtype=np.int64)
    return Events(times, [pairs(flat) for _, flat in found])


def _columns(entries: Sequence[Entry], fields: Sequence[str]) -> dict[str, list[Cell]]:
    return {field: [entry.get(field.encode()) for entry in entries] for field in fields}


def _begins_ms(info: Reply) -> int:
    """The instant from which on the stream has every entry that it was given; 0 where none was taken away."""
    known: dict[bytes, Reply] = pairs(info) if info else {}
    if known.get(b"entries-added", 0) <= known.get(b"length", 0):
        return 0
    first = known[b"first-entry"]
    entry_id: bytes = first[0] if first else known[b"last-generated-id"]
    return int(entry_id.partition(b"-")[0]) + (0 if first else 1)
