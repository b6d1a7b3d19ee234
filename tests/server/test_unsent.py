"""Readers that do not read: what their answers hold, and how long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app.responses.cache import ResponseCache
from app.server.auth import Keys
from app.server.edge import Admission
from app.server.fast_path import FastPath
from app.server.plain_request import PlainRequest
from app.server.protocol import protocol_class
from app.server.unsent import UnsentBodies
from app.telemetry import Telemetry
from tests.servers.listening import listening

#: more than the kernel's buffers of a socket on the loopback take
BODY = bytes(16 << 20)
GET = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"
KEPT_GET = b"GET /v1/rows?metric=equity HTTP/1.1\r\nHost: b\r\n\r\n"


@asynccontextmanager
async def serving(unsent: UnsentBodies, body: Callable[[], bytes], loop: str, fast_path: Any = None) -> AsyncIterator[int]:
    """A server that answers everything with a large body: its port."""

    async def application(_: Scope, __: Receive, send: Send) -> None:
        content = body()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
        await send({"type": "http.response.body", "body": content})

    telemetry = Telemetry()
    nothing_kept = FastPath(ResponseCache(0, telemetry, lambda: 0), Keys({}, lambda: 0), telemetry.requests, 0)
    protocol = protocol_class(Admission(100, telemetry), fast_path or nothing_kept, unsent)
    async with listening(application, lifespan="off", http=protocol, timeout_graceful_shutdown=1, loop=loop) as port:
        yield port


def mute(port: int, request: bytes = GET) -> socket.socket:
    """A reader that asks and does not read."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    one.connect(("127.0.0.1", port))
    one.sendall(request)
    return one


class Kept:
    """A fast path that has one response for everybody."""

    def __init__(self) -> None:
        self.body = BODY

    def respond(self, _: PlainRequest) -> tuple[bytes, bytes, bytes]:
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(self.body), self.body, b""


async def status_of(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    writer.write(KEPT_GET)
    status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
    writer.close()
    return status


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def closed(telemetry: Telemetry) -> float | None:
    return telemetry.registry.get_sample_value("bridge_deaf_readers_total")


async def test_one_body_for_many_readers_is_held_once() -> None:
    unsent = UnsentBodies(1 << 30, 20, Telemetry())
    async with serving(unsent, lambda: BODY, "asyncio") as port:
        readers = [mute(port) for _ in range(5)]
        await until(lambda: len(unsent._held) == 5)  # noqa: SLF001  all of them are seen
        assert unsent.total_bytes() == len(BODY)
        for one in readers:
            one.close()
        await until(lambda: unsent.total_bytes() == 0)


async def test_bodies_of_their_own_are_held_each_until_they_are_read() -> None:
    unsent = UnsentBodies(1 << 30, 20, Telemetry())
    async with serving(unsent, lambda: bytes(len(BODY)), "asyncio") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(GET)
        other = mute(port)
        await until(lambda: unsent.total_bytes() == 2 * len(BODY))
        head = await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(len(BODY))) == len(BODY), head
        await until(lambda: unsent.total_bytes() == len(BODY))
        writer.close()
        other.close()


async def test_a_reader_that_takes_nothing_loses_its_connection() -> None:
    telemetry = Telemetry()
    unsent = UnsentBodies(1 << 30, 0.2, telemetry)
    async with serving(unsent, lambda: BODY, "asyncio") as port:
        one = mute(port)
        await until(lambda: closed(telemetry) == 1)
        assert unsent.total_bytes() == 0
        one.close()


async def test_a_slow_reader_that_takes_something_keeps_its_connection() -> None:
    telemetry = Telemetry()
    unsent = UnsentBodies(1 << 30, 0.4, telemetry)
    async with serving(unsent, lambda: BODY, "asyncio") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(12):
            await reader.readexactly(1 << 20)
            await asyncio.sleep(0.08)
        await reader.readexactly(len(BODY) - 12 * (1 << 20))
        assert closed(telemetry) == 0
        writer.close()


async def test_far_above_the_limit_the_reader_that_was_silent_for_longest_is_cut_off() -> None:
    telemetry = Telemetry()
    unsent = UnsentBodies(len(BODY), 20, telemetry)
    async with serving(unsent, lambda: bytes(len(BODY)), "asyncio") as port:
        readers = []
        for number in range(4):
            readers.append(mute(port))
            await until(lambda number=number: closed(telemetry) == max(number - 1, 0) and len(unsent._held) == min(number + 1, 2))  # type: ignore[misc]  # noqa: SLF001
        assert unsent.total_bytes() == 2 * len(BODY)
        for one in readers:
            one.close()


async def test_a_kept_answer_is_refused_while_too_much_waits_unless_it_is_what_waits() -> None:
    unsent, kept = UnsentBodies(len(BODY) * 3 // 2, 20, Telemetry()), Kept()
    async with serving(unsent, lambda: b"", "asyncio", kept) as port:
        one = mute(port, KEPT_GET)
        await until(lambda: unsent.total_bytes() == len(BODY))
        same = await status_of(port)
        kept.body = bytes(len(BODY))
        assert (same, await status_of(port)) == (200, 429)
        one.close()
        await until(lambda: unsent.total_bytes() == 0)
        assert await status_of(port) == 200


@pytest.mark.parametrize("size", [10, len(BODY)])
def test_there_is_room_for_what_is_small_or_held_already(size: int) -> None:
    unsent = UnsentBodies(1000, 20, Telemetry())
    assert unsent.has_room_for(bytes(size)) is (size == 10)
