"""A replica that says that it is well and is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Broken:
    """A replica whose probe is always well and whose every other answer is `words`, or the end of the connection."""

    def __init__(self, words: bytes) -> None:
        self.asked = 0
        #: from then on nobody is there
        self.close: Callable[[], None] = lambda: None
        self._words = words

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[int, int]]:
        """Its HTTP port and its agent's."""
        http, agent = (
            await asyncio.start_server(self._http, "127.0.0.1", 0),
            await asyncio.start_server(self._agent, "127.0.0.1", 0),
        )
        self.close = http.close
        async with http, agent:
            yield http.sockets[0].getsockname()[1], agent.sockets[0].getsockname()[1]

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            probed = b"/readyz" in head or b"/api/health" in head
            self.asked += not probed
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" if probed else self._words)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    async def _agent(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"up 100%\n")
        await writer.drain()
        writer.close()


WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwell"
DRAINING = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"
