"""What an index leads to: its members, their hashes, and the label sets that exist without any hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from app.model import Labels, Notice, Times, Values, instant_text
from app.sources.base import Name, Strict
from app.sources.redis_parse import Cell, text
from app.sources.redis_reads import ID, Asking, cut, placed
from app.sources.redis_wire import Command, Reply

Run = tuple[Labels, Times, Values]


@dataclass(frozen=True, slots=True)
class Hashes:
    """Hashes by their ids, and the fields of them that are needed. Without a field only their existence is asked for."""

    template: str
    ids: Sequence[bytes]
    fields: tuple[str, ...]

    def commands(self, asking: Asking) -> list[Command]:
        """One command for each hash."""
        keys = [asking.key(self.template, ident) for ident in self.ids]
        return [("HMGET", key, *self.fields) for key in keys] if self.fields else [("EXISTS", key) for key in keys]

    def found(self, replies: Sequence[Reply]) -> Found:
        """The hashes that are there; one that has none of the fields counts as deleted."""
        if not self.fields:
            rows = [row for row, exists in enumerate(replies) if exists]
        else:
            rows = [row for row, cells in enumerate(replies) if any(cell is not None for cell in cells)]
        columns = {field: [replies[row][place] for row in rows] for place, field in enumerate(self.fields)}
        return Found(rows, {**columns, ID: [self.ids[row] for row in rows]})


@dataclass(frozen=True, slots=True)
class Found:
    """The rows (places in the ids) of hashes that exist, and a column of cells for each field and for the id."""

    rows: Sequence[int]
    cells: dict[str, list[Cell]]


@dataclass(frozen=True, slots=True)
class Members:
    """What an index holds: ids, and their scores where these are the times of events; it is complete from `since_ms` on."""

    ids: list[bytes]
    scores: Times
    since_ms: int
    notices: tuple[Notice, ...] = ()

    def where(self, keep: Sequence[int]) -> Members:
        """Only the members at these places."""
        scores = self.scores[list(keep)] if len(self.scores) else self.scores
        return replace(self, ids=[self.ids[place] for place in keep], scores=scores)

    def trimmed(self, index: str, keeps_s: int, now_ms: int, step_ms: int) -> Members:
        """Only the members of buckets that are younger than the index keeps its members."""
        begins_ms = now_ms - keeps_s * 1000
        if begins_ms <= self.since_ms:
            return self
        since_ms = -(-begins_ms // step_ms) * step_ms
        notice = Notice("info", f"{index} keeps {keeps_s}s; buckets before {instant_text(since_ms)} are left out")
        kept = self.where(np.flatnonzero(self.scores >= since_ms).tolist())
        return replace(kept, since_ms=since_ms, notices=(*self.notices, notice))


def members_of(index: str, reply: Reply, scored: bool, asking: Asking) -> Members:
    """The index's reply as members, the newest `max_members` of them."""
    limit, since_ms = asking.max_members, asking.statement.range.from_ms
    if scored:
        ids, scores = reply[::2], np.array([float(score) for score in reply[1::2]]).astype(np.int64)
        kept = Members(ids[:limit], scores[:limit], since_ms)
    else:
        ids = reply
        kept = Members(ids[-limit:], np.empty(0, np.int64), since_ms)
    return kept if len(ids) <= limit else replace(kept, notices=(cut(index, limit, "max_members"),))


class Zeros(Strict):
    """Where to find label sets that exist although no hash may have them just now. Labels that are hash fields need `hash`."""

    index: str
    hash: str = ""
    labels: dict[Name, str] = Field(min_length=1)

    def covered(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Those of the labels that are known here."""
        return tuple(label for label in labels if label in self.labels)

    def hashes(self, asking: Asking, ids: Sequence[bytes]) -> Hashes | None:
        """The hashes to read for the labels in use; None where the ids alone say it."""
        words = (self.labels[label] for label in self.covered(asking.used_labels))
        fields = tuple(dict.fromkeys(word for word in words if word != ID))
        return Hashes(self.hash, ids, fields) if fields else None

    def label_sets(self, asking: Asking, ids: Sequence[bytes], hashes: Hashes | None, replies: Sequence[Reply]) -> list[Labels]:
        """The label sets; none where a label that is kept is not known here. Filters on such labels cannot empty a zero."""
        asked = asking.statement
        if set(asked.labels) - set(self.labels):
            return []
        found = hashes.found(replies) if hashes else Found(range(len(ids)), {ID: list(ids)})
        filters = tuple(matcher for matcher in asked.where if matcher.label in self.labels)
        columns = {label: [text(cell) for cell in found.cells[self.labels[label]]] for label in self.covered(asking.used_labels)}
        return placed(columns, len(found.rows), asked.labels, filters).label_sets


def with_zeros(runs: Sequence[Run], label_sets: Sequence[Labels], buckets: Times) -> list[Run]:
    """The runs, with 0 in every bucket where one of these label sets has nothing."""
    filled = {labels: (times, values) for labels, times, values in runs}
    for labels in label_sets:
        values = np.zeros(len(buckets))
        if labels in filled:
            times, found = filled[labels]
            values[np.searchsorted(buckets, times)] = found
        filled[labels] = (buckets, values)
    return [(labels, times, values) for labels, (times, values) in filled.items()]
