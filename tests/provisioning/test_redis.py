"""provisioning/redis on a real redis-server: settings, users, and what each may do."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import SourceDenied
from app.model import TimeRange
from app.operations.redis_shared_cache import RedisSharedCache, SharedCacheSettings
from app.sources.redis.source import RedisConfig, RedisSource
from demo.redis_filling import fill_redis
from demo.redis_writer import RedisWriter
from demo.world import HOUR_MS, World
from tests.provisioning.reading import Series, plain, statements
from tests.servers.eventful import make_eventful
from tests.servers.redis_provisioned import PROVISIONING, ProvisionedRedis

UNTIL_MS = time.time_ns() // 1_000_000 // 60_000 * 60_000
QUARTER = TimeRange(UNTIL_MS - 900_000, UNTIL_MS + 60_000, 60_000)
PORTS = {"rts": 6379, "ris": 6380, "rtss": 6381, "rtrs": 6382, "tier": 6389}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProvisionedRedis]:
    """One of them, filled by the backend's user with an hour of a small world."""
    with ProvisionedRedis("rts", tmp_path_factory.mktemp("redis")) as running:
        world = World(7, 4, UNTIL_MS - 2 * HOUR_MS)
        world.extend(UNTIL_MS + 2 * HOUR_MS)
        make_eventful(world, UNTIL_MS)
        backend = running.user("backend")
        fill_redis(world, RedisWriter(backend), UNTIL_MS)
        backend.close()
        yield running


def source_as(server: ProvisionedRedis, user: str, password: str = "") -> RedisSource:
    secret = password or server.variables[f"REDIS_{user.upper()}_PASSWORD"]
    return RedisConfig(port=server.port, username=user, password=secret).build("rts")


@pytest.fixture
async def bridge(server: ProvisionedRedis) -> AsyncIterator[RedisSource]:
    source = source_as(server, "bridge")
    yield source
    await source.close()


def verdict(server: ProvisionedRedis, user: str, command: str) -> bool:
    """Whether the server would let that user's command through."""
    return bool(server.client.execute_command("ACL", "DRYRUN", user, *command.split()) == "OK")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rts", {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}),
        ("ris", {"maxmemory-policy": "noeviction", "appendonly": "no", "save": "300 1"}),
        ("rtss", {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}),
        ("rtrs", {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always", "save": ""}),
        ("tier", {"maxmemory-policy": "allkeys-lru", "appendonly": "no", "save": ""}),
    ],
)
def test_each_server_runs_with_its_settings_and_without_a_default_user(
    tmp_path: Path, name: str, settings: dict[str, str]
) -> None:
    wanted = settings | {"protected-mode": "yes", "bind": "127.0.0.1 -::1", "enable-debug-command": "no", "databases": "1"}
    with ProvisionedRedis(name, tmp_path) as running:
        assert running.client.config_get(*wanted) == wanted
        assert int(running.client.config_get("maxmemory")["maxmemory"]) > 0
        with (
            redis.Redis(port=running.port, retry=Retry(NoBackoff(), 0)) as nobody,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            nobody.ping()


def test_each_server_has_its_own_port_and_files() -> None:
    texts = {name: (PROVISIONING / "redis" / f"redis-{name}.conf").read_text().splitlines() for name in PORTS}
    for name, lines in texts.items():
        assert lines.count("include /etc/redis/redis-common.conf") == 1
        assert {f"port {PORTS[name]}", f"dbfilename {name}.rdb", f"appenddirname {name}-aof"} <= set(lines)


@pytest.mark.parametrize(("name", "kept"), [("rts", True), ("ris", True), ("rtss", True), ("rtrs", True), ("tier", False)])
def test_state_outlives_a_restart_and_shared_answers_do_not(tmp_path: Path, name: str, kept: bool) -> None:
    with ProvisionedRedis(name, tmp_path) as running:
        running.client.hset("account_state:1", "equity", "7")
        running.restart()
        assert bool(running.client.exists("account_state:1")) is kept


def test_a_result_that_was_answered_outlives_a_crash(tmp_path: Path) -> None:
    with ProvisionedRedis("rtrs", tmp_path) as running:
        running.client.xadd("trade_results", {"event": "close"})
        running.kill()
        running.start()
        assert running.client.xlen("trade_results") == 1


@pytest.mark.parametrize(("policy", "kept"), [(None, True), ("volatile-lru", False)], ids=["ours", "the original's"])
def test_a_full_server_refuses_the_writer_and_keeps_what_it_has(tmp_path: Path, policy: str | None, kept: bool) -> None:
    with ProvisionedRedis("rts", tmp_path) as running:
        admin, backend = running.client, running.user("backend")
        backend.hset("trade_state:1", "state", "failed")
        backend.expire("trade_state:1", 3700)  # as the system lets failed trades go after an hour
        admin.config_set("maxmemory", admin.info("memory")["used_memory"])
        if policy:
            admin.config_set("maxmemory-policy", policy)
        refused = 0
        for number in range(200):
            try:
                backend.hset(f"account_state:{number}", "note", "x" * 1000)
            except redis.exceptions.OutOfMemoryError:
                refused += 1
        backend.close()
        assert refused > 100
        assert bool(admin.exists("trade_state:1")) is kept


async def answers(source: RedisSource) -> dict[str, Series]:
    return {name: plain(await source.fetch(asked)) for name, asked in statements("redis", QUARTER, UNTIL_MS).items()}


async def test_the_bridges_user_gets_every_answer_of_the_catalogue(server: ProvisionedRedis, bridge: RedisSource) -> None:
    admin = source_as(server, "admin")
    found, wanted = await answers(bridge), await answers(admin)
    await admin.close()
    assert {name for name in found if found[name] != wanted[name]} == set()
    assert {name for name, series in found.items() if not series} == set()
    assert len(found) > 25


async def test_the_bridges_user_learns_version_clock_and_memory(bridge: RedisSource) -> None:
    assert (await bridge.ping()).startswith("Redis 7")
    assert (bridge.skew_s is not None, bridge.memory is not None, bridge.warning) == (True, True, None)


async def test_a_wrong_password_is_told_as_denied(server: ProvisionedRedis) -> None:
    source = source_as(server, "bridge", "guessed")
    with pytest.raises(SourceDenied) as refused:
        await source.ping()
    await source.close()
    assert "guessed" not in str(refused.value)


_REFUSED = {
    "bridge": (
        *("HSET trade_state:1 state open", "DEL trade_state:1", "XADD trade_results * a b", "EXPIRE trade_state:1 1"),
        *("KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "SORT trade_state:open", "MONITOR", "DEBUG SLEEP 0", "SHUTDOWN"),
        *("CONFIG GET maxmemory", "CONFIG SET maxmemory 1", "FLUSHALL", "FLUSHDB", "SAVE", "BGSAVE", "ACL LIST", "ACL WHOAMI"),
        *("CLIENT KILL ID 1", "CLIENT LIST", "CLIENT PAUSE 1", "SLOWLOG GET", "REPLICAOF NO ONE", "MODULE LIST"),
        *("EVAL return 0", "FUNCTION LIST", "PUBLISH a b", "SUBSCRIBE a", "PSUBSCRIBE *", "MULTI", "DUMP trade_state:1"),
        *("CLUSTER RESET", "CLUSTER FAILOVER", "CLUSTER NODES", "REPLICAOF a 1", "PSYNC a 1", "REPLCONF ack 1"),
        *("HMGET session:1 user", "HMGET bridge:{a}:answer v", "XINFO STREAM audit", "ZUNION 2 trade_state:open other", "GET a"),
    ),
    "backend": (
        *("KEYS *", "SCAN 0", "FLUSHALL", "FLUSHDB", "CONFIG GET maxmemory", "DEBUG SLEEP 0", "SHUTDOWN", "ACL LIST", "MONITOR"),
        *("SET session:1 a", "DEL bridge:{a}:answer", "CLIENT KILL ID 1", "EVAL return 0", "SWAPDB 0 1", "REPLICAOF NO ONE"),
        *("RENAME trade_state:1 elsewhere", "COPY trade_state:1 elsewhere", "PUBLISH a b"),
    ),
    "exporter": ("HMGET trade_state:1 state", "XLEN trade_results", "CONFIG GET *", "KEYS *", "SCAN 0", "EVAL return 0"),
    "tier": (
        *("HGET trade_state:1 state", "HSET trade_state:1 a b", "DEL trade_state:1", "KEYS *", "SCAN 0", "FLUSHALL", "INFO"),
        *("XADD bridge:x * a b", "CONFIG GET *"),
    ),
    "sentinel": ("HMGET account_state:1 equity", "HSET account_state:1 a b", "CONFIG GET *", "FLUSHALL", "SHUTDOWN", "ACL LIST"),
    "replica": ("HMGET account_state:1 equity", "INFO", "REPLICAOF NO ONE", "CONFIG GET *"),
    "grafana": ("HSET trade_state:1 a b", "KEYS *", "SCAN 0", "CONFIG GET *", "HGETALL session:1", "EVAL return 0"),
}


@pytest.mark.parametrize(("user", "command"), [(user, command) for user, commands in _REFUSED.items() for command in commands])
def test_a_user_is_refused_what_it_does_not_need(server: ProvisionedRedis, user: str, command: str) -> None:
    arguments = command.replace("EVAL return 0", "EVAL return(1) 0")
    assert not verdict(server, user, arguments)


_ALLOWED = {
    "bridge": ("ROLE", "ASKING", "CLUSTER SLOTS", "CLUSTER INFO"),
    "backend": (
        *("HSET trade_state:1 a b", "ZADD trade_state:open 1 a", "XADD trade_results * a b", "EXPIRE trade_state:1 9", "MULTI"),
        *("XREADGROUP GROUP sync a STREAMS trade_results >", "XACK trade_results sync 1-0", "XAUTOCLAIM trade_results g c 1 0"),
        *("XGROUP CREATE trade_signals executors 0 MKSTREAM", "HSET signal_metrics:1 a b", "INFO", "SELECT 0"),
    ),
    "exporter": ("PING", "INFO ALL", "SLOWLOG GET 1", "SLOWLOG LEN", "LATENCY LATEST", "CLIENT SETNAME redis_exporter"),
    "grafana": ("HGETALL trade_state:1", "XRANGE trade_results - +", "ZRANGE hist:equity:1 0 -1", "XINFO STREAM trade_results"),
    "admin": ("ACL LOAD", "CONFIG SET maxmemory 1", "SHUTDOWN", "KEYS *"),
}


@pytest.mark.parametrize(("user", "command"), [(user, command) for user, commands in _ALLOWED.items() for command in commands])
def test_a_user_is_let_do_its_work(server: ProvisionedRedis, user: str, command: str) -> None:
    assert verdict(server, user, command)


async def test_the_bridges_user_is_refused_in_earnest(server: ProvisionedRedis) -> None:
    with server.user("bridge") as client:
        for call in (lambda: client.hset("trade_state:1", "a", "b"), lambda: client.keys(), lambda: client.config_get("*")):
            refused(call)
    assert not server.client.exists("trade_state:1")


def refused(call: Any) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        call()


async def test_replicas_share_answers_as_the_tiers_user(tmp_path: Path) -> None:
    with ProvisionedRedis("tier", tmp_path) as running:
        password = running.variables["REDIS_TIER_PASSWORD"]
        shelf = RedisSharedCache(
            SharedCacheSettings(host="127.0.0.1", port=running.port, username="tier", password=password, limit_s=1)
        )
        lease = await shelf.find("question", 0, 1000)
        other = await shelf.find("question", 0, 1000)
        await shelf.put("question", lease.token, b"answer", 5, 60_000)
        found = await shelf.find("question", 4, 1000)
        again = await shelf.find("another", 4, 1000)
        await shelf.give_up("another", again.token)
        after = await shelf.find("another", 4, 1000)
        usable = shelf.usable
        await shelf.close()
    assert (lease.token > 0, other.token, found.packed, after.token > again.token, usable) == (True, 0, b"answer", True, True)


def test_a_script_of_the_tiers_user_cannot_reach_for_state(server: ProvisionedRedis) -> None:
    with (
        server.user("tier") as client,
        pytest.raises(redis.exceptions.ResponseError, match="can't access at least one of the keys"),
    ):
        client.eval("return redis.call('HGET', 'trade_state:1', 'state')", 0)
