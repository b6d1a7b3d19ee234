"""Asking once more where the failure says that this may help."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from app.errors import SourceError, SourceTimeout
from app.model import Fetch, Frame, Statement

_BASE_S = 0.05
_MOST_S = 0.5


class Retried:
    """Up to `attempts` askings; full jitter between them. A time-out is not asked again: its budget is spent.

    Back-off: "full jitter", uniform in [0, min(cap, base * 2^n)] (M. Brooker, AWS Builders' Library).
    """

    def __init__(self, fetch: Fetch, attempts: int, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._fetch = fetch
        self._attempts = attempts
        self._sleep = sleep

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        for attempt in range(1, self._attempts):
            try:
                return await self._fetch(statement)
            except SourceError as failure:
                if not failure.retryable or isinstance(failure, SourceTimeout):
                    raise
            await self._sleep(random.uniform(0, min(_MOST_S, _BASE_S * 2**attempt)))  # noqa: S311  jitter is no secret
        return await self._fetch(statement)
