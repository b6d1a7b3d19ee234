"""Kept answers: bounded by bytes and entries, found by their question or by its shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

from app.model import Frame, Notice, Statement, TimeRange, instant_text

#: what an entry costs beside its columns: key, statement's texts, the index
_ENTRY_BYTES = 1500


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer, the window it answers for, and until when it is fresh."""

    statement: Statement
    frame: Frame
    size_bytes: int

    @property
    def range(self) -> TimeRange:
        """The window."""
        return self.statement.range

    @property
    def fresh_to_ms(self) -> int:
        """Until when it is fresh."""
        return self.frame.fresh_to_ms or 0


class Answers:
    """The answers used longest ago go first when there are more than `most_entries` or `most_bytes`."""

    def __init__(self, most_bytes: int, most_entries: int) -> None:
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._shapes: dict[Hashable, dict[Hashable, Kept]] = {}
        self.size_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept.values())

    def get(self, key: Hashable) -> Kept | None:
        """The answer to exactly this question. Equal keys, not equal hashes: a collision is no hit."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def put(self, statement: Statement, frame: Frame, now_ms: int) -> None:
        """Keep an answer. What it supersedes (older windows of the same sliding range) goes, and what there is no room for."""
        # A caller's filters are as long as his body may be.
        asked = sum(len(value) + 50 for matcher in statement.where for value in matcher.values)
        size = frame.size_bytes + asked + _ENTRY_BYTES
        if size > self._most_bytes // 4:
            return  # one answer must not push out all others
        # The read is the catalogue's model; keeping answers must not keep it, or the asker's own wishes, alive.
        kept, key = Kept(replace(statement, read=None), frame, size), statement.key
        self._drop(key)
        self._supersede(kept, now_ms)
        self._kept[key] = kept
        self._shapes.setdefault(statement.shape, {})[key] = kept
        self.size_bytes += size
        while self._kept and (self.size_bytes > self._most_bytes or len(self._kept) > self._most_entries):
            self._drop(next(iter(self._kept)))
            self.evicted += 1

    def older(self, statement: Statement, asked_after_ms: int, now_ms: int) -> Kept | None:
        """The answer that stands in best: of this shape, asked late enough and not after now, covering most of the window.

        A live answer whose one bucket has passed covers nothing of the window and still stands in: it is the last that is known.
        """
        asked = statement.range
        reach_ms = max(statement.now_ms - asked_after_ms, 0) + asked.step_ms
        usable = [
            kept
            for kept in self.shaped(statement)
            if asked_after_ms <= kept.frame.asked_ms <= now_ms
            and kept.range.from_ms < asked.to_ms
            and kept.range.to_ms > asked.from_ms - reach_ms
        ]
        return max(usable, key=lambda kept: (_overlap(kept.range, asked), kept.range.to_ms, kept.frame.asked_ms), default=None)

    def shaped(self, statement: Statement) -> Iterable[Kept]:
        """The answers of this shape, whatever their window."""
        return self._shapes.get(statement.shape, {}).values()

    def drop_shape(self, statement: Statement) -> None:
        """Forget the answers of this shape."""
        for kept in list(self.shaped(statement)):
            self._drop(kept.statement.key)

    def _supersede(self, newer: Kept, now_ms: int) -> None:
        slack_ms = 2 * newer.range.step_ms
        for kept in list(self.shaped(newer.statement)):
            moved_ms = newer.range.to_ms - kept.range.to_ms
            same_length = abs(_length_ms(newer.range) - _length_ms(kept.range)) <= slack_ms
            if kept.fresh_to_ms <= now_ms and moved_ms >= 0 and same_length and _overlap(kept.range, newer.range) >= 0:
                self._drop(kept.statement.key)

    def _drop(self, key: Hashable) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is None:
            return
        self.size_bytes -= dropped.size_bytes
        shape = dropped.statement.shape
        del self._shapes[shape][key]
        if not self._shapes[shape]:
            del self._shapes[shape]


def _length_ms(span: TimeRange) -> int:
    return span.to_ms - span.from_ms


def _overlap(one: TimeRange, other: TimeRange) -> int:
    """Milliseconds in common; below zero when there is a gap between them."""
    return min(one.to_ms, other.to_ms) - max(one.from_ms, other.from_ms)


def as_stale(kept: Kept, statement: Statement, reason: str) -> Frame:
    """A kept answer as one that stands in for a newer one: it says why, what it covers, and keeps its own clock."""
    frame, ends_ms = kept.frame, kept.range.to_ms
    if kept.range.from_ms > statement.range.from_ms + statement.range.step_ms:
        since = f"{statement.source}: nothing before {instant_text(kept.range.from_ms)} is kept"
        frame = frame.remark(Notice("warning", since))
    ends_ms = min(ends_ms, frame.asked_ms // statement.range.step_ms * statement.range.step_ms + statement.range.step_ms)
    covers_ms = frame.covers_to_ms
    if ends_ms < statement.range.to_ms:
        covers_ms = min(ends_ms, covers_ms) if covers_ms is not None else ends_ms
    return replace(frame, covers_to_ms=covers_ms, fresh_to_ms=None, stale=reason)
