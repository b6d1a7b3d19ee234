"""Two ways to ClickHouse, one suite: over HTTP to a server process, and the engine embedded in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import chdb
import pytest
from pydantic import SecretStr

from app.model import Frame, Labels, Matcher, Statement, TimeRange
from app.sources.base import Ask
from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseRead, ClickHouseSource
from tests.servers.clickhouse import ClickHouse, ClickHouseServer, real_clickhouse

DATABASE = "bridge_test"

TEN_MINUTES = TimeRange(0, 600_000, 60_000)

#: Runs 20 s in steps of 20 ms, on hardly any CPU.
SLOW = "SELECT toInt64(0) AS time, sum(sleepEachRow(0.02)) AS value FROM numbers(1000) SETTINGS max_block_size = 1"


class Store(Protocol):
    """What a test needs of either."""

    config: ClickHouseConfig

    def execute(self, sql: str) -> str:
        """Run a statement."""

    def running(self) -> int:
        """How many SLOW queries are at work in the engine."""


class WireStore:
    """A server process, or the real server."""

    def __init__(self, server: ClickHouse) -> None:
        self.server = server
        self.config = config_of(server)

    def execute(self, sql: str) -> str:
        return self.server.execute(sql)

    def running(self) -> int:
        return len(slow_ids(self.server))


class EmbeddedStore:
    """The engine in this process."""

    def __init__(self, connection: Any, config: ClickHouseConfig) -> None:
        self._connection = connection
        self.config = config

    def execute(self, sql: str) -> str:
        return str(self._connection.query(sql, "TabSeparated").bytes().decode())

    def running(self) -> int:
        return int(self.execute("SELECT countIf(query LIKE '%0.02%' AND query NOT LIKE '%processes%') FROM system.processes"))


def slow_ids(server: ClickHouse) -> list[str]:
    """The ids of the SLOW queries that are at work at the server."""
    return server.running("sleepEachRow")


def config_of(server: ClickHouse, **more: Any) -> ClickHouseConfig:
    """The configuration that reaches this server."""
    address = {"host": server.host, "port": server.port, "username": server.username, "password": SecretStr(server.password)}
    return ClickHouseConfig(**(address | {"database": DATABASE} | more))


@pytest.fixture(scope="session")
def switched_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with_switches = ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), "open sesame").start()
    with_switches.execute(f"CREATE DATABASE {DATABASE}")
    yield with_switches
    with_switches.close()
    with_switches.stop()


@pytest.fixture
def own_server(switched_server: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """Our own server, whose faults can be switched on."""
    yield switched_server
    switched_server.faults()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[ClickHouse]:
    """The real server where one is named, else our own."""
    real = real_clickhouse()
    if real is None:
        yield request.getfixturevalue("switched_server")
        return
    real.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    yield real
    real.close()


@pytest.fixture(scope="module", params=["http", "chdb"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if request.param == "http":
        yield WireStore(request.getfixturevalue("server"))
        return
    folder = tmp_path_factory.mktemp("embedded")
    connection = chdb.connect(str(folder))  # type: ignore[no-untyped-call]  # chdb has no types
    connection.query(f"CREATE DATABASE {DATABASE}")
    yield EmbeddedStore(connection, ClickHouseConfig(interface="chdb", path=folder, database=DATABASE))
    connection.close()


@pytest.fixture
async def source(store: Store) -> AsyncIterator[ClickHouseSource]:
    found = store.config.build("history")
    yield found
    await found.close()


def statement(
    sql: str,
    by: tuple[str, ...] = (),
    where: tuple[Matcher, ...] = (),
    span: TimeRange = TEN_MINUTES,
    **labels: str,
) -> Statement:
    """The Statement of a read with this template."""
    return ClickHouseRead(source="history", sql=sql, labels=labels).statement(Ask("metric", span, by, where))


def series(frame: Frame) -> dict[Labels, list[tuple[int, float | None]]]:
    """A frame as a plain value: labels -> (time, value), NaN as None."""
    pairs = ((labels, zip(times.tolist(), values.tolist(), strict=True)) for labels, times, values in frame.runs())
    return {labels: [(at, None if value != value else value) for at, value in rows] for labels, rows in pairs}


async def until(holds: Callable[[], bool], limit_s: float = 5.0) -> float:
    """Wait for something to become true; the seconds that it took."""
    started = time.monotonic()
    while not await asyncio.to_thread(holds):
        assert time.monotonic() - started < limit_s, "it did not become true"
        await asyncio.sleep(0.005)
    return time.monotonic() - started
