"""A desk for each test, and the servers that all tests here share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup import history as trades
from tests.backup.desk import Desk
from tests.backup.scraped import scraping
from tests.servers import grafana_database as grafana
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.prometheus import PrometheusServer
from tests.servers.snapshots import SnapshotPublisher

PASSWORD = "a-password"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Nothing is configured yet."""
    return Desk(tmp_path)


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """It may write backups to its disk `backups`."""
    folder = tmp_path_factory.mktemp("clickhouse")
    running = ClickHouseServer(folder / "data", PASSWORD, folder / "disk").start()
    yield running
    running.stop()
    running.close()


@pytest.fixture(scope="session")
def prometheus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """One for all, since it waits five seconds before its first scrape."""
    with scraping(tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@pytest.fixture
def history(desk: Desk, clickhouse_server: ClickHouseServer, monkeypatch: pytest.MonkeyPatch) -> ClickHouseServer:
    """The history's tables, made anew, which are what the desk saves."""
    trades.make_anew(clickhouse_server)
    desk.sources["clickhouse"] = {"kind": "clickhouse", "port": clickhouse_server.port}
    monkeypatch.setenv("BRIDGE_SOURCES__CLICKHOUSE__CONNECT__PASSWORD", PASSWORD)
    desk.settings["clickhouse"] = {"files": str(clickhouse_server.backups)}
    return clickhouse_server


@pytest.fixture
def prometheus(desk: Desk, prometheus_server: PrometheusServer) -> PrometheusServer:
    """The server, which is what the desk saves."""
    url = f"http://127.0.0.1:{prometheus_server.port}"
    desk.settings["prometheus"] = {"url": url, "data": str(prometheus_server.data)}
    return prometheus_server


@pytest.fixture
def database(desk: Desk) -> Path:
    """Where Grafana's database is to be."""
    file = desk.folder / "grafana" / "grafana.db"
    file.parent.mkdir()
    desk.settings["grafana"] = {"database": str(file)}
    return file


@pytest.fixture
def writer(desk: Desk) -> Iterator[SnapshotPublisher]:
    """A process that holds the live file of the account analytics open; nothing is published yet."""
    folder = desk.folder / "analytics"
    folder.mkdir()
    with SnapshotPublisher(folder) as publisher:
        desk.sources["duckdb"] = {"kind": "duckdb", "snapshots": str(publisher.snapshots)}
        yield publisher


@pytest.fixture
def everything(
    desk: Desk, history: ClickHouseServer, prometheus: PrometheusServer, database: Path, writer: SnapshotPublisher
) -> Desk:
    """A desk with every kind."""
    grafana.make(database, wal=True)
    writer.insert((1_795_000_000_000, "a1", "b1", 1.0))
    writer.publish(1_795_000_000_000)
    return desk
