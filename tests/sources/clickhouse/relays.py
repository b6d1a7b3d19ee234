"""Small TCP servers between a source and its server, for the faults that a real server does not make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.servers.clickhouse import ClickHouse

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listener(serve: Serve) -> AsyncIterator[int]:
    """A TCP server that does to each connection what it is told; its port. No connection outlives it."""
    serving: set[asyncio.Task[None]] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                await serve(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(served(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def relay_dripping(
    server: ClickHouse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drips: asyncio.Event
) -> None:
    """Pass bytes on both ways; while `drips` is set, two bytes of the answer in each tenth of a second."""
    up_reader, up_writer = await asyncio.open_connection(server.host, server.port)

    async def upwards() -> None:
        while data := await reader.read(65536):
            up_writer.write(data)
        up_writer.close()

    sending = asyncio.create_task(upwards())
    try:
        while data := await up_reader.read(65536):
            size = 2 if drips.is_set() else len(data)
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await asyncio.sleep(0.1 if drips.is_set() else 0)
    finally:
        sending.cancel()
        up_writer.close()


async def relay_once(server: ClickHouse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request and its answer, then the connection ends."""
    up_reader, up_writer = await asyncio.open_connection(server.host, server.port)
    request = await reader.read(65536)
    up_writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    if request.endswith(b"\r\n\r\n"):
        up_writer.write(await reader.read(65536))
    writer.write((await up_reader.read()).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    await writer.drain()
    up_writer.close()
