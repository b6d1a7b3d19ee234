"""How old and how large the backups are: what Prometheus, and whoever runs `bridge check`, is told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx

from app.backup.health import BackupHealthReader, health_lines, show_health
from app.config import read_settings
from app.main import build_service
from app.telemetry import Telemetry
from tests.backup.desk import Desk, flip
from tests.servers import grafana_database as grafana
from tests.servers.listening import listening


def metrics(text: str) -> dict[str, float]:
    """The backups' gauges."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("bridge_backup_"))
    return {name.removeprefix("bridge_backup_"): float(value) for name, value in lines}


def shown(standings: BackupHealthReader) -> dict[str, float]:
    telemetry = Telemetry()
    show_health(standings.read(), telemetry)
    return metrics(telemetry.exposition().decode())


def test_age_size_and_the_last_result_of_each_kind(desk: Desk, database: Path) -> None:
    grafana.make(database, wal=False)
    backup = desk.saved("grafana")
    standings = BackupHealthReader(desk.archive.folder, ("grafana", "config"))
    first = shown(standings)
    assert first['size_bytes{kind="grafana"}'] == backup.manifest().size_bytes
    assert 0 <= first['age_seconds{kind="grafana"}'] < 60
    assert (first['last_ok{kind="grafana"}'], first['verified_age_seconds{kind="grafana"}']) == (1.0, float("inf"))
    assert (first['age_seconds{kind="config"}'], str(first['last_ok{kind="config"}'])) == (float("inf"), "nan")
    database.write_bytes(b"no database")
    desk.run("backup", "grafana")
    desk.run("backup", "verify", "grafana")
    second = shown(standings)
    assert second['last_ok{kind="grafana"}'] == 0.0
    assert 0 <= second['verified_age_seconds{kind="grafana"}'] < 60
    flip(backup.path / "data" / "grafana.db")
    desk.run("backup", "verify", "grafana")
    assert shown(standings)['verified_age_seconds{kind="grafana"}'] == float("inf")


async def test_the_bridge_tells_prometheus(desk: Desk) -> None:
    desk.saved("config")
    settings = read_settings(desk.config)
    settings = settings.model_copy(update={"agent": settings.agent.model_copy(update={"port": None})})
    async with listening(build_service(settings).app) as port, httpx.AsyncClient() as client:
        found: dict[str, float] = {}
        ends = time.monotonic() + 5
        while not found and time.monotonic() < ends:
            found = metrics((await client.get(f"http://127.0.0.1:{port}/metrics")).text)
            await asyncio.sleep(0.01)
    assert found['last_ok{kind="config"}'] == 1.0
    assert 0 <= found['age_seconds{kind="config"}'] < 60


def test_check_says_it_in_one_line(desk: Desk, database: Path) -> None:
    desk.saved("config")
    desk.run("backup", "grafana")
    done = desk.run("check", "--dashboards", str(_dashboards(desk)))  # the repository's ask for more than the desk's catalogue
    assert (done.code, done.err) == (0, "")
    (said,) = (line for line in done.out.splitlines() if line.startswith("backups: "))
    assert said.startswith(f"backups: {desk.archive.folder}: grafana NEVER, the last one FAILED, config ")
    assert list(health_lines(None)) == ["backups: off (no backup.folder)"]


def _dashboards(desk: Desk) -> Path:
    folder = desk.folder / "dashboards"
    folder.mkdir()
    (folder / "empty.json").write_text('{"panels": []}')
    return folder


def test_a_folder_that_is_not_there_yet_is_no_error(desk: Desk) -> None:
    assert shown(BackupHealthReader(desk.folder / "none", ("config",)))['age_seconds{kind="config"}'] == float("inf")
