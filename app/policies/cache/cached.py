"""The cache of a source: fresh answers are served again, equal questions share one fetch (singleflight), and an older answer,
marked stale, stands in when a newer one cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from app.errors import SourceError, SourceTimeout, SourceUnavailable
from app.jitter import JITTER
from app.model import Clock, Fetch, Frame, Statement
from app.policies.cache.answers import AnswerCache, CachedFrame, as_stale, cache_ages
from app.policies.cache.incremental import may_be_incremental
from app.policies.settings import Policy
from app.telemetry import Telemetry

#: fetches of one source that go on after their last caller has left
_BACKGROUND = 4
_REFRESHING = "a newer answer is being asked for"


#: Up to when (epoch ms) the data reaches that a source has published; None for a source whose data is always current.
PublishedUntil = Callable[[], int | None]


def always_current() -> None:
    """The `PublishedUntil` of a source whose data is always current."""


@dataclass(slots=True)
class _Flight:
    """One fetch under way and how many callers wait for it. It is cancelled when the last of them leaves, unless it `goes_on`."""

    task: asyncio.Task[Frame]
    #: it reuses nothing from an earlier answer
    whole: bool
    waiting: int = 0
    goes_on: bool = False


class Cached:
    """What an answer is good for depends on its age, counted from when it was *asked*:

    - fresh (`fresh_s`, less up to a tenth so that panels do not all expire together): served as it is, without a fetch, unless it
      ends early and the source has published more since;
    - soft-stale (`soft_s`): fetched again; after `patience_s` a caller gets the older answer, marked, and the fetch goes on;
    - stale (`stale_s`): fetched again; the older answer, marked, only when that fails or the caller's time is up;
    - older than that: an error.

    The fetch runs in a task of its own, so a caller who leaves does not cancel the others. Failures are not cached, and an answer
    that was stale on arrival does not become fresh here.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        numbers: Policy,
        telemetry: Telemetry,
        clock: Clock,
        jitter: Callable[[], float] = JITTER.random,
        published_until: PublishedUntil = always_current,
        answers: AnswerCache | None = None,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._numbers = numbers
        self._telemetry = telemetry
        self._clock = clock
        self._jitter = jitter
        self._published_until = published_until
        self.answers = AnswerCache(numbers.cache_bytes, numbers.cache_entries) if answers is None else answers
        self._flights: dict[Hashable, _Flight] = {}
        self._running: set[asyncio.Task[Frame]] = set()

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        now_ms = self._clock()
        kept = self.answers.get(statement.key)
        if kept is not None and self._may_serve(kept, statement, now_ms):
            self._telemetry.cache_hits.labels(self._source, "fresh").inc()
            return kept.frame
        if statement.accept == "cached_only":
            return self._cached_only(statement, now_ms)
        older = self._best_stale(statement, now_ms) if statement.accept == "stale" else None
        return await self._fetch_or_stale(statement, older, now_ms)

    def _may_serve(self, kept: CachedFrame, statement: Statement, now_ms: int) -> bool:
        """Whether it is fresh, nothing newer is published, and, for an alert, it was fetched as a whole."""
        known = kept.frame.provenance
        return known.is_fresh(now_ms) and not self._is_overtaken(kept) and not (known.incremental and statement.lane == "alert")

    def _is_overtaken(self, kept: CachedFrame) -> bool:
        """Whether it ends early and the source has published more since."""
        covers_ms, newest_ms = kept.frame.covers_to_ms, self._published_until()
        return covers_ms is not None and newest_ms is not None and covers_ms < min(newest_ms, kept.range.to_ms)

    def load(self, answers: Iterable[tuple[Statement, Frame]], oldest_ms: int) -> None:
        """Keep the answers of an earlier run that were fetched since `oldest_ms`; none of them is fresh."""
        for statement, frame in answers:
            if oldest_ms < frame.provenance.asked_ms <= self._clock():
                self._keep_frame(statement, frame.with_provenance(fresh_until_ms=None))

    async def close(self) -> None:
        """End the fetches that go on without a caller."""
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _fetch_or_stale(self, statement: Statement, older: CachedFrame | None, now_ms: int) -> Frame:
        flight = self._join_or_start(statement)
        flight.waiting += 1
        try:
            frame = await self._await_flight(flight, statement, older, now_ms)
        except SourceError as failure:
            if older is None or not failure.allows_stale:
                raise
            return self._mark_stale(older, statement, failure.reason)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.goes_on and not flight.task.done():
                self._cancel_flight(statement.key, flight)
        if frame.provenance.stale is not None and statement.accept == "fresh":
            raise SourceUnavailable(self._source, frame.provenance.stale)
        return frame

    async def _await_flight(self, flight: _Flight, statement: Statement, older: CachedFrame | None, now_ms: int) -> Frame:
        """The fetch's frame; the older one when the caller's patience or time ends first."""
        left_s = statement.until_s - asyncio.get_running_loop().time()
        soft = older is not None and now_ms - older.asked_ms < self._numbers.soft_s * 1000
        wait_s = min(left_s, self._numbers.patience_s) if soft else left_s
        await asyncio.wait((flight.task,), timeout=max(wait_s, 0) if wait_s < 1e6 else None)
        if flight.task.done():
            return flight.task.result()
        if older is None:
            failure = SourceTimeout(self._source, "no answer within the request's time limit")
            self._telemetry.source_errors.labels(self._source, failure.kind).inc()
            raise failure
        flight.goes_on = flight.goes_on or sum(other.goes_on for other in self._flights.values()) < _BACKGROUND
        return self._mark_stale(older, statement, _REFRESHING if wait_s < left_s else "no answer within the request's time limit")

    def _join_or_start(self, statement: Statement) -> _Flight:
        key = statement.key
        flight = self._flights.get(key)
        if flight is not None and (flight.whole or statement.lane != "alert"):
            self._telemetry.cache_hits.labels(self._source, "shared").inc()
            return flight
        self._telemetry.cache_misses.labels(self._source).inc()
        task = asyncio.create_task(self._fetch_and_keep(statement))
        flight = self._flights[key] = _Flight(task, not may_be_incremental(statement))
        self._running.add(task)
        task.add_done_callback(lambda ended: self._end_flight(key, ended))
        return flight

    def _cancel_flight(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        # Not awaited: stopping the work at the store must not cost the caller time beyond its limit.
        flight.task.cancel()

    def _end_flight(self, key: Hashable, task: asyncio.Task[Frame]) -> None:
        self._running.discard(task)
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # mark it retrieved: the callers have it already

    async def _fetch_and_keep(self, statement: Statement) -> Frame:
        begun_ms = self._clock()
        frame = self._note_provenance(await self._fetch(statement), begun_ms, cache_ages(statement, self._numbers).fresh_s)
        self._keep_frame(statement, frame)
        # A fetch slower than `fresh_s` would be stale on arrival: it is the newest there is, so it goes out without an expiry.
        expired = not frame.provenance.is_fresh(self._clock())
        return frame.with_provenance(fresh_until_ms=None) if expired or frame.partial else frame

    def _note_provenance(self, frame: Frame, begun_ms: int, fresh_s: float) -> Frame:
        """The frame with when it was asked and how long it is fresh. An older answer is never fresh."""
        if frame.older_copy is not None:
            return frame.with_provenance(asked_ms=frame.covers_to_ms or begun_ms, stale=frame.older_copy)
        if frame.provenance.stale is not None:
            return frame
        # Another replica may have asked earlier.
        asked_ms = min(frame.provenance.asked_ms or begun_ms, begun_ms)
        return frame.with_provenance(asked_ms=asked_ms, fresh_until_ms=asked_ms + self._fresh_ms(fresh_s))

    def _fresh_ms(self, fresh_s: float) -> int:
        return round(fresh_s * 1000 * (1 - 0.1 * self._jitter()))

    def _keep_frame(self, statement: Statement, frame: Frame) -> None:
        ages = cache_ages(statement, self._numbers)
        if frame.partial or (ages.stale_s <= 0 and ages.fresh_s <= 0):
            return
        known = self.answers.get(statement.key)
        if known is not None and frame.provenance.asked_ms < known.asked_ms <= self._clock():
            return
        before = self.answers.evicted
        self.answers.put(statement, frame if frame.provenance.stale is None else frame.with_provenance(stale=None), self._clock())
        self._telemetry.cache_evictions.labels(self._source).inc(self.answers.evicted - before)
        self._telemetry.cache_bytes.labels(self._source).set(self.answers.size_bytes)

    def _best_stale(self, statement: Statement, now_ms: int) -> CachedFrame | None:
        stale_s = cache_ages(statement, self._numbers).stale_s
        return self.answers.best_stand_in(statement, now_ms - round(stale_s * 1000), now_ms) if stale_s > 0 else None

    def _cached_only(self, statement: Statement, now_ms: int) -> Frame:
        older = self._best_stale(statement, now_ms)
        if older is None:
            stale_s = cache_ages(statement, self._numbers).stale_s
            raise SourceUnavailable(self._source, f"nothing newer than {stale_s:g}s is kept")
        return self._mark_stale(older, statement, "")

    def _mark_stale(self, older: CachedFrame, statement: Statement, reason: str) -> Frame:
        self._telemetry.cache_hits.labels(self._source, "stale").inc()
        return as_stale(older, statement, reason)
