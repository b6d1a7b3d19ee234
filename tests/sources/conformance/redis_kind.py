"""Redis: each table is a stream, each row an entry under its time. A stopped process is what hangs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.sources.base import Read, Source
from app.sources.redis.source import RedisConfig, RedisRead
from demo.stores import free_port
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import ClusterSite
from tests.servers.redis_sentinels import SERVICE, SentinelServer
from tests.sources.conformance.kind import BEGIN, ROWS, Case, Gap, Table, in_order

_READS: TypeAdapter[Read] = TypeAdapter(RedisRead)


class RedisKind:
    """See Kind."""

    gaps: Mapping[Case, Gap] = {
        "limit": Gap("a stream's newest entries are answered, and from when on they are complete"),
        "explain": Gap("Redis plans nothing"),
    }
    tells_while_hanging = False
    covers_to_ms: int | None = None

    def __init__(self, servers: Sequence[RedisServer], client: Any, **connect: Any) -> None:
        self._servers = servers
        self._connect = connect
        for table, rows in ROWS.items():
            for row in in_order(rows):
                amount = "" if row.amount is None else row.amount
                client.xadd(table, {"account": row.account, "broker": row.broker, "amount": amount}, f"{row.at_ms}-*")
        client.set("no_stream", "x")
        client.xadd("odd", {"amount": "much"}, f"{BEGIN}-*")

    def build(self, **options: Any) -> Source:
        return RedisConfig(**self._connect, **options).build("store")

    def unreachable(self) -> Source:
        nobody = [f"127.0.0.1:{free_port()}"]
        lists: dict[str, Any] = {key: nobody for key in ("sentinels", "nodes") if key in self._connect}
        return RedisConfig(**{**self._connect, **(lists or {"port": free_port()})}).build("store")

    def read(self, table: Table) -> Read:
        return self._read_of(table)

    def wrong_read(self) -> Read:
        return self._read_of("no_stream")

    def partial_read(self) -> Read:
        return self._read_of("odd")

    def _read_of(self, stream: str) -> Read:
        entry = {"source": "store", "read": "events", "stream": stream, "field": "amount", "aggregate": "sum"}
        return _READS.validate_python(entry)

    @asynccontextmanager
    async def hanging(self) -> AsyncIterator[Read]:
        for server in self._servers:
            server.pause()
        try:
            yield self.read("figures")
        finally:
            for server in self._servers:
                server.resume()

    def running(self, source: Source) -> int:
        # A stopped server cannot be asked; the connection that waits for it shows in the system's table when it goes on.
        clients = [client for server in self._servers for client in server.client.client_list()]
        return sum(client["cmd"] != "client|list" and not client["name"].startswith("sentinel-") for client in clients)


@contextmanager
def redis_kind(folder: Path) -> Iterator[RedisKind]:
    """A server of its own."""
    with RedisServer(folder) as server:
        yield RedisKind([server], server.client, port=server.port)


@contextmanager
def redis_sentinel_kind(folder: Path) -> Iterator[RedisKind]:
    """A server that a Sentinel names."""
    (folder / "server").mkdir()
    with RedisServer(folder / "server") as server, SentinelServer(folder / "sentinel", server) as sentinel:
        yield RedisKind([server], server.client, sentinels=[f"127.0.0.1:{sentinel.port}"], service=SERVICE)


@contextmanager
def redis_cluster_kind(folder: Path) -> Iterator[RedisKind]:
    """Three servers that have a part of the keys each."""
    with ClusterSite(folder) as site:
        with site.client() as client:
            kind = RedisKind(site.nodes, client, cluster=True, nodes=site.addresses)
        yield kind
