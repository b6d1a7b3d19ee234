"""The short way to an answer that is ready gives what the whole way gives, and is left as soon as it would not."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from app.catalog import load
from app.config import settings_from
from app.contracts.grafana_json import parse
from app.contracts.hot import PANEL_FIELDS
from app.errors import SourceUnavailable
from app.main import application, assemble
from app.model import Frame, Statement
from app.ops import Operations
from tests.contract.app_under_test import CPU, HISTORY, KINDS, LIVE, NOW, PNL, TEXT, UNHURRIED, Scripted, settings, without_ages
from tests.unit.frames import frame

HOUR_MS = 3_600_000
GOOD = {"rts": LIVE, "duckdb": HISTORY, "clickhouse": PNL, "prometheus": CPU}
ROWS = "/v1/rows?metric=equity&by=account&from=now-1h"


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now_ms = NOW

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Two:
    """The same bridge behind two applications: one keeps finished answers, the other goes the whole way each time."""

    clock: Clock
    sources: dict[str, Scripted]
    short: httpx.AsyncClient
    whole: httpx.AsyncClient
    operations: Operations
    #: the application that keeps finished answers
    app: FastAPI

    def heal(self) -> None:
        """Every source answers again and its circuit knows it."""
        for name, answer in GOOD.items():
            self.sources[name].answer = answer
            self.operations.guards[name].breaker.probe_passed()

    @property
    def hits(self) -> float:
        """Parts of answers that were ready."""
        exposed = self.operations.telemetry.exposition().decode()
        return sum(map(float, re.findall(r'bridge_cache_hits_total\{how="ready",source="\w+"\} (\S+)', exposed)))


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    values = settings().model_dump(mode="json")
    for source in values["sources"].values():
        source["policy"] |= {"fresh_s": 10, "stale_s": 900} | UNHURRIED
    clock, sources = Clock(), {name: Scripted(name) for name in KINDS}
    chosen = settings_from(values | {"request": {"budget_s": 30}}, "test")
    operations = assemble(chosen, load({"catalogue.yaml": TEXT}, KINDS), sources, clock)
    none_ready = settings_from(values | {"request": {"budget_s": 30, "ready_bytes": 0}}, "test")
    for name, answer in GOOD.items():
        sources[name].answer = answer
    apps = [application(one, operations) for one in (chosen, none_ready)]
    short, whole = (httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bridge") for app in apps)
    async with short, whole:
        yield Two(clock, sources, short, whole, operations, apps[0])


def panel(now_ms: int, *targets: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "targets": [{"refId": chr(ord("A") + place), **target} for place, target in enumerate(targets)],
        "range": {"from": now_ms - HOUR_MS, "to": now_ms},
        "maxDataPoints": 60,
        **more,
    }


class Reads(dict[str, Any]):
    """A body that notes which of its fields are read."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.seen: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("a body that is read as a whole depends on every field")


async def test_the_short_way_looks_at_every_field_that_the_whole_way_reads(two: Two) -> None:
    body = Reads(panel(NOW, {"target": "$metric"}, scopedVars={"metric": {"value": "equity"}}, intervalMs=1000))
    parse(two.operations.bridge, body)
    assert body.seen == set(PANEL_FIELDS)


@pytest.mark.parametrize("seed", range(8))
async def test_answers_that_are_ready_equal_those_that_go_the_whole_way(two: Two, seed: int) -> None:
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
        return Frame(np.array([statement.range.from_ms]), np.array([value]), ((("account", "A1"),),), (0, 1), asked_ms=0)

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
            found = [await client.post("/json/query", json=chosen) for client in (two.short, two.whole)]
        else:
            query = chance.choice(("metric=equity&by=account", "metric=pnl,cpu_load", "metric=equity&shape=wide&format=csv"))
            today = f"&from={NOW - HOUR_MS}&to={NOW + HOUR_MS}"
            query += chance.choice(("&from=now-1h", f"&from={NOW - HOUR_MS}&to={NOW}", today, today, "&step=5m", "&limit=2"))
            found = [await client.get(f"/v1/rows?{query}") for client in (two.short, two.whole)]
        asked += 1
        short, whole = found
        assert short.status_code == whole.status_code
        if short.headers["content-type"].startswith("application/json"):
            assert without_ages(short.content) == without_ages(whole.content)
        else:
            assert short.content == whole.content
        told = [re.sub(r"age_s=[0-9.]+", "", one.headers.get("bridge-result", "")) for one in found]
        assert told[0] == told[1]
    assert (asked, two.hits > 15) == (300, True)


async def test_an_answer_that_is_ready_tells_its_age_anew(two: Two) -> None:
    first = await two.short.get(ROWS)
    two.clock.now_ms += 3_000
    again = await two.short.get(ROWS)
    facts = again.json()["meta"]["metrics"]["equity"]
    assert two.hits == 2
    assert (first.headers["bridge-result"], again.headers["bridge-result"]) == (
        '"A";status=fresh;age_s=0.0',
        '"A";status=fresh;age_s=3.0',
    )
    assert (facts["age_s"], [source["age_s"] for source in facts["sources"]]) == (3.0, [3.0, 3.0])
    assert again.json()["meta"]["to"] == two.clock.now_ms


async def test_an_answer_is_ready_no_longer_than_its_parts_are_fresh(two: Two) -> None:
    await two.short.get(ROWS)
    two.clock.now_ms += 10_001
    two.sources["rts"].answer = SourceUnavailable("rts", "away")
    again = await two.short.get(ROWS)
    assert "status=stale" in again.headers["bridge-result"]
    assert two.hits == 0


async def test_a_request_id_and_a_time_of_asking_make_no_other_question(two: Two) -> None:
    for number in range(3):
        body = panel(NOW, {"target": "equity"}, requestId=f"Q{number}", startTime=NOW + number, app="dashboard")
        await two.short.post("/json/query", json=body)
    assert two.hits == 4


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
async def test_another_question_is_never_given_this_ones_answer(two: Two, change: dict[str, Any]) -> None:
    body = panel(NOW, {"target": "equity"})
    await two.short.post("/json/query", json=body)
    await two.short.post("/json/query", json=body | change)
    assert two.hits == 0


async def test_a_browser_of_another_origin_goes_the_whole_way(two: Two) -> None:
    for _ in range(2):
        await two.short.get(ROWS, headers={"Origin": "http://elsewhere"})
    assert two.hits == 0


async def test_a_body_that_comes_in_pieces_is_answered_whole(two: Two) -> None:
    whole = orjson.dumps(panel(NOW, {"target": "equity"}))

    async def pieces() -> AsyncIterator[bytes]:
        yield whole[:20]
        yield whole[20:]

    expected = await two.whole.post("/json/query", content=whole)
    found = await two.short.post("/json/query", content=pieces())
    assert (found.status_code, found.content) == (200, expected.content)


async def test_finished_answers_never_take_more_than_their_room() -> None:
    from app.contracts.ready import Ready
    from app.model import Query, Result, TimeRange
    from app.telemetry import Telemetry

    ready = Ready(100_000, Telemetry(), lambda: NOW)
    for number in range(1000):
        result = Result(Query("equity", 0, 60_000), range=TimeRange(0, 60_000, 1000), good_to_ms=NOW + 5)
        ready.keep(("panel", number), [result], "application/json", b"x" * 5000)
        assert 0 < ready.size_bytes <= 100_000


@pytest.fixture
async def large(two: Two) -> Two:
    """With an answer that is worth compressing at hand."""
    many = frame({f"account=A{place}": {NOW - HOUR_MS + 60_000 * bucket: bucket for bucket in range(50)} for place in range(20)})
    two.sources["duckdb"].answer = replace(many, asked_ms=NOW)
    await two.short.get(ROWS)
    return two


async def zipped_later(two: Two, taking: str) -> httpx.Response:
    """The answer, asked until it comes compressed or has been asked for often."""
    for _ in range(50):
        answer = await two.short.get(ROWS, headers={"accept-encoding": taking})
        if "content-encoding" in answer.headers:
            break
        await asyncio.sleep(0.01)
    return answer


async def test_who_takes_gzip_gets_a_ready_answer_compressed_and_the_same(large: Two) -> None:
    plain, packed = await large.short.get(ROWS, headers={"accept-encoding": "identity"}), await zipped_later(large, "br, gzip")
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert without_ages(packed.content) == without_ages(plain.content)
    assert int(packed.headers["content-length"]) < len(plain.content) / 2


@pytest.mark.parametrize("taking", ["identity", "br", "gzip;q=0", "gzip; q=0.0, br", "xgzip"])
async def test_who_does_not_take_gzip_gets_none(large: Two, taking: str) -> None:
    await zipped_later(large, "gzip")
    assert "content-encoding" not in (await zipped_later(large, taking)).headers


async def test_a_compressed_answer_takes_room_of_its_own(large: Two) -> None:
    ready = large.app.state.serving.ready
    before = ready.size_bytes
    await zipped_later(large, "gzip")
    assert 0 < ready.size_bytes - before < 5000


async def test_ready_answers_are_in_the_histogram_too(two: Two) -> None:
    for _ in range(5):
        await two.short.get(ROWS)
    told = (await two.short.get("/metrics")).text
    counts = [
        re.findall(rf'{name}{{[^}}]*route="/v1/rows"[^}}]*}} (\S+)', told) for name in ("_count", "_requests_total", "_sum")
    ]
    assert counts[0] == counts[1] == ["5.0"]
    assert float(counts[2][0]) > 0
