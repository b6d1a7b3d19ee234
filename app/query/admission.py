"""Requests are let in by what they will cost, so that the work under way is bounded in sum.

A light request never waits here. A heavy one waits while the heavy ones under way cost too much. Those that wait are served in
turn: alert rules first, then by API key, and within a key by dashboard, so one viewer's many panels do not hold up another's.
Who would wait longer than the request's time allows gets 429 with the time after which it is worth asking again.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from app.errors import TooBusy
from app.model import LANES, Lane
from app.query.costs import Cost
from app.query.sizes import remember
from app.telemetry import Telemetry

_RANK = {lane: rank for rank, lane in enumerate(LANES)}
#: the share of its time for which a request may wait whose own duration nobody knows
_UNKNOWN_SHARE = 0.5
#: seconds of work after which an older measurement of the throughput counts half
_HALF_LIFE_S = 10.0
_LONGEST_RETRY_S = 60
#: from the first look at a request until it has been parsed
_MOMENT_S = 0.05
#: callers whose last turn is remembered
_MOST_CALLERS = 1000
_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the name of the API key, and the dashboard if the request tells it."""

    key: str = ""
    dashboard: str = ""
    lane: Lane = "interactive"


@dataclass(frozen=True, slots=True)
class CostLimits:
    """The bytes up to which a request is light, that heavy ones may cost together, and that may wait for readers."""

    light_bytes: int = 1 << 20
    heavy_bytes: int = 12 << 20
    unsent_bytes: int = 64 << 20


@dataclass(slots=True, eq=False)
class _Waiter:
    caller: Caller
    bytes: int
    order: int
    turn: asyncio.Future[None] = field(repr=False)


class CostAdmission:
    """The heavy requests under way and those that wait. `unsent` tells the bytes of answers that are written but not read yet."""

    def __init__(self, limits: CostLimits, telemetry: Telemetry, unsent: Callable[[], int] = lambda: 0) -> None:
        self._limits = limits
        self._telemetry = telemetry
        self._unsent = unsent
        self._waiting: list[_Waiter] = []
        self._order = itertools.count()
        self._turns: OrderedDict[Hashable, int] = OrderedDict()
        self._throughput = _Throughput()
        #: what those cost that have been looked at just now and have not come yet
        self._coming_bytes = 0
        #: what the heavy requests under way cost together
        self.heavy_bytes = 0
        telemetry.before_scrape.append(self._show)

    def is_heavy(self, cost: Cost) -> bool:
        """Whether a request of that cost has to be let in."""
        return cost.bytes > self._limits.light_bytes

    @asynccontextmanager
    async def let_in(self, caller: Caller, cost: Cost, deadline_s: float) -> AsyncIterator[None]:
        """Run the block once there is room for a heavy request. `deadline_s` is the event loop's time. Raises TooBusy."""
        await self._wait_for_room(caller, cost, deadline_s)
        try:
            yield
        finally:
            self._leave(cost.bytes)

    def find_refusal(self, caller: Caller, cost: Cost, left_s: float) -> TooBusy | None:
        """The refusal of a request that has so much time left, counted; None where it may be let in.

        It is asked before a request is parsed. Of many that come at once none has got further yet when the last of them is looked
        at, so those that may come count for a moment.
        """
        try:
            self._refuse_unsent(cost)
            if self._waiting or not self._has_room(cost.bytes, self._coming_bytes):
                self._longest_wait_s(caller, cost, left_s)
        except TooBusy as refusal:
            self._count_refusal(caller)
            return refusal
        self._expect_more(cost.bytes)
        asyncio.get_running_loop().call_later(_MOMENT_S, self._expect_more, -cost.bytes)
        return None

    def _expect_more(self, more_bytes: int) -> None:
        self._coming_bytes += more_bytes

    def _count_refusal(self, caller: Caller) -> None:
        self._telemetry.shed.labels(caller.lane).inc()
        self._telemetry.heavy.labels("refused").inc()

    async def _wait_for_room(self, caller: Caller, cost: Cost, deadline_s: float) -> None:
        try:
            self._refuse_unsent(cost)
            if not self._waiting and self._has_room(cost.bytes):
                self._enter(caller, cost.bytes)
                outcome = "at_once"
            else:
                await self._queue_up(caller, cost, deadline_s)
                outcome = "waited"
        except TooBusy:
            self._count_refusal(caller)
            raise
        except asyncio.CancelledError:
            self._telemetry.heavy.labels("left").inc()
            raise
        self._telemetry.heavy.labels(outcome).inc()

    def _refuse_unsent(self, cost: Cost) -> None:
        unsent = self._unsent()
        if unsent and unsent + self.heavy_bytes + cost.bytes > self._limits.unsent_bytes:
            raise TooBusy(
                f"answers of {unsent / _MEGABYTE:.0f} MiB wait for readers that do not read them; at most "
                f"{self._limits.unsent_bytes / _MEGABYTE:.0f} MiB may (http.unsent_bytes); light requests are answered",
                retry_after_s=2,
            )

    def _longest_wait_s(self, caller: Caller, cost: Cost, left_s: float) -> float:
        """How long it may wait and still be answered in time. Raises TooBusy where it will have to wait longer."""
        longest_s = left_s - cost.seconds if cost.seconds is not None else left_s * _UNKNOWN_SHARE
        expected_s = self._expected_wait_s(caller, cost)
        if expected_s > longest_s:
            raise self._too_busy(cost, expected_s)
        return longest_s

    async def _queue_up(self, caller: Caller, cost: Cost, deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        longest_s = self._longest_wait_s(caller, cost, deadline_s - loop.time())
        waiter = _Waiter(caller, cost.bytes, next(self._order), loop.create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(longest_s):
                await waiter.turn
        except TimeoutError:
            if not waiter.turn.done() or waiter.turn.cancelled():
                raise self._too_busy(cost, max(self._expected_wait_s(caller, cost), 1.0)) from None
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self._give_back(cost.bytes)  # it was let in, in the moment in which it left
            raise
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiter)
        self._refuse_if_unsent_by_now(cost)

    def _refuse_if_unsent_by_now(self, cost: Cost) -> None:
        """Other answers may have been written, and not read, while this one waited."""
        try:
            self._refuse_unsent(Cost(0))
        except TooBusy:
            self._give_back(cost.bytes)
            raise

    def _too_busy(self, cost: Cost, wait_s: float) -> TooBusy:
        retry_s = min(max(math.ceil(wait_s), 1), _LONGEST_RETRY_S)
        return TooBusy(
            f"heavy requests are under way, {len(self._waiting)} more wait, and this one costs about "
            f"{cost.bytes / _MEGABYTE:.1f} MiB: it would not be done in time; try again in {retry_s} s, or ask for fewer series, "
            "a coarser step or a shorter range",
            retry_after_s=retry_s,
        )

    def _expected_wait_s(self, caller: Caller, cost: Cost) -> float:
        """How long the work before it takes: of each other key at most as much as of its own, since keys take turns."""
        by_key = Counter[str]()
        for waiter in self._waiting:
            by_key[waiter.caller.key] += waiter.bytes
        own = by_key.pop(caller.key, 0)
        ahead = own + sum(min(others, own + cost.bytes) for others in by_key.values())
        return (self.heavy_bytes / 2 + self._coming_bytes + ahead) * self._throughput.seconds_per_byte

    def _has_room(self, more_bytes: int, coming_bytes: int = 0) -> bool:
        taken_bytes = self.heavy_bytes + coming_bytes
        return not taken_bytes or taken_bytes + more_bytes <= self._limits.heavy_bytes

    def _enter(self, caller: Caller, more_bytes: int) -> None:
        loop_s = asyncio.get_running_loop().time()
        self._throughput.begin(loop_s)
        self.heavy_bytes += more_bytes
        for name in (caller.key, (caller.key, caller.dashboard)):
            remember(self._turns, name, next(self._order), _MOST_CALLERS)

    def _leave(self, its_bytes: int) -> None:
        still_busy = self.heavy_bytes > its_bytes
        self._throughput.end(asyncio.get_running_loop().time(), its_bytes, still_busy)
        self._give_back(its_bytes)

    def _give_back(self, its_bytes: int) -> None:
        self.heavy_bytes -= its_bytes
        self._admit_next()

    def _admit_next(self) -> None:
        """Let in those whose turn it is, as long as there is room."""
        while self._waiting:
            waiter = min(self._waiting, key=self._turn_of)
            if waiter.turn.done():
                self._waiting.remove(waiter)
                continue
            if not self._has_room(waiter.bytes):
                return
            self._waiting.remove(waiter)
            self._enter(waiter.caller, waiter.bytes)
            waiter.turn.set_result(None)

    def _turn_of(self, waiter: _Waiter) -> tuple[int, int, int, int]:
        """The smallest is next: the key, and then the dashboard, whose last turn is the longest ago."""
        caller = waiter.caller
        of_key, of_dashboard = self._turns.get(caller.key, -1), self._turns.get((caller.key, caller.dashboard), -1)
        return _RANK[caller.lane], of_key, of_dashboard, waiter.order

    def _show(self) -> None:
        self._telemetry.heavy_waiting.set(len(self._waiting))
        self._telemetry.heavy_bytes.set(self.heavy_bytes)
        self._telemetry.unsent_bytes.set(self._unsent())


class _Throughput:
    """How long heavy work takes for each byte while there is any; older measurements count less and less."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._busy_s = 0.0
        self._since_s: float | None = None

    @property
    def seconds_per_byte(self) -> float:
        """Zero before the first measurement."""
        return self._busy_s / self._bytes if self._bytes else 0.0

    def begin(self, now_s: float) -> None:
        if self._since_s is None:
            self._since_s = now_s

    def end(self, now_s: float, done_bytes: int, still_busy: bool) -> None:
        since_s = now_s if self._since_s is None else self._since_s
        faded = 0.5 ** ((now_s - since_s) / _HALF_LIFE_S)
        self._busy_s = self._busy_s * faded + now_s - since_s
        self._bytes = self._bytes * faded + done_bytes
        self._since_s = now_s if still_busy else None
