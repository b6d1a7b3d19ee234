"""A bounded number of askings at the same time, a bounded queue before them; who goes first is decided by lane."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import SourceBusy
from app.model import LANES, Fetch, Frame, Lane, Statement

_RANK = {lane: rank for rank, lane in enumerate(LANES)}


class Places:
    """A number of places. Those who wait are served by lane, within a lane in the order of their coming."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        #: how many wait
        self.waiting = 0

    @property
    def full(self) -> bool:
        """Whether the next one has to wait."""
        return self._free <= 0

    @asynccontextmanager
    async def held(self, lane: Lane, most_s: float | None = None) -> AsyncIterator[None]:
        """A place for as long as the block runs, or for `most_s` of it: a hanging store must not keep the room of the others."""
        await self._take(lane)
        given = _Once(self._give)
        timer = asyncio.get_running_loop().call_later(most_s, given) if most_s is not None else None
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            given()

    async def _take(self, lane: Lane) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (_RANK[lane], next(self._order), turn))
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # the place came in the moment of leaving
            raise
        finally:
            self.waiting -= 1

    def _give(self) -> None:
        while self._queue:
            turn = heapq.heappop(self._queue)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Once:
    """A call that works once."""

    def __init__(self, call: object) -> None:
        self._call = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if callable(call):
            call()


class Limited:
    """At most `concurrent` askings run, at most `waiting` wait for a place; any more raise SourceBusy at once.

    `everyone` holds the places of all sources together. An asking gives its place there back after `_BRISK_S`, done or not.
    """

    _BRISK_S = 0.25

    def __init__(self, source: str, fetch: Fetch, concurrent: int, waiting: int, everyone: Places) -> None:
        self._source = source
        self._fetch = fetch
        self._places = Places(concurrent)
        self._everyone = everyone
        self._most_waiting = waiting

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        if self._places.full and self._places.waiting >= self._most_waiting:
            raise SourceBusy(self._source, f"{self._most_waiting} askings are already waiting")
        async with self._places.held(statement.lane), self._everyone.held(statement.lane, self._BRISK_S):
            return await self._fetch(statement)
