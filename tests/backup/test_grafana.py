"""Grafana's database: real SQLite, written to by another process all the while."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.backup.manifest import hash_file
from tests.backup.desk import Desk, flip
from tests.servers import grafana_database as grafana
from tests.servers.grafana_database import GrafanaWriter


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback-journal"])
def test_a_backup_under_writes_is_one_instant_and_comes_back_as_it_was_saved(desk: Desk, database: Path, wal: bool) -> None:
    grafana.make(database, wal=wal)
    with GrafanaWriter(database):
        before = grafana.counts(database)[0]
        backup = desk.saved("grafana")
        after = grafana.counts(database)[0]
    saved = backup.manifest().files["grafana.db"]
    tables = backup.manifest().contents["tables"]
    assert tables["dashboard"] == tables["dashboard_version"]
    assert before <= tables["dashboard"] <= after
    database.write_bytes(b"not a database any more")
    done = desk.run("restore", "grafana", "latest", "--force")
    assert (done.code, hash_file(database)) == (0, saved)
    assert grafana.counts(database) == (tables["dashboard"], tables["dashboard"])


def test_what_stands_only_in_the_wal_of_a_grafana_that_was_killed_is_saved_and_restored(desk: Desk, database: Path) -> None:
    grafana.make(database, wal=True)
    with GrafanaWriter(database):
        pass
    wal = database.with_name("grafana.db-wal")
    written = grafana.counts(database)
    shutil.copy(database, desk.folder / "naive.db")
    assert grafana.counts(desk.folder / "naive.db") == (0, 0)  # what copying the file alone would have saved
    assert written[0] >= 100
    desk.saved("grafana")
    left_over = wal.read_bytes()
    done = desk.run("restore", "grafana", "latest", "--force")
    (kept,) = database.parent.glob("grafana.db-wal.before-*")
    assert (done.code, kept.read_bytes(), wal.exists()) == (0, left_over, False)
    assert grafana.counts(database) == written


def test_a_leftover_wal_is_moved_aside_though_the_database_itself_is_gone(desk: Desk, database: Path) -> None:
    grafana.make(database, wal=True)
    with GrafanaWriter(database):
        pass
    written = grafana.counts(database)
    desk.saved("grafana")
    database.unlink()
    assert desk.run("restore", "grafana", "latest").code == 0
    assert grafana.counts(database) == written


def test_a_database_that_grafana_has_open_is_not_replaced(desk: Desk, database: Path) -> None:
    grafana.make(database, wal=True)
    desk.saved("grafana")
    with grafana.reader(database):
        before = desk.state()
        done = desk.run("restore", "grafana", "latest", "--force")
        assert (done.code, done.err) == (1, f"bridge: grafana: {database} is open in another program; stop Grafana first\n")
        assert desk.state() == before


def test_a_damaged_database_is_not_published_as_a_backup(desk: Desk, database: Path) -> None:
    grafana.make(database, wal=False)
    with GrafanaWriter(database):
        pass
    content = bytearray(database.read_bytes())
    content[8192:24576] = bytes(16384)
    database.write_bytes(content)
    before = desk.state()
    done = desk.run("backup", "grafana")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("bridge: grafana: ")
    assert (desk.archive.backups(), desk.state()) == ([], before)


def test_damage_that_counting_rows_does_not_see_is_found_too(desk: Desk, database: Path) -> None:
    grafana.make(database, wal=False)
    with closing(sqlite3.connect(database)) as damaging:
        damaging.executescript(
            "UPDATE user SET name = NULL; PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql = replace(sql, 'name TEXT NULL', 'name TEXT NOT NULL') WHERE name = 'user'"
        )
    done = desk.run("backup", "grafana")
    assert (done.code, done.err) == (1, "bridge: grafana: the database is damaged: NULL value in user.name\n")


def test_verify_restores_aside_and_compares_what_the_tables_hold(desk: Desk, database: Path) -> None:
    grafana.make(database, wal=True)
    backup = desk.saved("grafana")
    good = desk.run("backup", "verify", "grafana")
    flip(backup.path / "data" / "grafana.db")
    bad = desk.run("backup", "verify", backup.name)
    assert (good.code, "restored aside, it holds what was saved" in good.out) == (0, True)
    assert (bad.code, bad.err) == (
        1,
        f"bridge: {backup.name}: grafana.db is not what was saved (its SHA-256 differs)\n",
    )


def test_a_path_to_no_database_is_named(desk: Desk, database: Path) -> None:
    done = desk.run("backup", "grafana")
    assert (done.code, done.err) == (
        1,
        f"bridge: grafana: {database}: there is no such file; set backup.grafana.database\n",
    )
