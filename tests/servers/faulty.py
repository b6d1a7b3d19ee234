"""A TCP proxy in front of any store, with the faults that networks and stores have."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self, get_args

from demo.stores import free_port

Fault = Literal[
    "none",
    "refuse",
    "reset",
    "black_hole",
    "slow_drip",
    "truncated",
    "garbage",
    "wrong_status",
    "accept_then_close",
    "half_open",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)

_HTTP_500 = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\noops"
_RESP_ERROR = b"-ERR injected failure\r\n"


class FaultProxy:
    """Listens on one port for all its life and passes bytes on to a store on this machine, with one fault at a time.

    refuse: nobody listens. reset: the question is read, then the connection is reset. black_hole: never answered. slow_drip:
    the answer comes a byte every `drip_s`. truncated: half of the answer, then the end. garbage: random bytes for an answer.
    wrong_status: HTTP 500, or an error reply in RESP. accept_then_close: closed at once. half_open: the store gets the question,
    the answer is lost, and nobody tells the store that its client has gone. `latency_s` comes on top, counted from the question.
    """

    def __init__(self, target: int, latency_s: float = 0.0, drip_s: float = 0.4) -> None:
        self.port = free_port()
        self.latency_s = latency_s
        self.questions = 0
        self.fault: Fault = "none"
        self._target = target
        self._drip_s = drip_s
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._clients)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._deafen()
        await self._cut()

    async def set(self, fault: Fault) -> None:
        """From now on this fault. What is open is reset, so that a new fault (or none) begins with new connections."""
        self.fault = fault
        await self._cut()
        if fault == "refuse":
            await self._deafen()
        elif self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _deafen(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()

    async def _cut(self) -> None:
        for client in list(self._clients):
            _reset(client)
        links = list(self._links)
        for link in links:
            link.cancel()
        if links:
            await asyncio.wait(links)
        await asyncio.sleep(0)  # for the closed connections' last callbacks

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        self._clients.add(writer)
        try:
            await self._link(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(writer)
            self._links.discard(link)
            writer.close()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault == "accept_then_close":
            return
        if self.fault in ("none", "slow_drip", "truncated", "half_open"):
            await self._through_the_store(reader, writer)
            return
        while data := await reader.read(1 << 16):
            self.questions += 1
            if self.fault == "reset":
                _reset(writer)
                return
            if answer := self._instead(data):
                await asyncio.sleep(self.latency_s)
                writer.write(answer)
                await writer.drain()

    def _instead(self, question: bytes) -> bytes:
        if self.fault == "garbage":
            return random.Random(7).randbytes(64)
        if self.fault == "wrong_status":
            return _RESP_ERROR * max(question.count(b"\r\n*") + 1, 1) if question[:1] == b"*" else _HTTP_500
        return b""

    async def _through_the_store(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self._target)
        asked = [0.0]

        def note() -> None:
            self.questions += 1
            asked[0] = asyncio.get_running_loop().time()

        answers = asyncio.create_task(self._answers(store_reader, writer, asked))
        try:
            await _pass_on(reader, store_writer, note)
            if self.fault == "half_open":
                await asyncio.Event().wait()
        finally:
            store_writer.close()  # before the wait, because a second cancellation may end that
            answers.cancel()
            await asyncio.wait({answers})

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[float]) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await asyncio.sleep(max(asked[0] + self.latency_s - asyncio.get_running_loop().time(), 0))
                if self.fault == "half_open":
                    continue
                if self.fault == "truncated":
                    writer.write(data[: len(data) // 2])
                    break
                await self._say(writer, data)
        writer.close()

    async def _say(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.fault != "slow_drip":
            writer.write(data)
            await writer.drain()
            return
        for place in range(len(data)):
            writer.write(data[place : place + 1])
            await writer.drain()
            await asyncio.sleep(self._drip_s)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[], None]) -> None:
    while data := await reader.read(1 << 16):
        note()
        writer.write(data)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a crash does: without waiting for anything."""
    raw = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
