"""Letting requests in: a bound on those under way, and one heavy step at a time, so that an overload is refused quickly."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from app.model import LANES, Lane
from app.telemetry import Telemetry

#: Answered whatever the load is: by them others judge this replica.
_EXEMPT = frozenset(("/livez", "/readyz", "/health/sources", "/metrics"))


def lane_of(path: str) -> Lane | None:
    """Whose turn a request is; None where it is always let in. A trailing slash means nothing."""
    plain = path.rstrip("/")
    if plain in _EXEMPT:
        return None
    return "alert" if plain.startswith("/alert/") else "interactive"


class Admission:
    """At most `most` requests at the same time; one more is refused at once. Alert rules may use the last tenth alone."""

    def __init__(self, most: int, telemetry: Telemetry) -> None:
        self._limits = {lane: most if lane == "alert" else max(most * 9 // 10, 1) for lane in LANES}
        self._shed = {lane: telemetry.shed.labels(lane) for lane in LANES}
        self._refused = telemetry.http_requests.labels("other", "429")
        self.under_way = 0

    @contextmanager
    def admitted(self, lane: Lane) -> Iterator[None]:
        """Room for one request while the block runs. Ask `refuses` before."""
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    @property
    def full(self) -> bool:
        """Whether anybody might have to be refused."""
        return self.under_way >= self._limits["interactive"]

    def refused(self) -> None:
        """One more was answered with 429."""
        self._refused.inc()

    def refuses(self, lane: Lane) -> bool:
        """Whether there is no room for one more; it is counted as shed then."""
        if self.under_way < self._limits[lane]:
            return False
        self._shed[lane].inc()
        return True


class Turnstile:
    """Lets one waiter through per turn of the event loop, alert rules first.

    Steps that only compute (joining, thinning, writing JSON) are a few milliseconds each. When many are ready, asyncio runs them
    all before it looks at a socket again, and a probe or a refusal waits for the sum. Behind a turnstile it waits for one.
    """

    def __init__(self) -> None:
        self._queues: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in LANES}
        self._turning = False

    async def passed(self, lane: Lane) -> None:
        """Return when it is this caller's turn."""
        loop = asyncio.get_running_loop()
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn)
            return
        turn = loop.create_future()
        self._queues[lane].append(turn)
        await turn

    def _turn(self) -> None:
        for queue in self._queues.values():
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    asyncio.get_running_loop().call_soon(self._turn)
                    return
        self._turning = False
