"""ClickHouse, over HTTP to a server process and embedded in this process: three tables of a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import chdb

from app.sources.base import Read, Source
from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseRead
from demo.stores import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.sources.clickhouse.conftest import SLOW, EmbeddedStore, Store, WireStore
from tests.sources.conformance.kind import ROWS, WHOLE_OR_ERROR, Case, Gap, Row, Table

_DATABASE = "bridge_test"
#: It ends in a comment, which must not hide what is put behind it.
_TEMPLATE = """
    SELECT intDiv(toUnixTimestamp64Milli(at), {{step_ms:Int64}}) * {{step_ms:Int64}} AS time, {{by}}, sum(amount) AS value
    FROM {table} -- {{by}} in the middle
    WHERE at >= fromUnixTimestamp64Milli({{from_ms:Int64}}) AND at < fromUnixTimestamp64Milli({{to_ms:Int64}}) {{where}}
    GROUP BY ALL ORDER BY time; -- the rows of a bucket"""


class ClickHouseKind:
    """See Kind."""

    gaps: Mapping[Case, Gap] = {"partial": WHOLE_OR_ERROR}
    tells_while_hanging = True
    covers_to_ms: int | None = None

    def __init__(self, store: Store, unreachable: ClickHouseConfig) -> None:
        self._store = store
        self._unreachable = unreachable
        for table, rows in ROWS.items():
            store.execute(
                f"CREATE TABLE {_DATABASE}.{table} (at DateTime64(3, 'UTC'), account String, broker LowCardinality(String), "
                "amount Nullable(Float64)) ENGINE = MergeTree ORDER BY at"
            )
            store.execute(f"INSERT INTO {_DATABASE}.{table} VALUES {', '.join(map(_literal, rows))}")

    def build(self, **options: Any) -> Source:
        return self._store.config.model_copy(update=options).build("store")

    def unreachable(self) -> Source:
        return self._unreachable.build("store")

    def read(self, table: Table) -> Read:
        return ClickHouseRead(source="store", sql=_TEMPLATE.format(table=table))

    def wrong_read(self) -> Read:
        return ClickHouseRead(source="store", sql="SELECT toInt64(0) AS time, nosuch AS value FROM figures")

    def partial_read(self) -> Read:
        return self.read("figures")

    @asynccontextmanager
    async def hanging(self) -> AsyncIterator[Read]:
        yield ClickHouseRead(source="store", sql=SLOW)

    def running(self, source: Source) -> int:
        return self._store.running()


def _literal(row: Row) -> str:
    account = row.account.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    amount = "NULL" if row.amount is None else row.amount
    return f"(fromUnixTimestamp64Milli({row.at_ms}), '{account}', '{row.broker}', {amount})"


@contextmanager
def clickhouse_http_kind(folder: Path) -> Iterator[ClickHouseKind]:
    """A server of its own."""
    server = ClickHouseServer(folder, "open sesame").start()
    server.execute(f"CREATE DATABASE {_DATABASE}")
    yield ClickHouseKind(WireStore(server), ClickHouseConfig(port=free_port()))
    server.close()
    server.stop()


@contextmanager
def clickhouse_nodes_kind(folder: Path) -> Iterator[ClickHouseKind]:
    """Two nodes, the preferred one of which is down."""
    server = ClickHouseServer(folder, "open sesame").start()
    server.execute(f"CREATE DATABASE {_DATABASE}")
    store = WireStore(server)
    dead = f"127.0.0.1:{free_port()}"
    access = {"username": server.username, "password": server.password, "database": _DATABASE, "connect_timeout_s": 5}
    store.config = ClickHouseConfig.model_validate({"hosts": (dead, f"127.0.0.1:{server.port}"), **access})
    yield ClickHouseKind(store, ClickHouseConfig(hosts=(dead, f"127.0.0.1:{free_port()}")))
    server.close()
    server.stop()


@contextmanager
def clickhouse_embedded_kind(folder: Path) -> Iterator[ClickHouseKind]:
    """The engine in this process. There is one engine a process, so another folder cannot be opened beside it."""
    connection: Any = chdb.connect(str(folder))  # type: ignore[no-untyped-call]  # chdb has no types
    connection.query(f"CREATE DATABASE {_DATABASE}")
    config = ClickHouseConfig(interface="chdb", path=folder, database=_DATABASE)
    elsewhere = config.model_copy(update={"path": folder / "elsewhere"})
    yield ClickHouseKind(EmbeddedStore(connection, config), elsewhere)
    connection.close()
