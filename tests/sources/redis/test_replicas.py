"""Which reads replicas answer: those of the past that they provably have, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.clock import wall_ms
from app.sources.redis.addresses import split_address
from app.sources.redis.connections import RedisConnections
from app.sources.redis.replicas import Replicas
from demo.stores import free_port
from tests.frames import shown
from tests.servers.redis import RedisServer
from tests.servers.redis_sentinels import SERVICE, SentinelSite
from tests.sources.redis.asking import OPEN, STEP, T0, opened, statement

SAMPLED = {"index": "i", "hash": "h:{id}", "field": "v", "labels": {"a": "$id"}, "history": "hist:{id}"}
#: The first two buckets, which are over.
PAST: dict[str, Any] = {"now_ms": 0, "to_ms": T0 + 2 * STEP}
ANSWER = {"a=x": {T0: 1.0, T0 + STEP: 2.0}}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SentinelSite]:
    with SentinelSite(tmp_path) as running:
        client = running.first.client
        client.sadd("i", "x")
        client.hset("h:x", "v", 3)
        client.zadd("hist:x", {f"{T0 + 5}:1": T0 + 5, f"{T0 + STEP}:2": T0 + STEP})
        client.wait(1, 5000)
        yield running


def samples_read(server: RedisServer) -> int:
    """How often it was asked for samples since the last time."""
    calls: int = server.client.info("commandstats").get("cmdstat_zrangebyscore", {}).get("calls", 0)
    server.client.config_resetstat()
    return calls


async def test_the_past_is_read_from_a_replica_and_the_present_from_the_master(site: SentinelSite) -> None:
    async with opened(**site.connect(replica_reads=True)) as source:
        await source.ping()
        assert shown(await source.fetch(statement(SAMPLED, by="a", **PAST))) == ANSWER
        assert (samples_read(site.first), samples_read(site.second)) == (0, 1)
        assert shown(await source.fetch(statement(SAMPLED, by="a"))) == {"a=x": {**ANSWER["a=x"], OPEN: 3.0}}
        assert (samples_read(site.first), samples_read(site.second)) == (1, 0)


async def test_without_being_told_to_the_master_answers_everything(site: SentinelSite) -> None:
    async with opened(**site.connect()) as source:
        await source.ping()
        assert shown(await source.fetch(statement(SAMPLED, by="a", **PAST))) == ANSWER
        assert (samples_read(site.first), samples_read(site.second)) == (1, 0)


async def test_what_is_not_over_since_the_masters_last_offset_is_read_from_the_master(site: SentinelSite) -> None:
    async with opened(**site.connect(replica_reads=True)) as source:
        await source.ping()
        begins_ms = wall_ms() // STEP * STEP
        await source.fetch(statement(SAMPLED, by="a", now_ms=0, from_ms=begins_ms, to_ms=begins_ms + 2 * STEP))
        assert (samples_read(site.first), samples_read(site.second)) == (1, 0)


async def test_a_replica_that_has_lost_its_master_is_not_read(site: SentinelSite) -> None:
    async with opened(**site.connect(replica_reads=True)) as source:
        await source.ping()
        site.second.client.replicaof("127.0.0.1", free_port())
        assert shown(await source.fetch(statement(SAMPLED, by="a", **PAST))) == ANSWER
        assert samples_read(site.first) == 1


async def test_a_replica_that_hangs_or_dies_costs_one_attempt_at_most(site: SentinelSite) -> None:
    async with opened(**site.connect(replica_reads=True, reply_timeout_s=0.2)) as source:
        await source.ping()
        assert shown(await source.fetch(statement(SAMPLED, by="a", **PAST))) == ANSWER
        site.second.pause()
        for _ in range(2):
            assert shown(await source.fetch(statement(SAMPLED, by="a", **PAST))) == ANSWER
        assert samples_read(site.first) == 2
        site.second.resume()
        site.second.kill()
        await asyncio.sleep(1.1)
        await source.ping()
        assert shown(await source.fetch(statement(SAMPLED, by="a", **PAST))) == ANSWER
        assert samples_read(site.first) == 1


async def test_a_replica_that_is_behind_the_offset_is_not_believed(site: SentinelSite) -> None:
    def connect(host: str, port: int) -> RedisConnections:
        return RedisConnections("rts", {"host": host, "port": port}, tls=False, size=1, connect_s=1.0, reply_s=1.0)

    sentinel, replicas = connect(*split_address(site.addresses[0])), Replicas("rts", connect)
    [listed] = await sentinel.ask([("SENTINEL", "REPLICAS", SERVICE)])
    await sentinel.close()
    await replicas.take_list(listed)
    master, offset = f"127.0.0.1:{site.first.port}", site.first.client.info("replication")["master_repl_offset"]
    commands = [("HMGET", "h:x", "v")]
    replicas.note_offset(master, 1000, offset)
    assert await replicas.read_settled(1000, commands, ()) == [[b"3"]]
    assert await replicas.read_settled(1001, commands, ()) is None
    replicas.note_offset(master, 2000, offset + 1_000_000)
    assert await replicas.read_settled(1001, commands, ()) is None
    replicas.note_offset("127.0.0.1:1", 3000, 0)  # another master: its offsets are of another history
    assert await replicas.read_settled(1000, commands, ()) is None
    await replicas.close()
