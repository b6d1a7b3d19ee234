"""The seed's edge cases as their user meets them: real stores that are killed, hung, damaged and restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from app.config import Settings, settings_from
from app.main import build_service
from app.sync import verify
from demo.redis_filling import fill_redis
from demo.redis_writer import RedisWriter
from tests.e2e.conftest import client_of
from tests.servers.faulty import FaultProxy
from tests.servers.receiver import Receiver, receiver
from tests.servers.world import Stores, running_stores

SECRET = "a-secret-of-the-backends"
BRISK = {
    "fresh_s": 0.2,
    "patience_s": 0.3,
    "attempt_timeout_s": 0.6,
    "total_timeout_s": 0.8,
    "probe_s": 0.5,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Stores of these tests' own: they are broken here."""
    with running_stores(tmp_path_factory.mktemp("edge"), hours=1, instances=2) as running:
        yield running


@pytest.fixture(autouse=True)
def whole_again(own: Stores) -> Iterator[None]:
    """A test that fails half way leaves no store down for the next one."""
    yield
    if not own.clickhouse.port:
        own.clickhouse.start()
    if not own.redis.running:
        own.redis.start()
        refill(own)


@dataclass
class Panel:
    """One bridge, asked as a panel asks."""

    client: httpx.AsyncClient

    async def ask(self, metric: str, path: str = "/v1/rows", **params: str) -> Shown:
        begun_s = time.monotonic()
        window = {"metric": metric, "from": "now-20m", "step": "60s"}
        reply = await self.client.get(path, params=window | params)
        return Shown(reply, time.monotonic() - begun_s)

    async def fresh(self, metric: str, **params: str) -> Shown:
        """The first fresh answer: on a busy machine a store's first answer may come too late."""
        async with asyncio.timeout(10):
            while (shown := await self.ask(metric, **params)).status != "fresh":
                await asyncio.sleep(0.05)
        return shown

    async def shown(self, metric: str, **params: str) -> Shown:
        """The first answer that came in time, whatever its state."""
        async with asyncio.timeout(10):
            while (shown := await self.ask(metric, **params)).reply.status_code == 504:
                await asyncio.sleep(0.05)
        return shown

    async def until_fresh(self, metric: str, limit_s: float, **params: str) -> float:
        """How long it takes until an answer is fresh."""
        begun_s = time.monotonic()
        while (await self.ask(metric, **params)).status != "fresh":
            assert time.monotonic() - begun_s < limit_s, f"{metric} is not fresh after {limit_s}s"
            await asyncio.sleep(0.05)
        return time.monotonic() - begun_s

    async def sample(self, name: str) -> float:
        """A metric of the bridge's own, summed over its labels."""
        text = (await self.client.get("/metrics")).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@dataclass
class Shown:
    """What the panel got."""

    reply: httpx.Response
    took_s: float

    @property
    def facts(self) -> Mapping[str, Any]:
        [facts] = self.reply.json()["meta"]["metrics"].values()
        return dict(facts)

    @property
    def status(self) -> str:
        return str(self.facts["status"]) if self.reply.status_code == 200 else "error"

    @property
    def notices(self) -> str:
        return " | ".join(notice["text"] for notice in self.facts["notices"])

    @property
    def points(self) -> dict[int, float]:
        return {row["time"]: row["value"] for row in self.reply.json()["rows"]}


def settings(stores: Stores, ports: Mapping[str, int], **more: Any) -> Settings:
    values = stores.settings(**ports).model_dump(mode="json", exclude={"http", "agent"})
    for source in values["sources"].values():
        source["policy"] |= BRISK
    values["sources"]["clickhouse"]["connect"]["password"] = stores.clickhouse.password  # a dump masks secrets
    return settings_from(values | {"request": {"budget_s": 1.2}, "agent": {"port": None}} | more, "test")


@asynccontextmanager
async def panel(stores: Stores, ports: Mapping[str, int] = MappingProxyType({}), **more: Any) -> AsyncIterator[Panel]:
    """A bridge whose clock goes on from the world's end; `ports` puts proxies in the places of stores."""
    begun_s = time.monotonic()
    app = build_service(settings(stores, ports, **more), lambda: stores.until_ms + round((time.monotonic() - begun_s) * 1000)).app
    async with client_of(app) as client:
        yield Panel(client)


def refill(stores: Stores) -> None:
    """What the backend does when it is told: fill Redis again."""
    fill_redis(stores.world, RedisWriter(stores.redis.client), stores.until_ms)


def told(backend: Receiver) -> list[tuple[str, Any]]:
    return [(call.told["event"], call.told["memory_lost"]) for call in backend.received]


async def until(backend: Receiver, calls: int) -> None:
    async with asyncio.timeout(10):
        while len(backend.received) < calls:
            await asyncio.sleep(0.02)


async def test_redis_failure_shows_the_last_values_marked_and_the_backend_fills_redis_again(own: Stores) -> None:
    async with receiver(200, 500) as backend:
        sync = {"url": backend.url, "secret": SECRET, "first_retry_s": 0.1}
        async with panel(own, sync=sync) as bridge:
            before = await bridge.fresh("open_trades")
            await asyncio.sleep(0.5)
            own.redis.kill()
            await until(backend, 1)
            during = await bridge.ask("open_trades")
            assert (during.status, during.points) == ("stale", before.points)
            assert "rts: STALE, " in during.notices
            assert during.facts["age_s"] > 0.4
            assert (await bridge.ask("open_trades", path="/alert/v1/rows")).reply.status_code == 503

            own.redis.start()
            await until(backend, 3)
            refill(own)
            took_s = await bridge.until_fresh("open_trades", limit_s=6)
            after = await bridge.ask("open_trades")
            assert await bridge.sample("bridge_source_reconnects_total") >= 1
            await asyncio.sleep(0.5)
    assert (took_s < 6, max(after.points.values())) == (True, max(before.points.values()))
    # The second and the third are one call: the backend answered 500 at first.
    assert told(backend) == [("redis.down", None), ("redis.up", True), ("redis.up", True)]
    down, up, again = backend.received
    keys = [call.headers["idempotency-key"] for call in (down, up, again)]
    assert (keys[1] == keys[2], keys[0] != keys[1]) == (True, True)
    for call in backend.received:
        sent_s = int(call.headers["bridge-timestamp"])
        assert verify(SECRET, call.headers["bridge-signature"], sent_s, call.body, int(time.time()))
    assert up.told["sources"] == ["ris", "rtrs", "rts", "rtss"]
    assert up.told["from_ms"] == down.told["from_ms"] < up.told["to_ms"]
    assert up.told["run_id_before"] != up.told["run_id_after"]
    assert up.told["keys_before"] > up.told["keys_after"]


async def test_a_redis_that_hangs_and_comes_back_has_lost_nothing_and_that_is_told(own: Stores) -> None:
    async with receiver() as backend, panel(own, sync={"url": backend.url, "secret": SECRET}) as bridge:
        await bridge.fresh("open_trades")
        own.redis.pause()
        try:
            await until(backend, 1)
            during = await bridge.ask("open_trades")
        finally:
            own.redis.resume()
        await until(backend, 2)
        await bridge.until_fresh("open_trades", limit_s=6)
    assert (during.status, told(backend)) == ("stale", [("redis.down", None), ("redis.up", False)])


async def test_a_redis_restarted_between_two_looks_is_noticed_by_its_run_id(own: Stores) -> None:
    async with receiver() as backend, panel(own, sync={"url": backend.url, "secret": SECRET}) as bridge:
        await bridge.fresh("open_trades")
        await asyncio.sleep(BRISK["probe_s"])  # the first look
        own.redis.restart()
        async with asyncio.timeout(10):
            while ("redis.up", True) not in told(backend):  # a look while it is down tells that first
                await asyncio.sleep(0.02)
        refill(own)
    assert told(backend)[-1] == ("redis.up", True)


async def test_prometheus_failure_is_answered_by_redis_then_clickhouse_then_what_is_kept_each_named(own: Stores) -> None:
    async with (
        FaultProxy(own.prometheus_port) as prometheus,
        FaultProxy(own.redis.port) as redis,
        FaultProxy(own.clickhouse.port) as clickhouse,
    ):
        ports = {"prometheus": prometheus.port, "redis": redis.port, "clickhouse": clickhouse.port}
        async with panel(own, ports) as bridge:
            whole = await bridge.fresh("cpu_load")
            await prometheus.set("refuse")
            await asyncio.sleep(0.3)
            first = await bridge.ask("cpu_load")
            await redis.set("black_hole")
            await asyncio.sleep(1.5)
            second = await bridge.ask("cpu_load")
            await clickhouse.set("reset")
            await asyncio.sleep(0.3)
            third = await bridge.ask("cpu_load")
            for proxy in (prometheus, redis, clickhouse):
                await proxy.set("none")
            await bridge.until_fresh("cpu_load", limit_s=3)
    assert whole.status == "fresh"
    assert (first.status, "answered by the fallback ris" in first.notices) == ("partial", True)
    assert (second.status, "answered by the fallback clickhouse" in second.notices) == ("partial", True)
    assert third.status == "stale"
    assert "prometheus: STALE" in third.notices
    assert third.notices.count("this fallback is missing too") == 2
    assert third.points == {at: value for at, value in whole.points.items() if at in third.points}


async def test_clickhouse_failure_shows_the_redis_part_alone_marked_partial(own: Stores) -> None:
    own.clickhouse.kill()
    try:
        async with panel(own) as bridge:
            during = await bridge.ask("open_trades")
            own.clickhouse.start()
            after_s = await bridge.until_fresh("open_trades", limit_s=6)
            whole = await bridge.fresh("open_trades")
    finally:
        if not own.clickhouse.port:
            own.clickhouse.start()
    assert (during.status, "clickhouse: " in during.notices) == ("partial", True)
    assert "the history is missing, only the live edge is shown" in during.notices
    assert (len(during.points), len(whole.points) > 10, after_s < 6) == (1, True, True)


async def test_a_clickhouse_that_was_asked_before_goes_on_as_it_was_marked_stale(own: Stores) -> None:
    async with panel(own) as bridge:
        before = await bridge.fresh("open_trades")
        own.clickhouse.pause()
        try:
            await asyncio.sleep(0.3)
            during = await bridge.ask("open_trades")
            took_s = during.took_s
        finally:
            own.clickhouse.resume()
        await bridge.until_fresh("open_trades", limit_s=6)
    assert (during.status, "clickhouse: STALE" in during.notices) == ("stale", True)
    assert {at: value for at, value in before.points.items() if at in during.points} == before.points
    assert took_s < 0.3 + 0.4  # the patience; the asking itself takes 0.8 s


@pytest.mark.parametrize("fault", ["damaged", "locked", "missing"])
async def test_a_duckdb_snapshot_that_cannot_be_had_leaves_the_one_before_marked(own: Stores, fault: str, tmp_path: Path) -> None:
    folder = own.snapshots
    kept = tmp_path / "kept"
    async with panel(own) as bridge:
        before = await bridge.fresh("equity", instant="1", to="now-5m")
        newest, pointer = folder / "snap-20991231T000000.000Z.duckdb", folder / "latest"
        pointed = pointer.read_text()
        if fault == "missing":
            folder.rename(kept)
        elif fault == "damaged":
            newest.write_bytes(b"not a database" * 500)
        else:
            newest.symlink_to(folder.parent / "live.duckdb")  # held open for writing by the writer
        if fault != "missing":
            pointer.write_text(newest.name)
        await asyncio.sleep(0.3)
        during = await bridge.shown("equity", instant="1", to="now-5m")
        health = (await bridge.client.get("/health/sources")).json()["sources"]["duckdb"]
        if fault == "missing":
            kept.rename(folder)
        else:
            newest.unlink()
            pointer.write_text(pointed)
        await asyncio.sleep(0.3)
        after = await bridge.shown("equity", instant="1", to="now-5m")
    assert (during.points, "duckdb: STALE, " in during.notices) == (before.points, True)
    assert (health["up"], health["data_age_s"] > 60, health["warning"] is not None) == (True, True, True)
    assert "STALE" not in after.notices


async def test_when_the_time_is_short_what_is_ready_is_shown_and_the_rest_is_named(own: Stores) -> None:
    async with FaultProxy(own.clickhouse.port) as clickhouse, panel(own, {"clickhouse": clickhouse.port}) as bridge:
        await clickhouse.set("black_hole")
        begun_s = time.monotonic()
        asked = {"metric": "equity,slippage,open_trades", "from": "now-20m", "timeout": "0.5"}
        reply = await bridge.client.get("/v1/rows", params=asked)
        took_s = time.monotonic() - begun_s
    found = reply.json()["meta"]["metrics"]
    statuses = {name: facts["status"] for name, facts in found.items()}
    assert (reply.status_code, took_s < 1.0, statuses["open_trades"]) == (200, True, "partial")
    assert "clickhouse: no answer within the request's time limit" in str(found["open_trades"]["notices"])
    assert "clickhouse: no answer within the request's time limit" in str(found["slippage"]["notices"])
    assert "clickhouse" not in str(found["equity"]["notices"])


SLOW = """
group: g
title: G
labels:
  n: {title: N, values: [a]}
metrics:
  slow:
    title: Slow
    description: Takes a hundredth of a second for each bucket.
    unit: short
    aggregate: avg
    over_time: last
    labels: []
    history:
      source: clickhouse
      sql: |
        SELECT toInt64({from_ms:Int64} + number * {step_ms:Int64}) AS time, toFloat64(sleepEachRow(0.01)) AS value
        FROM numbers(toUInt64(({to_ms:Int64} - {from_ms:Int64}) / {step_ms:Int64})) WHERE true {where}
        SETTINGS max_block_size = 10, function_sleep_max_microseconds_per_block = 100000000
"""


async def test_a_coarser_step_is_tried_once_and_said_when_the_finer_one_takes_too_long(own: Stores, tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW, encoding="utf-8")
    values = own.settings(10.0).model_dump(mode="json", exclude={"http", "agent"})
    values["sources"] = {"clickhouse": values["sources"]["clickhouse"]}
    values["sources"]["clickhouse"]["connect"]["password"] = own.clickhouse.password
    values["sources"]["clickhouse"]["policy"] |= {"attempt_timeout_s": 1.9, "total_timeout_s": 1.9}
    chosen = settings_from(values | {"request": {"budget_s": 2.0}, "agent": {"port": None}, "catalog": tmp_path}, "test")
    async with client_of(build_service(chosen).app) as client:
        bridge = Panel(client)
        found = await bridge.ask("slow", **{"from": "now-6h"})
        alert = await bridge.ask("slow", path="/alert/v1/rows", **{"from": "now-6h"})
    assert (found.status, found.facts["step_ms"], found.took_s < 2.2) == ("fresh", 600_000, True)
    assert "slow: step 600s in place of 60s, which is more than the store can answer in time" in found.notices
    assert alert.reply.status_code == 504


async def test_a_lost_connection_is_made_anew_and_counted(own: Stores) -> None:
    async with FaultProxy(own.redis.port) as redis:
        async with panel(own, {"redis": redis.port}) as bridge:
            await bridge.fresh("open_trades")
            await redis.set("half_open")
            await asyncio.gather(*(bridge.ask(metric) for metric in ("equity", "balance", "active_orders")))
            during = await bridge.ask("open_trades")
            await redis.set("none")
            took_s = await bridge.until_fresh("open_trades", limit_s=3)
            rebuilt = await bridge.sample("bridge_source_reconnects_total")
        async with asyncio.timeout(1):
            while redis.connections:
                await asyncio.sleep(0.01)
    assert (during.status, took_s < 2, rebuilt >= 1) == ("stale", True, True)
