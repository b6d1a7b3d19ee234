"""A bounded number of askings at the same time, a bounded queue before them."""

from __future__ import annotations

import asyncio

from app.errors import SourceBusy
from app.model import Fetch, Frame, Statement


class Limited:
    """At most `concurrent` askings run, at most `waiting` wait for a place; any more raise SourceBusy at once."""

    def __init__(self, source: str, fetch: Fetch, concurrent: int, waiting: int) -> None:
        self._source = source
        self._fetch = fetch
        self._places = asyncio.Semaphore(concurrent)
        self._waiting = 0
        self._most_waiting = waiting

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        if self._places.locked() and self._waiting >= self._most_waiting:
            raise SourceBusy(self._source, f"{self._most_waiting} askings are already waiting")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._fetch(statement)
        finally:
            self._places.release()
