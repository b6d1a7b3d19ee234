"""Answers kept: fresh ones served again, one asking for all who want the same, older ones, marked, when a newer cannot be had."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from app.errors import SourceError, SourceTimeout, SourceUnavailable
from app.model import Clock, Fetch, Frame, Statement
from app.policies.delta import may_be_pieced
from app.policies.store import Answers, Kept, as_stale
from app.telemetry import Telemetry

#: Askings that go on with nobody waiting, per source.
_BACKGROUND = 4
_REFRESHING = "a newer answer is being asked for"


#: Up to when (epoch ms) the newest data reach that a source has published; None for one that is asked directly.
Reaches = Callable[[], int | None]


def unpublished() -> None:
    """Of a source that is asked directly."""


class CacheNumbers(Protocol):
    """What the cache needs of the policy's numbers."""

    @property
    def fresh_s(self) -> float:
        """How long an answer may be served again."""

    @property
    def patience_s(self) -> float:
        """How long an asker waits for a newer answer while a soft-stale one is at hand."""

    @property
    def soft_s(self) -> float:
        """Up to which age an answer is soft-stale."""

    @property
    def stale_s(self) -> float:
        """Up to which age an answer may stand in for one that cannot be had."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of answers kept."""

    @property
    def cache_entries(self) -> int:
        """Answers kept."""


@dataclass(slots=True)
class _Flight:
    """One asking under way, and how many wait for it. When the last of them leaves, it is cancelled, unless it is to go on."""

    task: asyncio.Task[Frame]
    #: nothing is taken over from an earlier answer
    whole: bool
    waiting: int = 0
    goes_on: bool = False


class Cached:
    """An answer's ages, counted from when it was *asked*:

    - fresh (`fresh_s`, less up to a tenth so that panels do not all expire together): served as it is, nobody is asked,
      unless it ends early and the source has published more since;
    - soft-stale (`soft_s`): asked anew; who has waited `patience_s` gets the older one, marked, and the asking goes on;
    - stale (`stale_s`): asked anew; the older one, marked, only when that fails or the asker's time is up;
    - older than that: an error.

    The asking runs in a task of its own: one impatient viewer does not cancel the others. Failures are not kept, nor are answers
    that somebody else marked stale kept as new ones.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        numbers: CacheNumbers,
        telemetry: Telemetry,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        reaches_ms: Reaches = unpublished,
        answers: Answers | None = None,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._numbers = numbers
        self._telemetry = telemetry
        self._clock = clock
        self._jitter = jitter
        self._reaches_ms = reaches_ms
        self.answers = Answers(numbers.cache_bytes, numbers.cache_entries) if answers is None else answers
        self._flights: dict[Hashable, _Flight] = {}
        self._running: set[asyncio.Task[Frame]] = set()

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        now_ms = self._clock()
        kept = self.answers.get(statement.key)
        if kept is not None and self._serves(kept, statement, now_ms):
            self._telemetry.cache_hits.labels(self._source, "fresh").inc()
            return kept.frame
        if statement.accept == "kept":
            return self._only_kept(statement, now_ms)
        older = self._older(statement, now_ms) if statement.accept == "stale" else None
        return await self._asked(statement, older, now_ms)

    def _serves(self, kept: Kept, statement: Statement, now_ms: int) -> bool:
        """Whether it is fresh (a clock that was set back makes nothing so), the newest that there is, and asked for as a whole
        where an alert asks."""
        return (
            kept.frame.asked_ms <= now_ms < kept.fresh_to_ms
            and not self._overtaken(kept)
            and not (kept.frame.pieced and statement.lane == "alert")
        )

    def _overtaken(self, kept: Kept) -> bool:
        """Whether it ends early, and the source has published more since."""
        covers_ms, newest_ms = kept.frame.covers_to_ms, self._reaches_ms()
        return covers_ms is not None and newest_ms is not None and covers_ms < min(newest_ms, kept.range.to_ms)

    def load(self, answers: Iterable[tuple[Statement, Frame]]) -> None:
        """Keep answers of an earlier life; none of them is fresh."""
        for statement, frame in answers:
            if 0 <= self._clock() - frame.asked_ms < self._numbers.stale_s * 1000:
                self._keep(statement, replace(frame, fresh_to_ms=0))

    async def close(self) -> None:
        """End the askings that nobody waits for."""
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _asked(self, statement: Statement, older: Kept | None, now_ms: int) -> Frame:
        flight = self._flight(statement)
        flight.waiting += 1
        try:
            frame = await self._landed(flight, statement, older, now_ms)
        except SourceError as failure:
            if older is None or not failure.allows_stale:
                raise
            return self._marked(older, statement, failure.reason)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.goes_on and not flight.task.done():
                self._abandon(statement.key, flight)
        if frame.stale is not None and statement.accept == "fresh":
            raise SourceUnavailable(self._source, frame.stale)
        return frame

    async def _landed(self, flight: _Flight, statement: Statement, older: Kept | None, now_ms: int) -> Frame:
        """The asking's frame; the older one when the asker's patience or time ends before."""
        left_s = statement.until_s - asyncio.get_running_loop().time()
        soft = older is not None and now_ms - older.frame.asked_ms < self._numbers.soft_s * 1000
        wait_s = min(left_s, self._numbers.patience_s) if soft else left_s
        await asyncio.wait((flight.task,), timeout=max(wait_s, 0) if wait_s < 1e6 else None)
        if flight.task.done():
            return flight.task.result()
        if older is None:
            failure = SourceTimeout(self._source, "no answer within the request's time limit")
            self._telemetry.source_errors.labels(self._source, failure.kind).inc()
            raise failure
        flight.goes_on = flight.goes_on or sum(other.goes_on for other in self._flights.values()) < _BACKGROUND
        return self._marked(older, statement, _REFRESHING if wait_s < left_s else "no answer within the request's time limit")

    def _flight(self, statement: Statement) -> _Flight:
        key = statement.key
        flight = self._flights.get(key)
        if flight is not None and (flight.whole or statement.lane != "alert"):
            self._telemetry.cache_hits.labels(self._source, "shared").inc()
            return flight
        self._telemetry.cache_misses.labels(self._source).inc()
        task = asyncio.create_task(self._ask(statement))
        flight = self._flights[key] = _Flight(task, not may_be_pieced(statement))
        self._running.add(task)
        task.add_done_callback(lambda ended: self._ended(key, ended))
        return flight

    def _abandon(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        # Not waited for: stopping the work at the store must not cost the caller time beyond its limit.
        flight.task.cancel()

    def _ended(self, key: Hashable, task: asyncio.Task[Frame]) -> None:
        self._running.discard(task)
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it already

    async def _ask(self, statement: Statement) -> Frame:
        asked_ms = self._clock()
        frame = await self._fetch(statement)
        if frame.stale is None:
            # A tier further in may have asked earlier, and says so.
            asked_ms = min(frame.asked_ms, asked_ms) if frame.fresh_to_ms is not None else asked_ms
            frame = replace(frame, asked_ms=asked_ms, fresh_to_ms=self._fresh_to(asked_ms))
        self._keep(statement, frame)
        # Nothing newer can be had than what was just asked for, however long that took.
        just_had = frame.stale is None and (frame.fresh_to_ms or 0) <= self._clock()
        return replace(frame, fresh_to_ms=None) if just_had or frame.partial else frame

    def _fresh_to(self, asked_ms: int) -> int:
        return asked_ms + round(self._numbers.fresh_s * 1000 * (1 - 0.1 * self._jitter()))

    def _keep(self, statement: Statement, frame: Frame) -> None:
        if frame.partial or (self._numbers.stale_s <= 0 and self._numbers.fresh_s <= 0):
            return
        known = self.answers.get(statement.key)
        if known is not None and frame.asked_ms < known.frame.asked_ms <= self._clock():
            return
        before = self.answers.evicted
        self.answers.put(statement, frame if frame.stale is None else replace(frame, stale=None), self._clock())
        self._telemetry.cache_evictions.labels(self._source).inc(self.answers.evicted - before)
        self._telemetry.cache_bytes.labels(self._source).set(self.answers.size_bytes)

    def _older(self, statement: Statement, now_ms: int) -> Kept | None:
        if self._numbers.stale_s <= 0:
            return None
        return self.answers.older(statement, now_ms - round(self._numbers.stale_s * 1000), now_ms)

    def _only_kept(self, statement: Statement, now_ms: int) -> Frame:
        older = self._older(statement, now_ms)
        if older is None:
            raise SourceUnavailable(self._source, f"nothing newer than {self._numbers.stale_s:g}s is kept")
        return self._marked(older, statement, "")

    def _marked(self, older: Kept, statement: Statement, reason: str) -> Frame:
        self._telemetry.cache_hits.labels(self._source, "stale").inc()
        return as_stale(older, statement, reason)
