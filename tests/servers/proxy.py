"""A TCP proxy in front of a store that can be slow or stop answering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class SlowProxy:
    """Passes bytes on. A store behind it takes `delay_s` for an answer, counted from the question; while `hanging`, for ever."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.delay_s = 0.0
        self.hanging = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self._target)
        asked = [0.0]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._questions(reader, store_writer, asked))
            group.create_task(self._answers(store_reader, writer, asked))

    async def _questions(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[float]) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                asked[0] = asyncio.get_running_loop().time()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[float]) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if self.hanging:
                    await asyncio.Event().wait()
                await asyncio.sleep(max(asked[0] + self.delay_s - asyncio.get_running_loop().time(), 0))
                writer.write(data)
                await writer.drain()
        writer.close()

    def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def slow_proxy(port: int) -> AsyncIterator[SlowProxy]:
    """A running proxy in front of the loopback port."""
    proxy = SlowProxy(port)
    server = await asyncio.start_server(proxy.accepted, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.stop()
