"""Kept responses leave before the parser has looked: they must be those of the whole way, and nothing else may."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from tests.server.two_ways import PARTS, ROWS, TwoWays, two_ways

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
#: with an id of its own, as HAProxy gives one
NAMED = GET.replace(b"Host", b"X-Request-Id: 4711\r\nHost")


@pytest.mark.parametrize("request_bytes", [PANEL, GET, CSV, NAMED], ids=["panel", "rows", "csv", "named"])
async def test_a_response_before_the_parser_is_the_response_behind_it(two: TwoWays, request_bytes: bytes) -> None:
    # The whole way; before the parser; in two pieces, so behind it.
    pieces = ([request_bytes], [request_bytes], [request_bytes[:50], request_bytes[50:]])
    first, second, third = [await two.short.send(*some) for some in pieces]
    assert first.comparable == second.comparable == third.comparable
    assert (first.status, two.hits) == (200, PARTS)
    assert first.header("x-request-id") == ("4711" if request_bytes is NAMED else None)


async def test_an_id_comes_back_without_what_no_header_may_have(two: TwoWays) -> None:
    replies = [await two.short.send(one) for one in (GET, NAMED.replace(b"4711", b"4711\t"), NAMED.replace(b"4711", b"4711 "))]
    assert [reply.header("x-request-id") for reply in replies] == [None, "4711", "4711"]


async def test_only_an_admitted_key_gets_a_kept_response() -> None:
    key = b"tdsb_test"
    lines = (
        b"Authorization: Bearer %b\r\n" % key,
        b"",
        b"Authorization: Bearer wrong\r\n",
        b"Authorization: Bearer %b\r\n" % key,
    )
    async with two_ways(auth={"keys": {"a": {"sha256": hashlib.sha256(key).hexdigest()}}}) as two:
        statuses = [(await two.short.send(GET.replace(b"Host", line + b"Host"))).status for line in lines]
        hits = two.hits
    assert (statuses, hits) == ([200, 401, 401, 200], PARTS)


async def test_requests_that_come_together_are_answered_in_their_order(two: TwoWays) -> None:
    alone = [(await two.short.send(one)).comparable for one in (PANEL, GET)]
    together = [await two.short.send(GET + PANEL + GET), await two.short.read(), await two.short.read()]
    assert [reply.comparable for reply in together] == [alone[1], alone[0], alone[1]]


async def test_of_two_accepted_types_the_first_counts_and_spoils_no_other_response(two: TwoWays) -> None:
    twice = GET.replace(b"Accept: application/json", b"Accept: text/\r\nAccept: csv")
    bodies = [(await two.short.send(one)).body for one in (twice, GET.replace(b"application/json", b"text/csv"))]
    assert (bodies[0][:9], bodies[1][:5]) == (b'{"rows":[', b"time,")


async def test_a_body_that_is_refused_is_refused_though_its_response_is_kept(two: TwoWays) -> None:
    refused = PANEL.replace(b"application/json", b"multipart/form-data; boundary=x")
    replies = [await two.short.send(*pieces) for pieces in ([PANEL], [refused], [refused[:50], refused[50:]])]
    assert [reply.status for reply in replies] == [200, 400, 400]


@pytest.mark.parametrize(
    "line",
    [b"Origin: http://elsewhere\r\n", b"Connection: close\r\n", b"Connection: TE, close\r\n", b"Expect: 100-continue\r\n"],
    ids=["origin", "close", "te", "expect"],
)
async def test_what_needs_a_longer_look_is_not_answered_before_the_parser(two: TwoWays, line: bytes) -> None:
    await two.short.send(GET)
    reply = await two.short.send(GET.replace(b"Host", line + b"Host"))
    if reply.status == 100:
        reply = await two.short.read()
    assert (reply.status, two.hits) == (200, 0)


async def test_a_connection_that_is_answered_before_the_parser_lives_as_long_as_any_other() -> None:
    async with two_ways(keep_alive_s=1) as two:
        await two.whole.send(GET)
        for _ in range(4):
            await two.short.send(GET)
            await asyncio.sleep(0.6)
        hits = two.hits
        with pytest.raises(asyncio.IncompleteReadError):
            await two.short.read()
    assert hits == 3 * PARTS
