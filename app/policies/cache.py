"""Answers kept while they are fresh, and one asking for all who want the same thing at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Protocol

from app.model import Clock, Fetch, Frame, Statement
from app.telemetry import Telemetry


class CacheNumbers(Protocol):
    """What the cache needs of the policy's numbers."""

    @property
    def fresh_s(self) -> float:
        """How long an answer may be served again."""

    @property
    def cache_bytes(self) -> int:
        """Bytes of answers kept."""

    @property
    def cache_entries(self) -> int:
        """Answers kept."""


@dataclass(slots=True)
class _Flight:
    """One asking under way, and how many wait for it. When the last of them leaves, it is cancelled."""

    task: asyncio.Task[Frame]
    waiting: int = 0


class Cached:
    """Fresh answers are served again for `fresh_s` after they were *asked*; the oldest used go first when room is short.

    The asking runs in a task of its own: one impatient viewer does not cancel the others. Failures are not kept.
    """

    def __init__(self, source: str, fetch: Fetch, numbers: CacheNumbers, telemetry: Telemetry, clock: Clock) -> None:
        self._source = source
        self._fetch = fetch
        self._numbers = numbers
        self._telemetry = telemetry
        self._clock = clock
        self._kept: OrderedDict[Hashable, Frame] = OrderedDict()
        self._bytes = 0
        self._flights: dict[Hashable, _Flight] = {}
        self._leaving: set[asyncio.Task[Frame]] = set()

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        key = statement.key
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept.asked_ms < self._numbers.fresh_s * 1000:
            self._kept.move_to_end(key)
            self._telemetry.cache_hits.labels(self._source, "fresh").inc()
            return kept
        return await self._shared(key, statement)

    async def _shared(self, key: Hashable, statement: Statement) -> Frame:
        flight = self._flights.get(key)
        if flight is None:
            self._telemetry.cache_misses.labels(self._source).inc()
            flight = self._flights[key] = _Flight(asyncio.create_task(self._ask(key, statement)))
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        else:
            self._telemetry.cache_hits.labels(self._source, "shared").inc()
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._abandon(key, flight)

    def _abandon(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        # Not waited for: stopping the work at the store must not cost the caller time beyond its limit.
        self._leaving.add(flight.task)
        flight.task.cancel()

    def _landed(self, key: Hashable, task: asyncio.Task[Frame]) -> None:
        self._leaving.discard(task)
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it already

    async def _ask(self, key: Hashable, statement: Statement) -> Frame:
        asked_ms = self._clock()
        frame = replace(await self._fetch(statement), asked_ms=asked_ms)
        self._keep(key, frame)
        return frame

    def _keep(self, key: Hashable, frame: Frame) -> None:
        if self._numbers.fresh_s <= 0:
            return
        self._drop(key)
        self._kept[key] = frame
        self._bytes += frame.size_bytes
        while self._bytes > self._numbers.cache_bytes or len(self._kept) > self._numbers.cache_entries:
            self._drop(next(iter(self._kept)))
            self._telemetry.cache_evictions.labels(self._source).inc()
        self._telemetry.cache_bytes.labels(self._source).set(self._bytes)

    def _drop(self, key: Hashable) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped.size_bytes
