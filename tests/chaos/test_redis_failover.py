"""Redis that fails over, and Redis in parts: real Sentinels and a real cluster below a whole bridge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.model import TimeRange
from app.sources.redis.source import RedisConfig
from app.sync import SyncSettings
from tests.chaos.matrix import FRESH_S, PROBE_S, SLACK_S, Answer, Bed, bed, fresh_answer, recovered, until
from tests.provisioning.reading import plain, statements
from tests.servers.receiver import Receiver, receiver
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import ClusterSite
from tests.servers.redis_sentinels import FAILOVER_S, SERVICE, SentinelSite
from tests.servers.world import Stores

SOURCES = ("rts", "ris", "rtss", "rtrs")


@asynccontextmanager
async def told_bed(
    stores: Stores, connect: Mapping[str, Any], policy: Mapping[str, float]
) -> AsyncIterator[tuple[Bed, Receiver]]:
    """A bridge all of whose Redis sources are reached this way, and the backend that it tells."""
    async with receiver() as backend:
        sync = SyncSettings(url=backend.url, secret=SecretStr("sixteen letters!"))
        config = RedisConfig.model_validate(connect)
        async with bed(stores, dict.fromkeys(SOURCES, config), None, None, sync, **policy) as made:
            yield made, backend


async def await_told(backend: Receiver, events: list[str], within_s: float) -> list[dict[str, Any]]:
    """What the backend was told, once these events are there."""
    await until(lambda: len(backend.received) >= len(events), within_s, f"the backend was not told of {events}")
    calls = [call.told for call in backend.received]
    assert [call["event"] for call in calls] == events
    return calls


async def test_a_killed_master_is_shown_as_older_values_until_its_successor_answers(stores: Stores, tmp_path: Path) -> None:
    site = SentinelSite(tmp_path)
    with site:
        await asyncio.to_thread(site.copy_from, stores.redis)
        async with told_bed(stores, site.connect(), {"probe_s": 5.0}) as (made, backend):
            good = await fresh_answer(made, "redis")
            assert (await made.alert("redis")).status == "fresh"
            server = f"{SERVICE}@{','.join(sorted(site.addresses))}"
            await asyncio.sleep(1.2)  # a ping has noted the master's memory
            site.first.kill()
            begun_s = time.perf_counter()
            failover = asyncio.create_task(asyncio.to_thread(site.await_failover))
            failover_s, seen = None, set[str]()
            while (answer := await made.known("redis")).status != "fresh" or not failover.done():
                assert answer.rows == good.rows, answer.says
                assert answer.status in ("fresh", "stale")
                assert answer.status == "fresh" or "rts: STALE, " in answer.says
                alert = await made.alert("redis")
                assert (alert.http != 200) or (alert.status, alert.rows) == ("fresh", good.rows)
                seen |= {answer.status, f"alert {alert.http}"}
                if failover.done() and failover_s is None:
                    failover_s = time.perf_counter() - begun_s
                assert time.perf_counter() - begun_s < FAILOVER_S + 5 + SLACK_S
                await asyncio.sleep(0.02)
            await failover
            assert {"stale", "alert 503"} <= seen
            assert answer.rows == good.rows
            assert failover_s is None or time.perf_counter() - begun_s < failover_s + 5 + SLACK_S
            down, up = await await_told(backend, ["redis.down", "redis.up"], 5 + SLACK_S)
            assert (down["server"], up["server"], up["sources"]) == (server, server, sorted(SOURCES))
            # As many keys as before, but another server: it may lack what was written last.
            assert (up["run_id_before"] != up["run_id_after"], up["memory_lost"]) == (True, None)
            assert up["keys_before"] == up["keys_after"]
            assert f"master 127.0.0.1:{site.second.port} of rts by Sentinel" in (await made.health("rts"))["answer"]


@pytest.fixture(scope="module")
def cluster(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    """Three masters with all that the single server has."""
    with ClusterSite(tmp_path_factory.mktemp("cluster")) as site:
        site.copy_from(stores.redis)
        yield site


async def test_every_read_of_the_catalogue_gives_on_a_cluster_what_it_gives_on_one_server(
    stores: Stores, cluster: ClusterSite
) -> None:
    last_ms = stores.until_ms // 60_000 * 60_000
    quarter = TimeRange(last_ms - 900_000, last_ms + 60_000, 60_000)
    single, parts = RedisConfig(port=stores.redis.port).build("rts"), RedisConfig(**cluster.connect()).build("rts")
    counts = [node.client.dbsize() for node in cluster.nodes]
    assert (sum(counts), min(counts) > 0) == (stores.redis.client.dbsize(), True)
    asked = statements("redis", quarter, stores.until_ms)
    try:
        whole = {name: plain(await single.fetch(one)) for name, one in asked.items()}
        found = {name: plain(await parts.fetch(one)) for name, one in asked.items()}
    finally:
        await single.close()
        await parts.close()
    assert {name for name in whole if found[name] != whole[name]} == set()
    assert (len(whole) > 25, {name for name, series in whole.items() if not series}) == (True, set())


async def partly_missing(made: Bed, victim: RedisServer, good: Answer) -> Answer:
    """The answer while that node is down, once it is partial."""
    ends_s = time.perf_counter() + 10.0
    while (answer := await made.known("redis")).status != "partial":
        assert time.perf_counter() < ends_s, (answer.status, answer.says)
        assert answer.rows == good.rows, answer.says
        await asyncio.sleep(0.05)
    assert f"node 127.0.0.1:{victim.port} of the cluster does not answer" in answer.says
    return answer


async def test_a_killed_node_is_one_store_partly_missing_and_said_so(stores: Stores, tmp_path: Path) -> None:
    site = ClusterSite(tmp_path)
    with site:
        await asyncio.to_thread(site.copy_from, stores.redis)
        keys = [f"account_state:{account}" for account in stores.redis.client.smembers("account_state:index")]
        index = site.node_of("account_state:index")
        held = {node: [key for key in keys if site.node_of(key) is node] for node in site.nodes if node is not index}
        victim = max(held, key=lambda node: len(held[node]))
        gone = {key.partition(":")[2] for key in held[victim]}
        assert 0 < len(gone) < len(keys)
        async with told_bed(stores, site.connect(), {}) as (made, backend):
            good = await fresh_answer(made, "redis")
            await asyncio.sleep(1.2)  # a ping has noted the memory
            victim.kill()
            answer = await partly_missing(made, victim, good)
            assert answer.rows == [row for row in good.rows if row["account"] not in gone]
            assert f"{len(gone)} of {len(keys)} hashes" in answer.says
            alert = await made.alert("redis")
            assert (alert.http, alert.code) != (200, ""), alert.says
            assert (await made.known("clickhouse")).status == "fresh"
            health = await made.health("rts")
            assert (health["up"], f"node 127.0.0.1:{victim.port} does not answer" in health["warning"]) == (True, True)
            [down] = await await_told(backend, ["redis.down"], 5.0)
            assert down["server"] == ",".join(sorted(site.addresses))
            await asyncio.to_thread(victim.start)
            await asyncio.to_thread(site.await_state, "ok")
            _, up = await await_told(backend, ["redis.down", "redis.up"], 10.0)
            # It came back empty.
            assert (up["memory_lost"], up["keys_before"] > up["keys_after"]) == (True, True)
            await asyncio.to_thread(site.copy_from, stores.redis)
            await asyncio.sleep(FRESH_S)
            await recovered(made, "redis", good, 5.0 + PROBE_S)
