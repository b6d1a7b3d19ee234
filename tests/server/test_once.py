"""Each part of a request is looked at once, whichever way it takes: counted in the running code, nothing is replaced."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import orjson
import pytest

from app.contracts import request, request_key
from app.responses.cache import ResponseCache
from app.server.auth import Keys
from tests.contracts.app_under_test import NOW
from tests.server.raw import Reply, request_bytes
from tests.server.two_ways import PARTS, ROWS, TwoWays, panel, two_ways

KEY = "tdsb_test"
AUTH = {"keys": {"grafana": {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}}}
HEADERS = {"Authorization": f"Bearer {KEY}"}
PANEL = request_bytes("POST", "/json/query", orjson.dumps(panel(NOW, {"target": "equity"}, requestId="Q1")), HEADERS)
GET = request_bytes("GET", ROWS, b"", HEADERS)
STEPS: Mapping[CodeType, str] = {
    Keys.find_name.__code__: "API key checked",
    request_key.panel_key.__code__: "request key made",
    request_key.rows_key.__code__: "request key made",
    ResponseCache.find.__code__: "looked up",
    request.object_of.__code__: "body parsed",
    ResponseCache.keep.__code__: "kept",
}


@contextmanager
def counted(steps: Mapping[CodeType, str]) -> Iterator[Counter[str]]:
    """How often each of the steps is called while the block runs."""
    calls = Counter[str]()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in steps:
            calls[steps[frame.f_code]] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def asked(two: TwoWays, *pieces: bytes) -> tuple[Reply, dict[str, int]]:
    with counted(STEPS) as calls:
        reply = await two.short.send(*pieces)
    return reply, dict(calls)


@pytest.mark.parametrize(("whole", "body"), [(PANEL, {"body parsed": 1}), (GET, {})], ids=["panel", "rows"])
async def test_the_fast_path_does_each_step_once_on_a_miss_and_on_a_hit(whole: bytes, body: dict[str, int]) -> None:
    once = {"API key checked": 1, "request key made": 1, "looked up": 1}
    async with two_ways(auth=AUTH) as two:
        missed, on_a_miss = await asked(two, whole)
        hit, on_a_hit = await asked(two, whole)
        hits = two.hits
    assert (missed.status, hit.status, hits) == (200, 200, PARTS)
    assert on_a_miss == {**once, **body, "kept": 1}
    assert on_a_hit == once


@pytest.mark.parametrize(("whole", "body"), [(PANEL, {"body parsed": 1}), (GET, {})], ids=["panel", "rows"])
async def test_a_request_in_pieces_has_each_step_done_once_by_the_application(whole: bytes, body: dict[str, int]) -> None:
    async with two_ways(auth=AUTH) as two:
        reply, calls = await asked(two, whole[:20], whole[20:])
    assert (reply.status, calls) == (200, {"API key checked": 1, "request key made": 1, "kept": 1, **body})


async def test_a_wrong_key_is_checked_once_and_looks_nothing_up() -> None:
    async with two_ways(auth=AUTH) as two:
        reply, calls = await asked(two, GET.replace(KEY.encode(), b"tdsb_wrong"))
    assert (reply.status, calls) == (401, {"API key checked": 1})
