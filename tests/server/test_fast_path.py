"""The fast path gives what the whole way gives, and is left as soon as it would not."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson
import pytest

from app.contracts.request_key import Inspection
from app.errors import SourceUnavailable, TooBusy
from app.model import Frame, Statement
from app.query.admission import Caller
from app.responses.cache import RequestKey, ResponseCache
from app.server.auth import Keys
from app.server.fast_path import FastPath
from app.server.plain_request import read_plain_request
from app.telemetry import Telemetry
from tests.contracts.app_under_test import KINDS, NOW, without_ages
from tests.frames import frame
from tests.server.raw import Reply, request_bytes
from tests.server.two_ways import HOUR_MS, PARTS, ROWS, TwoWays, panel


@pytest.mark.parametrize("seed", range(8))
async def test_kept_responses_equal_those_that_go_the_whole_way(two: TwoWays, seed: int) -> None:
    chance = random.Random(seed)
    targets: list[Mapping[str, Any]] = [
        {"target": "equity", "payload": {"by": ["account"]}},
        {"target": "pnl"},
        {"target": "cpu_load", "type": "table"},
        {"target": "equity", "payload": {"format": "frame"}},
        {"target": "deploys"},
        {"target": "no_such"},
    ]

    async def live(statement: Statement) -> Frame:
        value = float(two.clock.now_ms // 1000 % 60)
        return Frame(np.array([statement.range.from_ms]), np.array([value]), ((("account", "A1"),),), (0, 1))

    asked = 0
    for _ in range(300):
        two.clock.now_ms += chance.choice((0, 0, 0, 1, 1, 300, 999, 4_000, 11_000, 61_000))
        if chance.random() < 0.03:
            name = chance.choice(sorted(KINDS))
            two.sources[name].answer = SourceUnavailable(name, "away")
        elif chance.random() < 0.2:
            two.heal()
            two.sources["rts"].answer = live
        if chance.random() < 0.5:
            chosen = panel(
                two.clock.now_ms - chance.choice((0, 0, 500)),
                *chance.choices(targets, (4, 4, 2, 1, 1, 1), k=chance.choice((1, 1, 2))),
            )
            chosen["maxDataPoints"] = chance.choice((60, 60, 60, 60, 30))
            short, whole = [await client.post("/json/query", chosen) for client in (two.short, two.whole)]
        else:
            query = chance.choice(("metric=equity&by=account", "metric=pnl,cpu_load", "metric=equity&shape=wide&format=csv"))
            today = f"&from={NOW - HOUR_MS}&to={NOW + HOUR_MS}"
            query += chance.choice(("&from=now-1h", f"&from={NOW - HOUR_MS}&to={NOW}", today, today, "&step=5m", "&limit=2"))
            short, whole = [await client.get(f"/v1/rows?{query}") for client in (two.short, two.whole)]
        asked += 1
        assert short.comparable == whole.comparable
    assert (asked, two.hits > 15) == (300, True)


async def test_a_kept_response_has_its_age_written_anew(two: TwoWays) -> None:
    first = await two.short.get(ROWS)
    two.clock.now_ms += 3_000
    again = await two.short.get(ROWS)
    meta = orjson.loads(again.body)["meta"]
    facts = meta["metrics"]["equity"]
    assert two.hits == PARTS
    assert [reply.header("bridge-result") for reply in (first, again)] == [
        '"A";status=fresh;age_s=0.0',
        '"A";status=fresh;age_s=3.0',
    ]
    assert (facts["age_s"], [source["age_s"] for source in facts["sources"]]) == (3.0, [3.0, 3.0])
    assert meta["to"] == two.clock.now_ms


async def test_a_response_is_kept_no_longer_than_its_parts_are_fresh(two: TwoWays) -> None:
    await two.short.get(ROWS)
    two.clock.now_ms += 10_001
    two.sources["rts"].answer = SourceUnavailable("rts", "away")
    again = await two.short.get(ROWS)
    assert "status=stale" in (again.header("bridge-result") or "")
    assert two.hits == 0


async def test_a_request_id_and_a_start_time_make_no_other_request(two: TwoWays) -> None:
    for number in range(3):
        body = panel(NOW, {"target": "equity"}, requestId=f"Q{number}", startTime=NOW + number, app="dashboard")
        await two.short.post("/json/query", body)
    assert two.hits == 2 * PARTS


@pytest.mark.parametrize(
    "change",
    [
        {"maxDataPoints": 30},
        {"intervalMs": 120_000},
        {"adhocFilters": [{"key": "account", "operator": "=", "value": "A1"}]},
        {"filters": [{"key": "account", "operator": "=", "value": "A1"}]},
        {"scopedVars": {"x": {"value": "1"}}},
        {"range": {"from": NOW - HOUR_MS - 60_000, "to": NOW - 60_000}},
        {"range": {"from": NOW - 2 * HOUR_MS, "to": NOW}},
        {"targets": [{"refId": "B", "target": "equity"}]},
    ],
)
async def test_another_request_is_never_given_this_ones_response(two: TwoWays, change: dict[str, Any]) -> None:
    body = panel(NOW, {"target": "equity"})
    await two.short.post("/json/query", body)
    await two.short.post("/json/query", body | change)
    assert two.hits == 0


async def test_a_browser_of_another_origin_goes_the_whole_way(two: TwoWays) -> None:
    for _ in range(2):
        await two.short.get(ROWS, origin="http://elsewhere")
    assert two.hits == 0


@pytest.mark.parametrize(
    "whole",
    [request_bytes("POST", "/json/query", orjson.dumps(panel(NOW, {"target": "equity"}))), request_bytes("GET", ROWS)],
    ids=["panel", "rows"],
)
async def test_a_request_that_came_in_pieces_fills_the_cache_for_those_that_come_whole(two: TwoWays, whole: bytes) -> None:
    first = await two.short.send(whole[:30], whole[30:])
    kept = await two.short.send(whole)
    assert (first.status, two.hits) == (200, PARTS)
    assert first.comparable == kept.comparable


@pytest.fixture
async def large(two: TwoWays) -> TwoWays:
    """With a kept response that is worth compressing."""
    many = frame({f"account=A{index}": {NOW - HOUR_MS + 60_000 * bucket: bucket for bucket in range(50)} for index in range(20)})
    two.sources["duckdb"].answer = many
    await two.short.get(ROWS)
    return two


async def compressed_later(two: TwoWays, encodings: str) -> Reply:
    """The response, asked until it comes compressed or has been asked for often."""
    for _ in range(50):
        reply = await two.short.get(ROWS, accept_encoding=encodings)
        if reply.header("content-encoding"):
            break
        await asyncio.sleep(0.01)
    return reply


async def test_a_caller_that_accepts_gzip_gets_a_kept_response_compressed_and_the_same(large: TwoWays) -> None:
    plain, packed = await large.short.get(ROWS, accept_encoding="identity"), await compressed_later(large, "br, gzip")
    assert (packed.header("content-encoding"), packed.header("vary")) == ("gzip", "Accept-Encoding")
    assert without_ages(gzip.decompress(packed.body)) == without_ages(plain.body)
    assert len(packed.body) < len(plain.body) / 2


@pytest.mark.parametrize("encodings", ["identity", "br", "gzip;q=0", "gzip; q=0.0, br", "xgzip"])
async def test_a_caller_that_does_not_accept_gzip_gets_none(large: TwoWays, encodings: str) -> None:
    await compressed_later(large, "gzip")
    assert (await compressed_later(large, encodings)).header("content-encoding") is None


async def test_a_compressed_response_takes_room_of_its_own(large: TwoWays) -> None:
    before = large.service.responses.size_bytes
    await compressed_later(large, "gzip")
    assert 0 < large.service.responses.size_bytes - before < 5000


async def test_kept_responses_are_in_the_histogram_too(two: TwoWays) -> None:
    for _ in range(5):
        await two.short.get(ROWS)
    exposed = (await two.short.get("/metrics")).body.decode()
    counts = [
        re.findall(rf'{name}{{[^}}]*route="/v1/rows"[^}}]*}} (\S+)', exposed) for name in ("_count", "_requests_total", "_sum")
    ]
    assert counts[0] == counts[1] == ["5.0"]
    assert float(counts[2][0]) > 0


HEAVY = request_bytes(
    "POST", "/json/query", orjson.dumps(panel(NOW, {"target": "equity"}, requestId="Q1")), {"X-Request-Id": "7"}
)


def looked_at(refuse: Callable[[RequestKey, Caller], TooBusy | None]) -> Any:
    """What the fast path says of a request whose response is not kept, and the metrics of requests."""
    telemetry = Telemetry()
    fast_path = FastPath(ResponseCache(0, telemetry, lambda: NOW), Keys({}, lambda: NOW), telemetry.requests, 1 << 20, refuse)
    request = read_plain_request(HEAVY)
    assert request is not None
    found = fast_path.respond(request)
    counted = telemetry.registry.get_sample_value("bridge_http_requests_total", {"route": "/json/query", "status": "429"})
    return found, counted


def test_a_heavy_request_that_cannot_be_done_in_time_is_refused_before_it_is_parsed() -> None:
    (head, body, end), counted = looked_at(lambda *_: TooBusy("too much work", retry_after_s=7))
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert {b"retry-after: 7", b"x-request-id: 7", b"content-length: %d" % len(body)} <= set(head.split(b"\r\n"))
    assert (orjson.loads(body)["error"], end, counted) == ({"code": "too_busy", "message": "too much work"}, b"", 1)


def test_any_other_request_goes_on_to_the_parser_with_its_key_and_its_callers_name() -> None:
    seen: list[tuple[RequestKey, Caller]] = []
    found, counted = looked_at(lambda *given: seen.append(given))
    [(key, caller)] = seen
    assert (found, counted, caller) == (Inspection("", key), None, Caller())
