from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import pytest
from starlette.types import Receive, Scope, Send

from app.responses.cache import ResponseCache
from app.server.auth import Keys
from app.server.edge import Admission, lane_of
from app.server.fast_path import FastPath
from app.server.plain_request import read_plain_request
from app.server.protocol import protocol_class
from app.server.unsent import UnsentBodies
from app.telemetry import Telemetry
from tests.servers.listening import listening

GET = b"GET /v1/rows?metric=equity HTTP/1.1\r\nHost: b\r\n\r\n"
POST = b"POST /json/query HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (GET, "/v1/rows"),
        (POST, "/json/query"),
        (POST[:-1], None),
        (POST + b"G", None),
        (GET + GET, None),
        (GET[:-2], None),
        (b"POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\nContent-Length: 0\r\n\r\n{}", None),
        (b"POST / HTTP/1.1\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nConnection: TE, close\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nConnection: Keep-Alive\r\n\r\n", "/"),
        (b"GET / HTTP/1.0\r\nHost: b\r\n\r\n", None),
        (b"POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nA: b\r\n c\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nA: b\nB: c\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nA\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nAccept: a\r\nAccept: b\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nContent-Length: +0\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nContent-Length: 00000000005\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nA: b\rB: c\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\n: b\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nhost: c\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nContent-Length: \x0c0\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nContent-Length: 0 \r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nContent-Length: 00\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nA: \x80\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: b\r\nA: \tb\r\n\r\n", None),
        (b"GET /?a=\xe9 HTTP/1.1\r\nHost: b\r\n\r\n", None),
        (b"GET /?a#b HTTP/1.1\r\nHost: b\r\n\r\n", None),
        (b"GET /%61 HTTP/1.1\r\nHost: b\r\n\r\n", None),
        (b"\x16\x03\x01", None),
        (b"", None),
    ],
)
def test_only_what_is_plainly_one_whole_request_is_read_without_a_parser(data: bytes, path: str | None) -> None:
    found = read_plain_request(data)
    assert (found.path.decode() if found else None) == path


#: nothing is kept
NEVER = FastPath(ResponseCache(0, Telemetry(), lambda: 0), Keys({}, lambda: 0), Telemetry().requests, 0)


@asynccontextmanager
async def serving(
    admission: Admission, received: type[bytes | bytearray] = bytes, arrival_s: float = 10, keep_alive_s: int = 5
) -> AsyncIterator[int]:
    """A server whose application reads and answers everything with 200; `received` is what the event loop hands over."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        lane = lane_of(scope["path"])
        with admission.occupy_slot() if lane else nullcontext():
            while (message := await receive()).get("more_body"):
                pass
        if message["type"] == "http.disconnect":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    class Received(protocol_class(admission, NEVER, UnsentBodies(1 << 20, 20, Telemetry()), arrival_s)):  # type: ignore[misc]  # a class made for these ones
        def data_received(self, data: bytes) -> None:
            super().data_received(received(data))

    chosen = {"timeout_graceful_shutdown": 1, "timeout_keep_alive": keep_alive_s}
    async with listening(application, lifespan="off", http=Received, **chosen) as port:
        yield port


async def say(port: int, *chunks: bytes) -> list[int]:
    """The statuses that come back for what is said on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    statuses = []
    for chunk in chunks:
        writer.write(chunk)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if not chunk.startswith(b"HEAD"):
            await reader.readexactly(length)
        statuses.append(int(head.split()[1]))
    writer.close()
    return statuses


@pytest.mark.parametrize("received", [bytes, bytearray])  # Windows' event loop hands over bytearrays
async def test_a_full_bridge_refuses_on_the_wire_and_goes_on_on_the_same_connection(received: type[bytes | bytearray]) -> None:
    telemetry = Telemetry()
    admission = Admission(10, telemetry)
    async with serving(admission, received) as port:
        admission.under_way = 9
        refused = await say(port, GET, POST, b"HEAD /v1/rows HTTP/1.1\r\nHost: b\r\n\r\n", GET)
        let_in = await say(port, b"GET /readyz HTTP/1.1\r\nHost: b\r\n\r\n", b"GET /alert/v1/rows HTTP/1.1\r\nHost: b\r\n\r\n")
        admission.under_way = 0
        again = await say(port, GET)
    assert (refused, let_in, again) == ([429] * 4, [200, 200], [200])
    assert telemetry.registry.get_sample_value("bridge_shed_total", {"lane": "interactive"}) == 4


async def test_a_request_in_pieces_is_the_parsers() -> None:
    admission = Admission(10, Telemetry())
    async with serving(admission) as port:
        admission.under_way = 9
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in (POST[:20], POST[20:-1], POST[-1:]):
            writer.write(piece)
            await asyncio.sleep(0.02)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert head.split()[1] == b"200"


@pytest.mark.parametrize("piece", [POST[:20], POST.replace(b": 2", b": 100000")], ids=["head", "body"])
async def test_a_request_that_drips_in_gives_its_place_back_and_is_told_so(piece: bytes) -> None:
    admission = Admission(10, Telemetry())
    async with serving(admission, arrival_s=0.3) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(piece)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        left = admission.under_way
    assert (answer.split()[1], b"connection: close" in answer.lower(), left) == (b"408", True, 0)
    assert answer.endswith(b'"message":"the request was not there as a whole within 0.3s; send it in one piece"}}')


async def test_a_head_that_does_not_end_is_refused_before_it_keeps_everybody_waiting() -> None:
    async with serving(Admission(10, Telemetry())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: b\r\nX: ".ljust(65_537, b"a"))
        async with asyncio.timeout(5):
            answer = await reader.read(1000)
        writer.close()
        body = b"GET /livez HTTP/1.1\r\nHost: b\r\nContent-Length: 200000\r\n\r\n" + b"a" * 200_000
        statuses = await say(port, body, body)
    assert (answer.split()[1], b"over 65536 bytes" in answer, statuses) == (b"431", True, [200, 200])


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n"], ids=["none", "two"])
async def test_a_request_without_exactly_one_host_is_refused(hosts: bytes) -> None:
    async with serving(Admission(10, Telemetry())) as port:
        statuses = [await say(port, GET.replace(b"Host: b\r\n", hosts)), await say(port, b"GET / HTTP/1.0\r\n\r\n")]
    assert statuses == [[400], [200]]


async def test_a_whole_request_is_not_cut_off_while_it_is_answered() -> None:
    admission = Admission(10, Telemetry())
    async with serving(admission, arrival_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(POST)
            await reader.readuntil(b"\r\n\r\nok")
            await asyncio.sleep(0.4)
        writer.close()


async def test_a_connection_on_which_nothing_is_said_is_closed() -> None:
    async with serving(Admission(10, Telemetry()), keep_alive_s=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
