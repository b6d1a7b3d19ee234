"""Row by row of the fault matrix: Redis."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.exceptions import OutOfMemoryError, ResponseError

from app.sync import SyncSettings
from demo.stores import free_port
from tests.chaos.matrix import (
    DENIED,
    DENIED_S,
    FRESH,
    FRESH_S,
    PROBE_S,
    RECOVERY_S,
    SLACK_S,
    STALE,
    STALE_AFTER_PATIENCE,
    TIMED_OUT,
    UNAVAILABLE,
    Bed,
    Cell,
    Store,
    bed,
    fresh_answer,
    network,
    no_such_name,
    play,
    recovered,
    ten_seconds_off,
    until,
)
from tests.servers.receiver import receiver
from tests.servers.redis import RedisServer
from tests.servers.world import Stores


@asynccontextmanager
async def another_password(made: Bed) -> AsyncIterator[None]:
    client = made.stores.redis.client
    client.config_set("requirepass", "changed")
    client.client_kill_filter(_type="normal", skipme=True)
    try:
        yield
    finally:
        client.config_set("requirepass", "")


@asynccontextmanager
async def no_memory(made: Bed) -> AsyncIterator[None]:
    client = made.stores.redis.client
    client.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        client.set("new", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@asynccontextmanager
async def no_disk(made: Bed) -> AsyncIterator[None]:
    """A folder stands where the dump should go, so saving fails and writers are refused (MISCONF)."""
    client = made.stores.redis.client
    in_the_way = Path(client.config_get("dir")["dir"]) / "dump.rdb" / "in the way"
    in_the_way.mkdir(parents=True)
    client.config_set("save", "3600 1")
    client.bgsave()
    await until(lambda: client.info()["rdb_last_bgsave_status"] == "err", 2.0, "the dump was saved all the same")
    with pytest.raises(ResponseError, match="MISCONF"):
        client.set("new", 1)
    try:
        yield
    finally:
        client.config_set("save", "")
        shutil.rmtree(in_the_way.parent)


@asynccontextmanager
async def no_master(made: Bed) -> AsyncIterator[None]:
    client = made.stores.redis.client
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof("127.0.0.1", free_port())
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")
        client.config_set("replica-serve-stale-data", "yes")


CELLS = (
    Cell("refused", network("refuse")("redis"), STALE, UNAVAILABLE, "source_unavailable", opens=True),
    Cell("reset", network("reset")("redis"), STALE, UNAVAILABLE, "source_unavailable"),
    Cell("black hole", network("black_hole")("redis"), STALE_AFTER_PATIENCE, TIMED_OUT, "source_timeout", opens=True),
    Cell("half open", network("half_open")("redis"), STALE_AFTER_PATIENCE, TIMED_OUT, "source_timeout"),
    Cell("slow drip", network("slow_drip")("redis"), STALE_AFTER_PATIENCE, TIMED_OUT, "source_timeout"),
    Cell(
        "auth error",
        another_password,
        STALE,
        DENIED,
        "source_denied",
        "Authentication required",
        recovers_in_s=DENIED_S + 1,
        opens=True,
    ),
    Cell("OOM", no_memory, FRESH, FRESH, up=True),
    Cell("disk full", no_disk, FRESH, FRESH, up=True),
    Cell("failover", no_master, STALE, UNAVAILABLE, "source_unavailable", "Link with MASTER is down"),
)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"redis-{cell.name}")
async def test_a_redis_fault_gives_the_last_answer_marked_or_says_what_failed_and_heals(stores: Stores, cell: Cell) -> None:
    async with bed(stores) as made:
        await play(made, "redis", cell)


async def test_redis_wrong_data_a_field_that_is_no_time_is_null_and_said_and_never_an_error(stores: Stores) -> None:
    client = stores.redis.client
    key = min(client.scan_iter("instance:*", _type="hash"))
    before = client.hget(key, "last_heartbeat_ms")
    async with bed(stores) as made:
        good = await made.ask("heartbeat_age", "now", "instance")
        await asyncio.sleep(FRESH_S)
        client.hset(key, "last_heartbeat_ms", "abc")
        try:
            answer = await made.ask("heartbeat_age", "now", "instance")
        finally:
            client.hset(key, "last_heartbeat_ms", before)
        assert (good.status, answer.http, answer.status) == ("fresh", 200, "partial")
        assert "instance:{id}: last_heartbeat_ms does not parse 1 times; shown as null" in answer.says
        assert [row["instance"] for row in answer.rows] == [row["instance"] for row in good.rows]
        assert [row["instance"] for row in answer.rows if row["value"] is None] == [key.partition(":")[2]]
        assert (made.errors("ris"), made.metric("bridge_source_up", source="ris")) == ({}, 1)
        await asyncio.sleep(FRESH_S)
        again = await made.ask("heartbeat_age", "now", "instance")
        assert (again.says, None in [row["value"] for row in again.rows]) == ("", False)


async def test_redis_oom_a_server_that_is_full_is_named_in_the_health(stores: Stores) -> None:
    async with bed(stores) as made:
        assert (await made.health("rts"))["warning"] is None
        async with no_memory(made):
            assert "of maxmemory is used" in (await made.health("rts"))["warning"]
        assert (await made.health("rts"))["warning"] is None


async def test_redis_dns_failure_is_as_refused(stores: Stores) -> None:
    await no_such_name(stores, "redis", {"host": "nowhere.invalid"})


async def test_redis_clock_skew_is_said_and_measured(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    await ten_seconds_off(stores, "redis", monkeypatch)


async def test_redis_restart_the_last_answer_is_shown_while_the_server_loads_its_data(stores: Stores, tmp_path: Path) -> None:
    stores.redis.client.save()
    shutil.move(Path(stores.redis.client.config_get("dir")["dir"]) / "dump.rdb", tmp_path / "dump.rdb")
    # 132 keys at 6 ms each; the server says LOADING in between
    slowly = ("--key-load-delay", "6000", "--loading-process-events-interval-bytes", "1024")
    server = RedisServer(tmp_path, "", *slowly)
    await asyncio.to_thread(server.start)
    try:
        async with bed(stores, targets={"redis": server.port}) as made:
            good = await fresh_answer(made, "redis")
            server.kill()
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            says = ""
            while "loading the dataset" not in says:
                answer = await made.known("redis")
                assert (answer.status, answer.rows, starting.done()) == ("stale", good.rows, False), answer.says
                says = answer.says
            assert made.errors("rts")["source_unavailable"] > 0
            await starting
            await recovered(made, "redis", good, RECOVERY_S)
    finally:
        server.stop()


async def test_redis_refused_the_backend_is_told_when_it_fails_and_when_it_is_back(stores: Stores) -> None:
    secret = SecretStr("sixteen letters!")
    async with receiver() as backend, bed(stores, sync=SyncSettings(url=backend.url, secret=secret)) as made:
        await fresh_answer(made, "redis")
        await made.proxies["redis"].set("refuse")
        await until(lambda: len(backend.received) == 1, 5 * PROBE_S + 1, "the backend was not told of the outage")
        await made.proxies["redis"].set("none")
        await until(lambda: len(backend.received) == 2, RECOVERY_S, "the backend was not told of the end")
    assert [call.told["event"] for call in backend.received] == ["redis.down", "redis.up"]


async def test_all_sources_what_is_kept_is_shown_up_to_its_age_then_503_and_the_process_stays_ready(stores: Stores) -> None:
    everyone: tuple[Store, ...] = ("redis", "clickhouse", "prometheus")
    async with bed(stores, stale_s=2.0) as made:
        begun_s = time.perf_counter()
        good = [await fresh_answer(made, store) for store in everyone]
        cpu = await made.ask("cpu_load", "past", "host")
        assert cpu.status == "fresh"
        for proxy in made.proxies.values():
            await proxy.set("refuse")
        await asyncio.sleep(FRESH_S)
        answers = [await made.known(store) for store in everyone]
        assert [(answer.http, answer.status, answer.rows) for answer in answers] == [(200, "stale", one.rows) for one in good]
        fallen = await made.ask("cpu_load", "past", "host")
        # Its fallbacks were asked first, and are said to be missing too.
        assert (fallen.http, fallen.status, fallen.rows) == (200, "stale", cpu.rows), fallen.says
        assert "prometheus: STALE, " in fallen.says
        assert (await made.client.get("/readyz")).status_code == 200
        await asyncio.sleep(max(begun_s + 3 * FRESH_S + 2.1 - time.perf_counter(), 0))
        late = [await made.known(store) for store in everyone]
        assert [answer.http for answer in late] == [503, 503, 503], [answer.says for answer in late]
        assert all(answer.seconds < SLACK_S for answer in late)
        assert [(await made.client.get(path)).status_code for path in ("/readyz", "/livez")] == [200, 200]
        for proxy in made.proxies.values():
            await proxy.set("none")
        for store, one in zip(everyone, good, strict=True):
            await recovered(made, store, one, RECOVERY_S)
