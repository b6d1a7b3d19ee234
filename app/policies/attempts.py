"""The attempts of one fetch: the time limit of each and of all together, the repeats, and the place in the source's queue."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from app.errors import SourceBusy, SourceError, SourceTimeout
from app.jitter import JITTER
from app.model import LANES, Fetch, Frame, Lane, Statement

_RANK = {lane: rank for rank, lane in enumerate(LANES)}
#: the first and the longest back-off
_BASE_S = 0.05
_MOST_S = 0.5


class Deadline:
    """Raises SourceTimeout after `limit_s`. The fetch inside is cancelled, and its source stops the work at the store.

    `stopped` is called for each fetch that ended so, or because its caller left.
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


class RetryBudget:
    """Retries are at most a share of the fetches: each fetch earns `share` of a retry, up to `most` saved ones.

    The token bucket of "Timeouts, retries and backoff with jitter" (M. Brooker, AWS Builders' Library); 10 % as in the SRE book.
    """

    def __init__(self, share: float = 0.1, most: float = 10.0) -> None:
        self._share = share
        self._most = most
        self._saved = most

    def earn(self) -> None:
        """Note a fetch."""
        self._saved = min(self._saved + self._share, self._most)

    def spend(self) -> bool:
        """Take one retry from the budget; False where there is none."""
        # Floats: a tenth added ten times is a little less than one.
        if self._saved < 1 - 1e-9:
            return False
        self._saved = max(self._saved - 1, 0.0)
        return True


class Retried:
    """Up to `attempts` fetches with full jitter between them, for failures that are `retryable`.

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
                if not failure.retryable or not self._budget.spend():
                    raise
            await self._sleep(JITTER.uniform(0, min(_MOST_S, _BASE_S * 2**attempt)))
        return await self._fetch(statement)


class PrioritySemaphore:
    """A semaphore whose waiters are served by lane, and within a lane in order of arrival.

    Background work, heavy requests among it, gets at most half of the slots: the others must not have to wait for it.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._free_for_background = max(size // 2, 1)
        self._queue: list[tuple[int, int, Lane, asyncio.Future[None]]] = []
        self._order = itertools.count()
        #: how many callers wait
        self.waiting = 0

    @property
    def is_full(self) -> bool:
        """Whether the next caller has to wait, unless it is background work."""
        return self._free <= 0

    @asynccontextmanager
    async def hold_slot(self, lane: Lane, most_s: float | None = None) -> AsyncIterator[None]:
        """A slot for as long as the block runs, or for `most_s` of it: a hanging store must not hold the slots of the others."""
        await self._take_slot(lane)
        given = _Once(partial(self._give_slot, lane))
        timer = asyncio.get_running_loop().call_later(most_s, given) if most_s is not None else None
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            given()

    async def _take_slot(self, lane: Lane) -> None:
        if self._has_slot(lane):
            self._count_slot(lane, -1)
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (_RANK[lane], next(self._order), lane, turn))
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_slot(lane)  # it was granted in the moment of the cancellation
            raise
        finally:
            self.waiting -= 1

    def _has_slot(self, lane: Lane) -> bool:
        return self._free > 0 and (lane != "background" or self._free_for_background > 0)

    def _count_slot(self, lane: Lane, change: int) -> None:
        self._free += change
        self._free_for_background += change if lane == "background" else 0

    def _give_slot(self, lane: Lane) -> None:
        self._count_slot(lane, 1)
        while self._queue:
            _, _, waiting_lane, turn = self._queue[0]
            # Background work is the last in the queue, so nobody waits behind it.
            if not turn.done() and not self._has_slot(waiting_lane):
                return
            heapq.heappop(self._queue)
            if not turn.done():
                self._count_slot(waiting_lane, -1)
                turn.set_result(None)


class _Once:
    """A callable that has an effect only the first time."""

    def __init__(self, call: object) -> None:
        self._call = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if callable(call):
            call()


class Limited:
    """At most `concurrent` fetches run and at most `waiting` wait for a slot; any more raise SourceBusy at once.

    `global_slots` limits the fetches of all sources together. A fetch releases its global slot after `GLOBAL_SLOT_S` even if it
    still runs, so a hanging source cannot starve the others.
    """

    GLOBAL_SLOT_S = 0.25

    def __init__(self, source: str, fetch: Fetch, concurrent: int, waiting: int, global_slots: PrioritySemaphore) -> None:
        self._source = source
        self._fetch = fetch
        self._slots = PrioritySemaphore(concurrent)
        self._global_slots = global_slots
        self._most_waiting = waiting

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        if self._slots.is_full and self._slots.waiting >= self._most_waiting:
            raise SourceBusy(self._source, f"{self._most_waiting} fetches are already waiting")
        async with self._slots.hold_slot(statement.lane), self._global_slots.hold_slot(statement.lane, self.GLOBAL_SLOT_S):
            return await self._fetch(statement)
