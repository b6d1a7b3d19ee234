"""A time limit whose end cancels the work inside it, down to the source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.errors import SourceTimeout
from app.model import Fetch, Frame, Statement


class Deadline:
    """Raises SourceTimeout after `limit_s`. What runs inside is cancelled, and a source makes that real at the store.

    `stopped` is called for each asking that ended so, or because its asker left.
    """

    def __init__(self, source: str, fetch: Fetch, limit_s: float, what: str, stopped: Callable[[], None] = lambda: None) -> None:
        self._source = source
        self._fetch = fetch
        self._limit_s = limit_s
        self._what = what
        self._stopped = stopped

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        limit = asyncio.timeout(self._limit_s)
        try:
            async with limit:
                return await self._fetch(statement)
        except asyncio.CancelledError:
            self._stopped()
            raise
        except TimeoutError:
            if not limit.expired():
                raise
            self._stopped()
            raise SourceTimeout(self._source, f"no answer within {self._limit_s:g}s ({self._what} limit)") from None
