"""Redis: each table is a stream, each row an entry under its time. A stopped process is what hangs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.sources.base import Read, Source
from app.sources.redis.source import RedisConfig, RedisRead
from demo.stores import free_port
from tests.servers.redis import RedisServer
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

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        for table, rows in ROWS.items():
            for row in in_order(rows):
                amount = "" if row.amount is None else row.amount
                server.client.xadd(table, {"account": row.account, "broker": row.broker, "amount": amount}, f"{row.at_ms}-*")
        server.client.set("no_stream", "x")
        server.client.xadd("odd", {"amount": "much"}, f"{BEGIN}-*")

    def build(self, **options: Any) -> Source:
        return RedisConfig(port=self._server.port, **options).build("store")

    def unreachable(self) -> Source:
        return RedisConfig(port=free_port()).build("store")

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
        self._server.pause()
        try:
            yield self.read("figures")
        finally:
            self._server.resume()

    def running(self, source: Source) -> int:
        # A stopped server cannot be asked; the connection that waits for it shows in the system's table when it goes on.
        return len(self._server.client.client_list()) - 1


@contextmanager
def redis_kind(folder: Path) -> Iterator[RedisKind]:
    """A server of its own."""
    with RedisServer(folder) as server:
        yield RedisKind(server)
