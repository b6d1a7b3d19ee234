"""A TCP proxy in front of a store that can be slow or stop answering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class SlowProxy:
    """Passes bytes on; what the store answers is held back by `delay_s`, and for ever while `hanging` is set."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.delay_s = 0.0
        self.hanging = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self._target)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass(reader, store_writer, held=False))
            group.create_task(self._pass(store_reader, writer, held=True))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: bool) -> None:
        arrived: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.create_task(self._send(arrived, writer, held))
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                arrived.put_nowait((asyncio.get_running_loop().time(), data))
        arrived.put_nowait((0.0, b""))
        await sending

    async def _send(self, arrived: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, held: bool) -> None:
        """Each piece `delay_s` after it came: an answer in two pieces is no later than one in one."""
        with suppress(ConnectionError):
            while (item := await arrived.get())[1]:
                came_s, data = item
                if held and self.hanging:
                    await asyncio.Event().wait()
                if held and self.delay_s:
                    await asyncio.sleep(came_s + self.delay_s - asyncio.get_running_loop().time())
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
