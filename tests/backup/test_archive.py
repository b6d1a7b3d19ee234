"""The folder of backups: nothing half done is seen, one at a time, old ones go, and what fails is one line."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.backup.manifest import KINDS, MANIFEST, digest_of
from tests.backup.desk import Desk
from tests.servers import grafana_database as grafana

NOBODY = 65534


@pytest.fixture
def saved_database(database: Path) -> Path:
    """A database with two thousand dashboards' worth of bytes."""
    grafana.make(database, wal=False)
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO migration_log VALUES (1, 'x', ?, 1, '', '')", ("x" * 2_000_000,))
    connection.close()
    return database


@contextmanager
def busy(database: Path) -> Iterator[None]:
    """Somebody writes to it for so long that a backup has to wait."""
    connection = sqlite3.connect(database)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.close()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may do everything: what wrong rights do is seen as somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def hidden(desk: Desk) -> list[str]:
    """What is in the folder and is no backup, the lock and the notes aside."""
    return sorted(
        path.name for path in desk.archive.folder.glob(".*") if path.name != ".bridge-lock" and ".last-" not in path.name
    )


def started(desk: Desk) -> subprocess.Popen[str]:
    """A backup of Grafana's database that has begun and waits."""
    command = [sys.executable, "-m", "app", "backup", "grafana", "--config", str(desk.config)]
    # Whoever runs the tests under nohup has SIGHUP ignored, and a child inherits that.
    heard = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGHUP, heard)
    while ".bridge-part-grafana" not in hidden(desk):
        time.sleep(0.02)
    return process


def test_all_takes_every_kind_and_verify_takes_the_newest_of_each(everything: Desk) -> None:
    taken = everything.run("backup", "all")
    verified = everything.run("backup", "verify")
    listed = everything.run("backup", "list")
    names = sorted(backup.name for backup in everything.archive.backups())
    assert (taken.code, taken.err, verified.code, verified.err) == (0, "", 0, "")
    assert [name.split("-")[0] for name in names] == sorted(KINDS)
    assert sorted(line.split(": ")[0] for line in verified.out.splitlines()) == names
    assert [line.split()[0] for line in listed.out.splitlines()] == names
    assert "keep Grafana's secret_key too" in taken.out


def test_all_goes_on_after_a_failure_and_says_so(desk: Desk, database: Path) -> None:
    done = desk.run("backup", "all")
    assert (done.code, done.err.count("\n"), [one.kind for one in desk.archive.backups()]) == (1, 1, ["config"])


def test_a_backup_that_is_killed_is_never_seen_and_the_next_one_clears_up(desk: Desk, saved_database: Path) -> None:
    with busy(saved_database):
        process = started(desk)
        process.kill()
        process.communicate()
    assert (desk.archive.backups(), hidden(desk), desk.run("backup", "list").out) == (
        [],
        [".bridge-part-grafana"],
        f"no backups in {desk.archive.folder}\n",
    )
    desk.saved("grafana")
    assert (len(desk.archive.backups()), hidden(desk)) == (1, [])


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)], ids=str
)
def test_a_backup_that_is_told_to_stop_leaves_nothing(
    desk: Desk, saved_database: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    with busy(saved_database):
        process = started(desk)
        for number in numbers:
            process.send_signal(number)
        # SQLite waits in C; the signal is seen when that wait is over.
        time.sleep(0.1)
    process.communicate()
    assert (process.returncode, desk.archive.backups(), hidden(desk)) == (130, [], [])


def test_a_second_one_at_the_same_time_is_refused(desk: Desk, saved_database: Path) -> None:
    with busy(saved_database):
        process = started(desk)
        second, verify = desk.run("backup", "config"), desk.run("restore", "config", "latest")
        process.kill()
        process.communicate()
    at_work = f"bridge: {desk.archive.folder}: another backup or restore is at work here (process {process.pid}); wait for it\n"
    assert (second.code, second.err) == (1, at_work)
    assert (verify.code, "there is no such backup" in verify.err) == (1, True)
    assert desk.run("backup", "config").code == 0


def test_keep_removes_old_ones_only_when_the_new_one_is_there(desk: Desk, saved_database: Path) -> None:
    first, second = desk.saved("grafana"), desk.saved("grafana")
    content = saved_database.read_bytes()
    saved_database.write_bytes(b"no database")
    failed = desk.run("backup", "grafana", "--keep", "1")
    assert (failed.code, desk.archive.backups("grafana")) == (1, [second, first])
    saved_database.write_bytes(content)
    config = desk.saved("config")
    third = desk.saved("grafana", "--keep", "2")
    assert desk.archive.backups() == [third, config, second]
    desk.settings["keep"] = 1
    fourth = desk.saved("grafana")
    assert desk.archive.backups("grafana") == [fourth]
    refused = desk.run("backup", "grafana", "--keep", "0")
    assert (refused.code, refused.err) == (1, "bridge: --keep: 0 is not allowed; allowed: 1 and more\n")


def test_the_new_one_stays_though_one_of_a_clock_that_was_wrong_looks_newer(desk: Desk) -> None:
    wrong = desk.saved("config")
    later = wrong.manifest().model_copy(update={"taken_at": "20991231T000000.000Z"}).to_bytes()
    (wrong.path / MANIFEST).write_bytes(later)
    wrong.path.rename(desk.archive.folder / f"config-20991231T000000.000Z-{digest_of(later)}")
    done = desk.run("backup", "config", "--keep", "1")
    assert (done.code, [one.name for one in desk.archive.backups()]) == (0, [done.out.split(":")[0]])


def test_a_full_disk_is_one_line_and_leaves_nothing(desk: Desk, saved_database: Path) -> None:
    desk.saved("config")  # the folder is there
    before = desk.state()

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    done = desk.run_apart("backup", "grafana", preexec_fn=small_files_only)
    assert (done.code, done.out, done.err.count("\n"), done.err.startswith("bridge: grafana: ")) == (1, "", 1, True), done.err
    assert (desk.state(), hidden(desk)) == (before, [])


def test_wrong_rights_are_one_line_and_leave_nothing(desk: Desk, saved_database: Path) -> None:
    desk.folder.chmod(0o755)
    for parent in (desk.folder, *desk.folder.parents[:2]):
        parent.chmod(0o755)
    desk.saved("config")
    os.chmod(saved_database, 0)
    before = desk.state()
    with as_nobody():
        not_writable = desk.run("backup", "config")
    desk.archive.folder.chmod(0o777)
    (desk.archive.folder / ".bridge-lock").unlink()
    with as_nobody():
        not_readable = desk.run("backup", "grafana")
    assert (not_writable.code, not_writable.err.count("\n"), "Permission denied" in not_writable.err) == (1, 1, True)
    assert (not_readable.code, not_readable.err) == (1, "bridge: grafana: unable to open database file\n")
    assert (desk.state(), hidden(desk)) == (before, [])


def test_other_users_can_read_how_old_a_backup_is_but_not_what_is_in_it(desk: Desk, saved_database: Path) -> None:
    backup = desk.saved("grafana")
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (backup.path, *backup.path.rglob("*"))}
    assert modes == {backup.name: "0o750", "manifest.json": "0o640", "data": "0o755", "grafana.db": "0o600"}


def test_without_a_folder_it_says_what_to_set(desk: Desk) -> None:
    file = desk.folder / "none.yaml"
    file.write_text(json.dumps({"sources": {}}))
    command = [sys.executable, "-m", "app", "backup", "all", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "bridge: backup: nobody says where the backups are: set backup.folder, or say --to FOLDER\n",
    )


@pytest.mark.parametrize("kind", ["grafana", "clickhouse", "prometheus", "duckdb"])
def test_a_kind_that_is_not_configured_names_the_keys(desk: Desk, kind: str) -> None:
    done = desk.run("backup", kind)
    assert (done.code, done.err.count("\n"), "set backup." in done.err or "let backup." in done.err) == (1, 1, True), done.err
