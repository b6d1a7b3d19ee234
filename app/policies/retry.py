"""Asking once more where the failure says that this may help, and not so often that retries become the load."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from app.errors import SourceError, SourceTimeout
from app.model import Fetch, Frame, Statement

_BASE_S = 0.05
_MOST_S = 0.5


class RetryBudget:
    """Retries are at most a share of the askings: each asking earns `share` of a retry, up to `most` saved ones.

    The token bucket of "Timeouts, retries and backoff with jitter" (M. Brooker, AWS Builders' Library); 10 % as in the SRE book.
    """

    def __init__(self, share: float = 0.1, most: float = 10.0) -> None:
        self._share = share
        self._most = most
        self._saved = most

    def earn(self) -> None:
        """An asking was made."""
        self._saved = min(self._saved + self._share, self._most)

    def spend(self) -> bool:
        """Whether a retry may be made; it is paid for then."""
        # A tenth added ten times is a hair less than one.
        if self._saved < 1 - 1e-9:
            return False
        self._saved = max(self._saved - 1, 0.0)
        return True


class Retried:
    """Up to `attempts` askings; full jitter between them. A time-out is not asked again: its budget is spent.

    Back-off: "full jitter", uniform in [0, min(cap, base * 2^n)] (M. Brooker, AWS Builders' Library).
    """

    def __init__(self, fetch: Fetch, attempts: int, sleep: Callable[[float], Awaitable[None]], budget: RetryBudget) -> None:
        self._fetch = fetch
        self._attempts = attempts
        self._sleep = sleep
        self._budget = budget

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        self._budget.earn()
        for attempt in range(1, self._attempts):
            try:
                return await self._fetch(statement)
            except SourceError as failure:
                if not failure.retryable or isinstance(failure, SourceTimeout) or not self._budget.spend():
                    raise
            await self._sleep(random.uniform(0, min(_MOST_S, _BASE_S * 2**attempt)))  # noqa: S311  jitter is no secret
        return await self._fetch(statement)
