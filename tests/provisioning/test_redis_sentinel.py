"""provisioning/redis as a master, a replica and three Sentinels: the users may do just what they need, a failover included."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.errors import SourceError
from app.sources.redis.source import RedisConfig, RedisSource
from tests.servers.redis import RedisServer, redis_program
from tests.servers.redis_provisioned import PROVISIONING, ProvisionedRedis
from tests.servers.redis_sentinels import FAILOVER_S, wait_until
from tests.sources.redis.asking import statement

OWN, BRIDGES = "of-the-sentinels", "of-the-bridge"
ONE = {"read": "hash", "key": "account_state:1", "field": "equity"}


class ReplicatedRedis(ProvisionedRedis):
    """One of two servers with the same users."""

    def __init__(self, folder: Path, master: ProvisionedRedis | None = None) -> None:
        folder.mkdir(parents=True)
        if master is not None:
            shutil.copy(master.folder / "env", folder / "env")
        super().__init__("rts", folder)
        self._master = master

    def _command(self) -> list[str]:
        replica = ["--masteruser", "replica", "--masterauth", self.variables["REDIS_REPLICA_PASSWORD"]]
        if self._master is not None:
            replica += ["--replicaof", "127.0.0.1", str(self._master.port), "--repl-diskless-sync-delay", "0"]
        return [*super()._command(), *replica]


class ProvisionedSentinel(RedisServer):
    """A Sentinel with the committed example, filled in."""

    def __init__(self, folder: Path, master: ProvisionedRedis) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.client.connection_pool.connection_kwargs.update(username="sentinel", password=OWN)
        text = (PROVISIONING / "redis" / "sentinel.conf").read_text(encoding="utf-8")
        for placeholder, value in {
            "<the master's address> 6379": f"127.0.0.1 {master.port}",
            "<REDIS_SENTINEL_PASSWORD>": master.variables["REDIS_SENTINEL_PASSWORD"],
            "<SHA-256 of the Sentinels' own password>": hashlib.sha256(OWN.encode()).hexdigest(),
            "<SHA-256 of sentinel_password>": hashlib.sha256(BRIDGES.encode()).hexdigest(),
            "<the Sentinels' own password>": OWN,
            "port 26379": f"port {self.port}",
            "/var/lib/redis": str(folder),
            "rts 5000": "rts 1000",
        }.items():
            assert placeholder in text
            text = text.replace(placeholder, value)
        assert "<" not in "".join(line for line in text.splitlines() if not line.startswith("#"))
        (folder / "sentinel.conf").write_text(text, encoding="utf-8")

    def _command(self) -> list[str]:
        return [redis_program(), str(self._folder / "sentinel.conf"), "--sentinel"]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[ReplicatedRedis, ReplicatedRedis, list[ProvisionedSentinel]]]:
    master = ReplicatedRedis(tmp_path / "first")
    replica = ReplicatedRedis(tmp_path / "second", master)
    sentinels = [ProvisionedSentinel(tmp_path / f"sentinel-{number}", master) for number in range(3)]
    with ExitStack() as stack:
        for server in (master, replica, *sentinels):
            stack.enter_context(server)
        wait_until(lambda: all(knows_all(sentinel) for sentinel in sentinels), FAILOVER_S, "the Sentinels do not know each other")
        yield master, replica, sentinels


def knows_all(sentinel: ProvisionedSentinel) -> bool:
    state = sentinel.client.sentinel_master("rts")
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


async def equity(source: RedisSource) -> list[float]:
    """Asked until there is an answer."""
    ends = time.monotonic() + FAILOVER_S
    while True:
        try:
            found: list[float] = (await source.fetch(statement(ONE))).value.tolist()
        except SourceError:
            assert time.monotonic() < ends
            await asyncio.sleep(0.05)
        else:
            return found


async def test_the_example_fails_over_and_the_bridges_users_may_follow(
    servers: tuple[ReplicatedRedis, ReplicatedRedis, list[ProvisionedSentinel]],
) -> None:
    master, replica, sentinels = servers
    with master.user("backend") as backend:
        backend.hset("account_state:1", "equity", 7)
    wait_until(lambda: bool(replica.client.exists("account_state:1")), FAILOVER_S, "nothing is replicated")
    source = RedisConfig(
        sentinels=tuple(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels),
        service="rts",
        username="bridge",
        password=master.variables["REDIS_BRIDGE_PASSWORD"],
        sentinel_username="bridge",
        sentinel_password=BRIDGES,
        replica_reads=True,
    ).build("rts")
    assert (await source.fetch(statement(ONE))).value.tolist() == [7]
    assert f", master 127.0.0.1:{master.port} of rts by Sentinel" in await source.ping()
    master.kill()
    assert await equity(source) == [7]
    assert f"127.0.0.1:{replica.port}" in await source.ping()
    await source.close()
