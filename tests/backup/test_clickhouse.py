"""ClickHouse's own BACKUP and RESTORE, on the real engine behind HTTP, with rows coming in all the while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.backup.clickhouse import ClickHouseKind
from app.errors import BackupError
from demo.schema import DATABASE
from tests.backup.desk import Desk, flip
from tests.backup.history import BATCH, rows, trades_from
from tests.servers.clickhouse import ClickHouseServer


@contextmanager
def trading(server: ClickHouseServer) -> Iterator[None]:
    """Batches of trades come in, one after the other, each in one part."""
    ended = threading.Event()

    def work() -> None:
        at = int(rows(server)[0])
        while not ended.is_set() and at < 100_000:
            server.execute(trades_from(at))
            at += BATCH

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join()


def test_full_and_incremental_under_writes_come_back_as_they_were_saved(desk: Desk, history: ClickHouseServer) -> None:
    quiet = rows(history, table="system_event_log")
    with trading(history):
        full = desk.saved("clickhouse")
        time.sleep(0.1)
        least = int(rows(history)[0])
        incremental = desk.saved("clickhouse")
    saved = incremental.manifest()
    assert (saved.base, full.manifest().base) == (full.name, None)
    # Of the table that did not change only the first one has the rows.
    unchanged = f"data/{DATABASE}/system_event_log/"
    assert [any(path.startswith(unchanged) for path in one.manifest().files) for one in (full, incremental)] == [True, False]
    count = int(saved.contents["tables"]["trades"][0])
    assert (count % BATCH, least <= count <= int(rows(history)[0])) == (0, True)
    # Damage: rows are gone and wrong ones are there.
    history.execute(f"ALTER TABLE {DATABASE}.trades DELETE WHERE account_id = 'a1' SETTINGS mutations_sync = 1")
    damaged = rows(history)
    refused = desk.run("restore", "clickhouse", incremental.name)
    assert (refused.code, refused.err.count("say --force"), rows(history)) == (1, 1, damaged)
    done = desk.run("restore", "clickhouse", incremental.name, "--force")
    assert (done.code, done.err) == (0, "")
    ids = history.execute(f"SELECT count(), uniqExact(trade_id), countIf(isNull(closed_at)) FROM {DATABASE}.trades")
    assert ids == f"{count}\t{count}\t{count // 2}"
    assert rows(history, table="system_event_log") == quiet
    expected = history.execute(
        f"SELECT sum(cityHash64(tuple(*))) FROM {DATABASE}.trades SETTINGS asterisk_include_materialized_columns = 1"
    )
    assert saved.contents["tables"]["trades"] == [str(count), expected]


def test_the_old_database_is_kept_and_its_views_feed_on_nothing_any_more(desk: Desk, history: ClickHouseServer) -> None:
    backup = desk.saved("clickhouse")
    history.execute(trades_from(1000))
    before = rows(history)
    assert desk.run("restore", "clickhouse", backup.name, "--force").code == 0
    (old,) = history.execute(f"SELECT name FROM system.databases WHERE startsWith(name, '{DATABASE}_before_')").splitlines()
    assert (rows(history, old), int(rows(history)[0])) == (before, 200)
    fed = "SELECT sum(requests) FROM {}.execution_1m"
    kept = history.execute(fed.format(old))
    history.execute(trades_from(2000))
    assert (history.execute(fed.format(DATABASE)), history.execute(fed.format(old))) == ("250", kept)
    views = history.execute(f"SELECT count() FROM system.tables WHERE database = '{old}' AND engine = 'MaterializedView'")
    assert views == "0"


def test_the_hash_sees_a_row_with_a_null_in_it(desk: Desk, history: ClickHouseServer) -> None:
    # sum(cityHash64(*)), the usual recipe, passes over such rows.
    before = desk.saved("clickhouse").manifest().contents["tables"]["trades"]
    change = f"ALTER TABLE {DATABASE}.trades UPDATE pnl = 1 WHERE isNull(closed_at) SETTINGS mutations_sync = 1"
    history.execute(change)
    after = desk.saved("clickhouse").manifest().contents["tables"]["trades"]
    assert (before[0], after[0], before[1] != after[1]) == ("200", "200", True)


def test_what_a_merge_would_fold_together_is_counted_as_it_was_saved(desk: Desk, history: ClickHouseServer) -> None:
    history.execute(f"SYSTEM STOP MERGES {DATABASE}.trades")
    for _ in range(40):
        history.execute(trades_from(0))  # the same trades again: a ReplacingMergeTree drops them when it merges
    saved = desk.saved("clickhouse").manifest().contents["tables"]["trades"]
    assert saved[0] == str(44 * BATCH)
    assert desk.run("backup", "verify", "clickhouse").code == 0


def test_a_flipped_byte_is_found_where_the_disk_cannot_be_seen_from_here(desk: Desk, history: ClickHouseServer) -> None:
    del desk.settings["clickhouse"]["files"]
    backup = desk.saved("clickhouse")
    good = desk.run("backup", "verify", "clickhouse")
    assert (good.code, "the files are out of reach from here" in good.out) == (0, True)
    assert history.backups is not None
    (data,) = (history.backups / backup.manifest().place["path"]).glob("data/*/system_event_log/*/data.bin")
    flip(data)
    before = rows(history)
    bad = desk.run("backup", "verify", "clickhouse")
    refused = desk.run("restore", "clickhouse", backup.name, "--force")
    assert (bad.code, bad.err.count("\n"), refused.code, rows(history)) == (1, 1, 1, before)
    databases = history.execute("SELECT count() FROM system.databases WHERE startsWith(name, 'trade_system')")
    assert databases == "1"


def test_a_restore_that_fails_half_way_puts_the_old_database_back(desk: Desk, history: ClickHouseServer) -> None:
    backup = desk.saved("clickhouse")
    history.execute(trades_from(1000))
    before, tables = rows(history), history.execute(f"SHOW TABLES FROM {DATABASE}")
    path = backup.manifest().place["path"]
    assert history.backups is not None
    # Restoring aside goes well; then the files are gone.
    with _gone_after(history, history.backups / path):
        done = desk.run("restore", "clickhouse", backup.name, "--force")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert (rows(history), history.execute(f"SHOW TABLES FROM {DATABASE}")) == (before, tables)
    history.execute(trades_from(2000))
    assert history.execute(f"SELECT sum(requests) FROM {DATABASE}.execution_1m") == "300"


@contextmanager
def _gone_after(server: ClickHouseServer, files: Path) -> Iterator[None]:
    """The backup's files go when the old database is renamed."""
    ended = threading.Event()

    def work() -> None:
        renamed = f"SELECT count() FROM system.databases WHERE startsWith(name, '{DATABASE}_before_')"
        while not ended.is_set():
            if server.execute(renamed) == "1":
                files.rename(files.with_name("gone"))
                return

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join()


def test_old_ones_go_but_never_the_full_one_under_a_kept_incremental(desk: Desk, history: ClickHouseServer) -> None:
    assert history.backups is not None
    full = desk.saved("clickhouse", "--full")
    middle = desk.saved("clickhouse")
    gone = middle.manifest().place["path"]
    newest = desk.saved("clickhouse", "--keep", "1")
    assert [one.name for one in desk.archive.backups()] == [newest.name, full.name]
    kept = {one.manifest().place["path"] for one in (newest, full)}
    ours = {path.name for path in history.backups.iterdir()}
    assert (kept <= ours, gone in ours) == (True, False)
    again = desk.saved("clickhouse", "--full", "--keep", "1")
    assert [one.name for one in desk.archive.backups()] == [again.name]
    assert not kept & {path.name for path in history.backups.iterdir()}


def test_an_incremental_without_its_full_one_is_refused(desk: Desk, history: ClickHouseServer) -> None:
    full, incremental = desk.saved("clickhouse"), desk.saved("clickhouse")
    full.path.rename(desk.folder / "elsewhere")
    before = rows(history)
    done = desk.run("restore", "clickhouse", incremental.name, "--force")
    assert (done.code, done.err) == (
        1,
        f"bridge: {incremental.name}: the full backup under it is gone: {full.name}\n",
    )
    assert rows(history) == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"PORT": "1"}, "Connection refused"),
        ({"PASSWORD": "another"}, "Authentication failed"),
        ({"DATABASE": "no_such"}, "no_such"),
    ],
)
def test_what_the_server_refuses_is_one_line_and_leaves_nothing(
    desk: Desk, history: ClickHouseServer, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], said: str
) -> None:
    assert history.backups is not None
    there = sorted(history.backups.iterdir())
    for key, value in wrong.items():
        monkeypatch.setenv(f"BRIDGE_SOURCES__CLICKHOUSE__CONNECT__{key}", value)
    before = desk.state()
    done = desk.run("backup", "clickhouse")
    assert (done.code, done.out, done.err.count("\n"), said in done.err) == (1, "", 1, True), done.err
    assert (desk.state(), sorted(history.backups.iterdir())) == (before, there)


def test_a_backup_that_does_not_restore_is_kept_nowhere(
    desk: Desk, history: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong_rows(*_: object) -> None:
        """A double: the engine itself restores what it has just saved."""
        raise BackupError("clickhouse: it does not restore")

    assert history.backups is not None
    there = sorted(history.backups.iterdir())
    monkeypatch.setattr(ClickHouseKind, "contents_of", wrong_rows)
    done = desk.run("backup", "clickhouse")
    assert (done.code, done.err, desk.archive.backups()) == (1, "bridge: clickhouse: it does not restore\n", [])
    assert sorted(history.backups.iterdir()) == there


def test_the_embedded_engine_is_refused(desk: Desk) -> None:
    desk.sources["clickhouse"] = {"kind": "clickhouse", "interface": "chdb", "path": str(desk.folder / "chdb")}
    desk.settings["clickhouse"] = {}
    done = desk.run("backup", "clickhouse")
    assert (done.code, "the embedded engine's folder is its process' alone" in done.err) == (1, True)


def test_a_disk_that_the_server_does_not_allow_is_named(desk: Desk, history: ClickHouseServer) -> None:
    desk.settings["clickhouse"] = {"disk": "elsewhere"}
    done = desk.run("backup", "clickhouse")
    assert (done.code, done.err.count("\n"), "backups.allowed_disk" in done.err) == (1, 1, True), done.err


def test_a_folder_that_is_not_the_disks_is_named(desk: Desk, history: ClickHouseServer) -> None:
    desk.settings["clickhouse"] = {"files": str(desk.folder)}
    done = desk.run("backup", "clickhouse")
    assert (done.code, "backup.clickhouse.files is not that disk's folder" in done.err, desk.archive.backups()) == (1, True, [])
