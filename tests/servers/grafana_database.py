"""A database as Grafana keeps it, and a process that goes on writing to it as Grafana does.

The tables are some of Grafana's own (its migrations, in the shape of versions 9 to 12). Each transaction of the writer saves one
dashboard and one version of it, so a copy that is one instant of the database has as many of the one as of the other.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

SCHEMA = """
CREATE TABLE migration_log (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, migration_id TEXT NOT NULL, sql TEXT NOT NULL,
    success INTEGER NOT NULL, error TEXT NOT NULL, timestamp DATETIME NOT NULL);
CREATE TABLE org (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL,
    created DATETIME NOT NULL, updated DATETIME NOT NULL);
CREATE UNIQUE INDEX UQE_org_name ON org (name);
CREATE TABLE user (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, version INTEGER NOT NULL, login TEXT NOT NULL,
    email TEXT NOT NULL, name TEXT NULL, password TEXT NULL, salt TEXT NULL, rands TEXT NULL, org_id INTEGER NOT NULL,
    is_admin INTEGER NOT NULL, created DATETIME NOT NULL, updated DATETIME NOT NULL);
CREATE UNIQUE INDEX UQE_user_login ON user (login);
CREATE TABLE data_source (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, org_id INTEGER NOT NULL, version INTEGER NOT NULL,
    type TEXT NOT NULL, name TEXT NOT NULL, access TEXT NOT NULL, url TEXT NOT NULL, is_default INTEGER NOT NULL,
    json_data TEXT NULL, secure_json_data TEXT NULL, uid TEXT NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX UQE_data_source_org_id_name ON data_source (org_id, name);
CREATE TABLE dashboard (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, version INTEGER NOT NULL, slug TEXT NOT NULL,
    title TEXT NOT NULL, data TEXT NOT NULL, org_id INTEGER NOT NULL, uid TEXT NULL, folder_uid TEXT NULL,
    created DATETIME NOT NULL, updated DATETIME NOT NULL);
CREATE UNIQUE INDEX UQE_dashboard_org_id_uid ON dashboard (org_id, uid);
CREATE TABLE dashboard_version (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, dashboard_id INTEGER NOT NULL,
    parent_version INTEGER NOT NULL, version INTEGER NOT NULL, created DATETIME NOT NULL, message TEXT NOT NULL,
    data TEXT NOT NULL);
CREATE TABLE alert_instance (rule_org_id INTEGER NOT NULL, rule_uid TEXT NOT NULL, labels TEXT NOT NULL,
    labels_hash TEXT NOT NULL, current_state TEXT NOT NULL, last_eval_time INTEGER NOT NULL,
    PRIMARY KEY (rule_org_id, rule_uid, labels_hash));
INSERT INTO org VALUES (1, 0, 'Trading', '2026-11-23', '2026-11-23');
INSERT INTO user VALUES (1, 0, 'admin', 'admin@localhost', 'Admin', 'f00d', 'salt', 'rands', 1, 1, '2026-11-23', '2026-11-23');
INSERT INTO data_source VALUES (1, 1, 1, 'simpod-json-datasource', 'Bridge', 'proxy', 'http://127.0.0.1:8080/json', 1, '{}',
    '{"httpHeaderValue1":"I2FlczI1Ng"}', 'bridge-json');
"""
_PANELS = '{"panels": [' + ", ".join('{"type": "timeseries", "title": "Equity"}' for _ in range(30)) + "]}"


def make(file: Path, *, wal: bool) -> None:
    """A new database."""
    database = sqlite3.connect(file)
    database.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
    database.executescript(SCHEMA)
    database.close()


def counts(file: Path) -> tuple[int, int]:
    """How many dashboards and how many versions of them it has."""
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)
    try:
        found = [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("dashboard", "dashboard_version")]
    finally:
        database.close()
    return found[0], found[1]


class GrafanaWriter:
    """The process. It never folds its `-wal` into the file by itself, so that what is new stands only there."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", __file__, str(self._file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "writing\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def reader(file: Path) -> Iterator[None]:
    """Another process has it open, idle, as Grafana does most of the time."""
    code = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('SELECT 1 FROM user').fetchall()"
    command = [sys.executable, "-c", f"{code}; print(flush=True); input()", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        yield
        process.communicate("\n")


def _write(file: str) -> None:
    database = sqlite3.connect(file, timeout=30, isolation_level=None)
    database.execute("PRAGMA wal_autocheckpoint=0")
    at = "2026-11-23 21:00:00"
    ends = time.monotonic() + 60
    number = database.execute("SELECT count(*) FROM dashboard").fetchone()[0]
    while time.monotonic() < ends:
        number += 1
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "INSERT INTO dashboard (version, slug, title, data, org_id, uid, created, updated) VALUES (1, ?, ?, ?, 1, ?, ?, ?)",
            (f"d-{number}", f"Dashboard {number}", _PANELS, f"uid{number}", at, at),
        )
        database.execute(
            "INSERT INTO dashboard_version (dashboard_id, parent_version, version, created, message, data)"
            " VALUES (?, 0, 1, ?, '', ?)",
            (number, at, _PANELS),
        )
        database.execute("COMMIT")
        if number % 100 == 0:
            print("writing", flush=True)  # noqa: T201  the answer to the parent
        time.sleep(0.0005)


if __name__ == "__main__":
    _write(sys.argv[1])
