"""The answers of one source in memory: how long they are good; bounded by bytes and entries, found by question or by shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from app.clock import instant_text
from app.model import Frame, Notice, Statement, TimeRange
from app.policies.settings import Policy

#: memory of an entry beside its columns: the key, the statement's texts, the index
_ENTRY_BYTES = 1500


class CacheAges(NamedTuple):
    """How long answers are fresh, how long they may stand in, and how long their newest buckets may still change."""

    fresh_s: float
    stale_s: float
    volatile_s: float


def cache_ages(statement: Statement, policy: Policy) -> CacheAges:
    """The metric's own cache times, and the policy's for the others."""
    own = statement.cache
    return CacheAges(
        policy.fresh_s if own.fresh_s is None else own.fresh_s,
        policy.stale_s if own.stale_s is None else own.stale_s,
        policy.volatile_s if own.volatile_s is None else own.volatile_s,
    )


@dataclass(frozen=True, slots=True)
class CachedFrame:
    """One answer and the question that it answers."""

    statement: Statement
    frame: Frame
    size_bytes: int

    @property
    def range(self) -> TimeRange:
        """The window that it answers for."""
        return self.statement.range

    @property
    def asked_ms(self) -> int:
        """When the source was asked."""
        return self.frame.provenance.asked_ms


class AnswerCache:
    """An LRU cache: above `most_entries` or `most_bytes` the least recently used answers go."""

    def __init__(self, most_bytes: int, most_entries: int) -> None:
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._kept: OrderedDict[Hashable, CachedFrame] = OrderedDict()
        self._shapes: dict[Hashable, dict[Hashable, CachedFrame]] = {}
        self.size_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[CachedFrame]:
        return iter(self._kept.values())

    def get(self, key: Hashable) -> CachedFrame | None:
        """The answer to exactly this question."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def put(self, statement: Statement, frame: Frame, now_ms: int) -> None:
        """Keep an answer. It replaces older windows of the same sliding range."""
        # A caller's filters may be as long as a request's body.
        asked = sum(len(value) + 50 for matcher in statement.where for value in matcher.values)
        size = frame.size_bytes + asked + _ENTRY_BYTES
        if size > self._most_bytes // 2:
            return  # one answer must not push out all others
        # Without its read: a cached answer must not keep an old catalogue alive.
        kept, key = CachedFrame(replace(statement, read=None), frame, size), statement.key
        self._drop_entry(key)
        self._drop_superseded(kept, now_ms)
        self._kept[key] = kept
        self._shapes.setdefault(statement.shape, {})[key] = kept
        self.size_bytes += size
        while self._kept and (self.size_bytes > self._most_bytes or len(self._kept) > self._most_entries):
            self._drop_entry(next(iter(self._kept)))
            self.evicted += 1

    def best_stand_in(self, statement: Statement, asked_after_ms: int, now_ms: int) -> CachedFrame | None:
        """The best stand-in: of this shape, asked late enough and not after now, covering most of the window.

        A live answer has one bucket. After that bucket has passed it covers nothing of the window, and it still stands in: it has
        the last values known.
        """
        asked = statement.range
        reach_ms = max(statement.now_ms - asked_after_ms, 0) + asked.step_ms
        usable = [
            kept
            for kept in self.of_shape(statement)
            if asked_after_ms <= kept.asked_ms <= now_ms
            and kept.range.from_ms < asked.to_ms
            and kept.range.to_ms > asked.from_ms - reach_ms
        ]
        return max(usable, key=lambda kept: (_overlap_ms(kept.range, asked), kept.range.to_ms, kept.asked_ms), default=None)

    def of_shape(self, statement: Statement) -> Iterable[CachedFrame]:
        """The answers of this shape, for all windows."""
        return self._shapes.get(statement.shape, {}).values()

    def drop_shape(self, statement: Statement) -> None:
        """Forget the answers of this shape."""
        for kept in list(self.of_shape(statement)):
            self._drop_entry(kept.statement.key)

    def _drop_superseded(self, newer: CachedFrame, now_ms: int) -> None:
        slack_ms = 2 * newer.range.step_ms
        for kept in list(self.of_shape(newer.statement)):
            moved_ms = newer.range.to_ms - kept.range.to_ms
            same_length = abs(_length_ms(newer.range) - _length_ms(kept.range)) <= slack_ms
            if (
                not kept.frame.provenance.is_fresh(now_ms)
                and moved_ms >= 0
                and same_length
                and _overlap_ms(kept.range, newer.range) >= 0
            ):
                self._drop_entry(kept.statement.key)

    def _drop_entry(self, key: Hashable) -> None:
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


def _overlap_ms(one: TimeRange, other: TimeRange) -> int:
    """Milliseconds in common; negative when there is a gap between them."""
    return min(one.to_ms, other.to_ms) - max(one.from_ms, other.from_ms)


def as_stale(kept: CachedFrame, statement: Statement, reason: str) -> Frame:
    """A cached answer as a stand-in for a newer one: marked with the reason and with what it covers, as old as it is."""
    frame, ends_ms = kept.frame, kept.range.to_ms
    if kept.range.from_ms > statement.range.from_ms + statement.range.step_ms:
        since = f"{statement.source}: nothing before {instant_text(kept.range.from_ms)} is kept"
        frame = frame.remark(Notice("warning", since))
    ends_ms = min(ends_ms, kept.asked_ms // statement.range.step_ms * statement.range.step_ms + statement.range.step_ms)
    covers_ms, since_ms = frame.covers_to_ms, frame.covers_from_ms
    if ends_ms < statement.range.to_ms:
        covers_ms = min(ends_ms, covers_ms) if covers_ms is not None else ends_ms
    if kept.range.from_ms > statement.range.from_ms:
        # Nobody has asked about what lies before, so its silence says nothing.
        since_ms = max(kept.range.from_ms, since_ms or 0)
    return replace(frame, covers_to_ms=covers_ms, covers_from_ms=since_ms).with_provenance(fresh_until_ms=None, stale=reason)
