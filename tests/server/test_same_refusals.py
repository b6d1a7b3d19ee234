"""The fast path refuses what the whole path refuses: one changed request is sent three times.

The first time its response may be kept. The second time it may leave before the parser. The third time it goes to a server that
keeps nothing and always parses. All three must be the same. Before them the unchanged request was answered, so it is kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from tests.server.two_ways import ROWS, TwoWays

Random = random.Random
Change = Callable[[Random, bytes], bytes]

BODY = (
    b'{"app":"dashboard","requestId":"Q101","timezone":"browser","range":{"from":"2023-11-14T21:13:25.500Z",'
    b'"to":"2023-11-14T22:13:25.500Z","raw":{"from":"now-1h","to":"now"}},"interval":"1m","intervalMs":60000,'
    b'"maxDataPoints":60,"targets":[{"refId":"A","target":"equity","payload":{"by":["account"],"step":"60s"}}],'
    b'"adhocFilters":[{"key":"account","operator":"=","value":"A1"}],"scopedVars":{"x":{"text":"a","value":"b"}},'
    b'"startTime":1700000005500}'
)
PANEL = b"POST /json/query HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n\r\n" + BODY
GET = b"GET %b&refId=A&step=60s&_=17 HTTP/1.1\r\nHost: b\r\nAccept: application/json\r\n\r\n" % ROWS.encode()

#: pieces of a body that are put in before a member, or in the place of a value
MEMBERS = [
    b'"requestId":"Q7",',
    b'"range":{"from":1,"to":2},',
    b'"startTime":5,',
    b'"r\\u0061nge":{"from":1700000000000,"to":1700000003600},',
    b'"re\\u0071uestId":"x",',
    b'"filters":[],',
    b'"filt\\u0065rs":[{"key":"account","operator":"=","value":"A2"}],',
    b'"from":1,',
    b'"unknown":{"a":1,"a":2},',
    b'"unknown":[1e999,NaN],',
    b'"unknown":"\xff",',
    b'"unknown":"\\u0000",',
    b'"unknown":"\\ud800",',
    b'"un\xc3\xa9":1,',
    b'"format":"table",',
    b'"where":"account=A2",',
    b'"panelId":7,',
    b'"deep":' + b"[" * 600 + b"]" * 600 + b",",
    b'"a":"' + b"x" * 70_000 + b'",',
]
VALUES = [
    *(b"NaN", b"1e5", b"1e999", b"-0", b"0123", b"1.5", b"-5", b"12345678901234567890123", b"null", b"true", b'""', b'"now-1h"'),
    *(b'"now"', b'"now-1M/M"', b'"2023-11-14"', b'"2023-11-14T21:13:25.500+05:00"', b'"\\u006eow"', b'"\\n"', b"[]", b"{}"),
    *(b'"1700000000000"', b"1700000000", b'"x\xff"', b'"$__from"', b'"\\u0000"', b'"\x7f"', b'"\xc3\xa9"', b'"a\tb"', b'"range"'),
    *(b'{"from":1700000000000,"to":1700000003600,"from":3}', b'{"to":1700000003600,"from":1700000000000}', b'"a:b"'),
]
HEADERS = [
    *(b"content-type: multipart/form-data; boundary=x", b"Content-Type: multipart/form-data", b"CONTENT-TYPE: text/plain"),
    *(b"Content-Type: application/x-www-form-urlencoded", b"Content-Type: \x80", b"Host: c", b"HOST: b", b"host:b", b"Host:\tb"),
    *(b"Accept: text/csv", b"accept: text/csv ", b"Accept: application/xml", b"ACCEPT:text/csv", b"Accept: \xe9", b"Accept:"),
    *(b"Accept-Encoding: gzip", b"Connection: close", b"Connection: Keep-Alive", b"Proxy-Connection: close", b"X-Request-Id: 7 "),
    *(b"X-Request-Id: \xff", b"X-Request-Id: a\x00b", b"X-Request-Id: a\tb", b"Origin: http://elsewhere", b"X: a\x0cb"),
    *(
        b"X: \x7f",
        b"X : b",
        b"X",
        b": b",
        b" folded",
        b"X: a\nY: b",
        b"X: a\rY: b",
        b"Authorization: Bearer x",
        b"Range: bytes=0-1",
    ),
    *(b"Content-Length: \x0c71", b"Content-Length: 0", b"Content-Length: +0", b"Transfer-Encoding: chunked", b"TE: trailers"),
    *(b"X-Bridge-Errors: inband", b"X-Forwarded-For: 1.2.3.4", b"Upgrade: websocket", b"If-None-Match: *", b"X: " + b"a" * 5000),
]
QUERIES = [
    *(b"from=now-2h", b"from=", b"from=garbage", b"from=now-1h&from=now-1h", b"to=now%00", b"to=%ff", b"to=\xe9", b"to=now/d"),
    *(
        b"where=account%3DA1",
        b"where=" + b"account%3DA1%2C" * 300,
        b"where=account%3D" + b"x" * 3000,
        b"_=18",
        b"_x=%00",
        b"_y=%ff",
    ),
    *(
        b"unknown=1",
        b"var-x=1",
        b"var-account=A1",
        b"timeout=0",
        b"timeout=1",
        b"limit=2",
        b"limit=0",
        b"time=iso",
        b"marks=true",
    ),
    *(
        b"step=0",
        b"step=range",
        b"format=csv",
        b"format=xml",
        b"shape=wide",
        b"refId=" + b"A" * 300,
        b"maxDataPoints=NaN",
        b"a#b",
    ),
    *(
        b'x="<>',
        b"cursor=x",
        b"metric=pnl",
        b"metric=no_such",
        b"by=nothing",
        b"instant=maybe",
        b"from=1e999",
        b"+=+",
        b"&&",
        b"=",
        b"%",
    ),
    b"&".join(b"_%d=1" % number for number in range(150)),
    b"&".join(b"_%d=1" % number for number in range(250)),
]
FIRST_LINES = [
    *(
        (b"GET ", b"HEAD "),
        (b"POST ", b"HEAD "),
        (b"GET ", b"PUT "),
        (b"POST ", b"OPTIONS "),
        (b"POST ", b"post "),
        (b"/v1/rows?", b"/v1/rows/?"),
    ),
    *(
        (b"/v1/rows?", b"//v1/rows?"),
        (b"/v1/rows?", b"/v1/%72ows?"),
        (b"/v1/rows?", b"/alert/v1/rows?"),
        (b"/v1/rows?", b"/v1/rows?? "),
    ),
    *((b"/json/query ", b"/json/query/ "), (b"/json/query ", b"/json/query?errors=inband "), (b"/json/query ", b"/json/query# ")),
    *(
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"HTTP/1.2"),
        (b"HTTP/1.1", b"http/1.1"),
        (b" HTTP", b"  HTTP"),
        (b"\r\n", b"\n"),
    ),
    *(
        (b"Host: b\r\n", b""),
        (b"/v1/rows?", b"http://b/v1/rows?"),
        (b"/v1/rows?", b"/v1/rows?\x7f="),
        (b"metric", b"m\xc3\xa9tric"),
    ),
]


def splice_in(chance: Random, text: bytes, at: bytes, more: Sequence[bytes]) -> bytes:
    """The text with one of the pieces before or behind some occurrence of `at`."""
    places = [index for index in range(len(text)) if text.startswith(at, index)]
    index = chance.choice(places) if places else 0
    return text[:index] + chance.choice(more) + text[index:]


def change_body(chance: Random, request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    which = chance.randrange(7)
    if which == 0:
        body = splice_in(chance, body, b'"', MEMBERS)
    elif which == 1:
        body = body.replace(b"{", b"{" + chance.choice(MEMBERS), 1)
    elif which == 2:
        body = replace_value(chance, body)
    elif which == 3:
        body = chance.choice((b"\xef\xbb\xbf", b" ", b"\n\t", b"\x0c", b"\xfe\xff")) + body
    elif which == 4:
        body += chance.choice((b" ", b"\n", b"\x0b", b"x", b"{}", b"\x00", b","))
    elif which == 5:
        body = body.replace(chance.choice((b",", b":", b"{", b"}")), chance.choice((b" , ", b" : ", b"{ ", b"\t}")))
    else:
        index = chance.randrange(len(body))
        body = body[:index] + bytes([chance.randrange(256)]) + body[index + 1 :]
    return head + b"\r\n\r\n" + body


def replace_value(chance: Random, body: bytes) -> bytes:
    """Another value for one of the members, at whatever depth."""
    starts = [index + 1 for index in range(len(body)) if body[index] == ord(":") and body[index - 1] == ord('"')]
    start = chance.choice(starts) if starts else 0
    end = next((index for index in range(start, len(body)) if body[index] in b",}]"), len(body))
    return body[:start] + chance.choice(VALUES) + body[end:]


def change_header(chance: Random, request: bytes) -> bytes:
    lines = request.split(b"\r\n")
    place = chance.randrange(1, lines.index(b""))
    line = chance.choice(HEADERS)
    return b"\r\n".join([*lines[:place], line, *lines[place + chance.randrange(2) :]])


def change_query(chance: Random, request: bytes) -> bytes:
    mark = b" HTTP/1.1" if chance.random() < 0.5 else b"&refId"
    separator = b"&" if b"?" in request.partition(b"\r\n")[0] else b"?"
    return request.replace(mark, separator + chance.choice(QUERIES) + mark, 1)


def change_first_line(chance: Random, request: bytes) -> bytes:
    old, new = chance.choice(FIRST_LINES)
    return request.replace(old, new, 1)


def with_length(request: bytes) -> bytes:
    """The request with the length of its body, unless it has one already."""
    head, _, body = request.partition(b"\r\n\r\n")
    if not body or b"content-length" in head.lower():
        return request
    return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


CHANGES: Sequence[Change] = (change_body, change_body, change_header, change_query, change_first_line)


@pytest.mark.parametrize("seed", range(12))
async def test_a_changed_request_is_answered_or_refused_alike_on_both_ways(two: TwoWays, seed: int) -> None:
    chance = random.Random(seed)
    refused = 0
    for number in range(100):
        plain = PANEL if chance.random() < 0.6 else GET
        changed = plain
        for _ in range(chance.choice((1, 1, 1, 2))):
            change = chance.choice(CHANGES)
            changed = change(chance, changed) if plain is PANEL or change is not change_body else change_query(chance, changed)
        changed = with_length(changed)
        await two.short.send(with_length(plain))
        replies = [await client.send_alone(changed) for client in (two.short, two.short, two.whole)]
        refused += replies[2] is None or replies[2][0] >= 400
        assert replies[0] == replies[1] == replies[2], (seed, number, changed[:600])
    assert two.hits > 40
    assert refused > 10
