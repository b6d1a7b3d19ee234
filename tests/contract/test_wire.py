"""Answers that are ready leave before the parser has looked: they must be those of the whole way, and nothing else may."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.auth import Keys, KeySettings
from app.shedding import protocol
from tests.contract.test_ready import ROWS, Two, two
from tests.servers.listening import listening

__all__ = ["two"]

BODY = (
    b'{"targets":[{"refId":"A","target":"equity","payload":{"by":["account"]}}],"maxDataPoints":60,'
    b'"range":{"from":"2023-11-14T21:13:25.500Z","to":"2023-11-14T22:13:25.500Z"}}'
)
PANEL = b"POST /json/query HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
GET = b"GET %b HTTP/1.1\r\nHost: b\r\nAccept: application/json\r\n\r\n" % ROWS.encode()
CSV = b"GET %b&format=csv HTTP/1.1\r\nHost: b\r\n\r\n" % ROWS.encode()
#: of each of these answers: history and live edge
PARTS = 2
#: this makes it the parser's: a request that says more than its head and a body of that length
PARSED = b"Expect: 100-continue\r\n"


@asynccontextmanager
async def on_the_wire(two: Two, keep_alive_s: int = 5) -> AsyncIterator[int]:
    """The port of a server with the protocol of `bridge serve`."""
    state = two.app.state
    chosen = {"http": protocol(state.admission, state.hot, state.keys), "lifespan": "off", "server_header": False}
    async with listening(two.app, timeout_graceful_shutdown=1, timeout_keep_alive=keep_alive_s, **chosen) as port:
        yield port


async def read(reader: asyncio.StreamReader) -> tuple[list[bytes], bytes]:
    """The lines of an answer's head, sorted and without what is another one each time, and its body."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    body = await reader.readexactly(int(re.findall(rb"(?i)content-length: (\d+)", head)[0]))
    told = re.sub(rb"(?i)date: [^\r]+|age_s=[0-9.]+|dur=[0-9.]+|content-length: \d+", b"", head)
    return sorted(line.lower() for line in told.split(b"\r\n")), re.sub(rb'"(age_s|ms)":[0-9.e-]+', b"", body)


#: with an id of its own, as HAProxy gives one
NAMED = GET.replace(b"Host", b"X-Request-Id: 4711\r\nHost")


@pytest.mark.parametrize("request_bytes", [PANEL, GET, CSV, NAMED], ids=["panel", "rows", "csv", "named"])
async def test_an_answer_before_the_parser_is_the_answer_behind_it(two: Two, request_bytes: bytes) -> None:
    async with on_the_wire(two) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = []
        # The whole way; before the parser; in two pieces, so behind it.
        for pieces in ([request_bytes], [request_bytes], [request_bytes[:50], request_bytes[50:]]):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.05)
            found.append(await read(reader))
        writer.close()
    assert found[0] == found[1] == found[2]
    assert (b"http/1.1 200 ok" in found[0][0], two.hits) == (True, 2 * PARTS)
    assert (b"x-request-id: 4711" in found[0][0]) is (request_bytes is NAMED)


async def test_an_id_comes_back_without_what_no_header_may_have(two: Two) -> None:
    async with on_the_wire(two) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for one in (GET, NAMED.replace(b"4711", b"47\x00\x7f11\t")):
            writer.write(one)
            head, _ = await read(reader)
        writer.close()
    assert b"x-request-id: 4711" in head


async def test_before_the_parser_too_only_a_key_opens(two: Two) -> None:
    key = b"tdsb_test"
    two.app.state.keys = Keys({"a": KeySettings(sha256=hashlib.sha256(key).hexdigest())}, two.clock)
    wired, wire = [], two.app.state.hot.wired

    def noting(path: bytes, *rest: Any) -> Any:
        wired.append(path)
        return wire(path, *rest)

    two.app.state.hot.wired = noting
    async with on_the_wire(two) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for line in (b"", b"Authorization: Bearer wrong\r\n", b"Authorization: Bearer %b\r\n" % key):
            writer.write(GET.replace(b"Host", line + b"Host"))
            await read(reader)
        writer.close()
    assert wired == [b"/v1/rows"]


async def test_requests_that_come_together_are_answered_in_their_order(two: Two) -> None:
    async with on_the_wire(two) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        alone = []
        for one in (PANEL, GET):
            writer.write(one)
            alone.append(await read(reader))
        writer.write(GET + PANEL + GET)
        together = [await read(reader) for _ in range(3)]
        writer.close()
    assert together == [alone[1], alone[0], alone[1]]


async def test_of_two_accepted_types_the_first_counts_and_spoils_nobody_elses_answer(two: Two) -> None:
    first = GET.replace(b"Accept: application/json", b"Accept: text/\r\nAccept: csv")
    async with on_the_wire(two) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        bodies = []
        for one in (first, GET.replace(b"application/json", b"text/csv")):
            writer.write(one)
            bodies.append((await read(reader))[1])
        writer.close()
    assert (bodies[0][:9], bodies[1][:5]) == (b'{"rows":[', b"time,")


async def test_a_body_that_is_refused_is_refused_though_its_answer_is_ready(two: Two) -> None:
    refused = PANEL.replace(b"application/json", b"multipart/form-data; boundary=x")
    async with on_the_wire(two) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        statuses = []
        for pieces in ([PANEL], [refused], [refused[:50], refused[50:]]):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.05)
            statuses += [line.split()[1] for line in (await read(reader))[0] if line.startswith(b"http/1.1 ")]
        writer.close()
    assert statuses == [b"200", b"400", b"400"]


@pytest.mark.parametrize(
    "line",
    [b"Origin: http://elsewhere\r\n", b"Connection: close\r\n", b"Connection: TE, close\r\n", PARSED],
    ids=["origin", "close", "te", "expect"],
)
async def test_what_needs_a_longer_look_is_not_answered_before_the_parser(
    two: Two, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wired = []
    monkeypatch.setattr(two.app.state.hot, "wired", lambda *told: wired.append(told))
    async with on_the_wire(two) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await read(reader)
        writer.write(GET.replace(b"Host", line + b"Host"))
        await asyncio.wait_for(reader.readuntil(b"200 OK\r\n"), 5)
        writer.close()
    assert len(wired) == 1


async def test_a_connection_that_is_answered_before_the_parser_lives_as_long_as_any_other(two: Two) -> None:
    async with on_the_wire(two, keep_alive_s=1) as port:
        await two.short.get(ROWS, headers={"accept": "application/json"})
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(GET)
            await read(reader)
            await asyncio.sleep(0.6)
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.close()
    assert two.hits == 3 * PARTS
