"""Askers in a closed loop, as dashboards are, and what they got."""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp

PANEL = {
    "targets": [{"refId": "A", "target": "open_trades"}, {"refId": "B", "target": "equity"}],
    "range": {"from": "now-30m", "to": "now"},
    "maxDataPoints": 100,
}
_ROWS = {"metric": "open_trades", "from": "now-30m", "by": "account"}


@asynccontextmanager
async def client(
    url: str | None, trust: ssl.SSLContext | None = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that trusts `trust`, where the URL is https."""
    connector = aiohttp.TCPConnector(ssl=trust or True, limit=0)
    async with aiohttp.ClientSession(url, connector=connector, headers=headers) as session:
        try:
            yield session
        finally:
            await connector.close(abort_ssl=True)  # however busy the other end is, nobody waits for its goodbye
            await asyncio.sleep(0.05)  # an end takes a few turns of the loop


class Load:
    """Eight askers: half of them POST a panel, half of them GET rows. They trust `trust`, where the URL is https."""

    def __init__(
        self, rows: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, trust: ssl.SSLContext | None = None
    ) -> None:
        self.statuses: Counter[int | str] = Counter()
        self.results: Counter[str] = Counter()
        self.blank = 0
        self.worst_s = 0.0
        self._stopped = False
        self._rows = rows or _ROWS
        self._headers = headers or {}
        self._trust = trust

    @property
    def failed(self) -> dict[int | str, int]:
        """How many got what, other than 200."""
        return {status: count for status, count in self.statuses.items() if status != 200}

    @property
    def asked(self) -> int:
        """How many were answered, or failed."""
        return self.statuses.total()

    def stop(self) -> None:
        """Ask no more; what is under way is waited for (a connection that is cut while it is made leaves a socket behind)."""
        self._stopped = True

    async def run(self, url: str, pause_s: float = 0.04) -> None:
        """Ask until `stop`."""
        async with client(url, self._trust, self._headers) as session, asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(self._ask(session, number % 2 == 0, pause_s))

    async def _ask(self, session: aiohttp.ClientSession, panel: bool, pause_s: float) -> None:
        while not self._stopped:
            begun_s = time.monotonic()
            try:
                await self._sent(session, panel)
            except (aiohttp.ClientError, TimeoutError) as problem:
                self.statuses[repr(problem)] += 1
            self.worst_s = max(self.worst_s, time.monotonic() - begun_s)
            await asyncio.sleep(pause_s)

    async def _sent(self, session: aiohttp.ClientSession, panel: bool) -> None:
        """As Grafana's client (Go's) does: what a kept connection did not take, closed meanwhile, goes out on a new one."""
        try:
            await self._one(session, panel)
        except aiohttp.ClientOSError as closed:
            if closed.errno != errno.EPIPE:
                raise
            await self._one(session, panel)

    async def _one(self, session: aiohttp.ClientSession, panel: bool) -> None:
        asking = session.post("/json/query", json=PANEL) if panel else session.get("/v1/rows", params=self._rows)
        async with asking as reply:
            body = await reply.read()
            self.statuses[reply.status] += 1
            self.blank += len(body) < 100
            if not panel:
                self.results[reply.headers.get("Bridge-Result", "none").partition("status=")[2].partition(";")[0]] += 1


@asynccontextmanager
async def load(
    url: str,
    rows: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
) -> AsyncIterator[Load]:
    """Askers while the block runs."""
    asked = Load(rows, headers, trust)
    running = asyncio.create_task(asked.run(url))
    try:
        yield asked
    finally:
        asked.stop()
        await asyncio.wait_for(running, 15)


async def until(limit_s: float, holds: Callable[[], bool]) -> float:
    """How long it takes until something holds."""
    begun_s = time.monotonic()
    while not await asyncio.to_thread(holds):
        assert time.monotonic() - begun_s < limit_s, f"not within {limit_s}s"
        await asyncio.sleep(0.05)
    return time.monotonic() - begun_s
