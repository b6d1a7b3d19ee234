"""A backend that is told things over HTTP: it records what it gets and answers by a script."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

#: The scripted status that is no answer at all.
HANG = 0


@dataclass(frozen=True, slots=True)
class Received:
    """One request. The headers' names are in lower case."""

    method: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.body)
        return found


@dataclass
class Receiver:
    """Answers with the next status of `script`, with 204 when there is none left, and `extra` headers."""

    script: deque[int] = field(default_factory=deque)
    extra: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/redis-events"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            self.received.append(await _read(reader))
            status = self.script.popleft() if self.script else 204
            if status == HANG:
                await asyncio.Event().wait()
            extra = "".join(f"{name}: {value}\r\n" for name, value in self.extra.items())
            writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n{extra}\r\n".encode())
            await writer.drain()

    def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, value in pairs}
    return Received(head[0].split()[0], headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def receiver(*script: int, port: int = 0) -> AsyncIterator[Receiver]:
    """A running receiver on the loopback port, or on any free one."""
    backend = Receiver(deque(script))
    server = await asyncio.start_server(backend.accepted, "127.0.0.1", port)
    backend.port = server.sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        server.close()
        await backend.stop()
        await server.wait_closed()
