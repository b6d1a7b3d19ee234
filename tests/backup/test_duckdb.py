"""DuckDB's published snapshots, with the writer's process at work."""

from __future__ import annotations

import threading
from pathlib import Path

import duckdb
import pytest

from app.sources.duckdb.snapshots import covers_to_ms
from tests.backup.desk import Desk, flip
from tests.servers.snapshots import SnapshotPublisher

AT = 1_795_000_000_000


@pytest.fixture
def writer(writer: SnapshotPublisher) -> SnapshotPublisher:
    """With one snapshot published."""
    writer.insert(*((AT + number, "a1", "b1", number / 7) for number in range(100)))
    writer.publish(AT)
    return writer


def rows(file: Path) -> list[tuple[int, str]]:
    """How many rows a snapshot has, and their hash."""
    with duckdb.connect(str(file), read_only=True) as snapshot:
        return snapshot.execute("SELECT count(*), md5(string_agg(s::VARCHAR, ';' ORDER BY ts)) FROM samples s").fetchall()


def test_a_backup_while_the_writer_publishes_and_prunes_is_one_whole_snapshot(desk: Desk, writer: SnapshotPublisher) -> None:
    ended = threading.Event()

    def publishing() -> None:
        old = writer.snapshots / (writer.snapshots / "latest").read_text().strip()
        for step in range(1, 200):
            writer.insert((AT + 1000 * step, "a1", "b1", step))
            new = writer.publish(AT + 1000 * step)
            old.unlink()
            old = new
            if ended.is_set():
                return

    worker = threading.Thread(target=publishing)
    worker.start()
    backups = [desk.saved("duckdb") for _ in range(5)]
    ended.set()
    worker.join()
    for backup in backups:
        manifest = backup.manifest()
        name = manifest.place["snapshot"]
        published = 100 + ((covers_to_ms(name) or 0) - AT) // 1000
        assert manifest.contents == {"covers_to_ms": covers_to_ms(name), "tables": {"samples": published}}
        assert rows(backup.path / "data" / name)[0][0] == published


def test_what_was_damaged_comes_back_and_the_pointer_with_it(desk: Desk, writer: SnapshotPublisher) -> None:
    backup = desk.saved("duckdb")
    snapshot = writer.snapshots / backup.manifest().place["snapshot"]
    expected = rows(snapshot)
    flip(snapshot)
    writer.point("snap-nonsense")
    refused = desk.run("restore", "duckdb", "latest")
    done = desk.run("restore", "duckdb", "latest", "--force")
    assert (refused.code, done.code) == (1, 0)
    assert (rows(snapshot), (writer.snapshots / "latest").read_text()) == (expected, f"{snapshot.name}\n")
    (kept,) = writer.snapshots.glob("latest.before-*")
    assert kept.read_text() == "snap-nonsense\n"
    writer.insert((AT + 1, "a1", "b1", 1.0))  # the live file was not touched


def test_restoring_what_is_there_already_does_nothing(desk: Desk, writer: SnapshotPublisher) -> None:
    backup = desk.saved("duckdb")
    before = desk.state()
    done = desk.run("restore", "duckdb", backup.name)
    assert (done.code, done.out.splitlines()[0]) == (0, "nothing to do: everything is there as it was saved")
    assert desk.state() == before


def test_a_damaged_snapshot_is_not_published_as_a_backup(desk: Desk, writer: SnapshotPublisher) -> None:
    (snapshot,) = writer.snapshots.glob("*.duckdb")
    snapshot.write_bytes(snapshot.read_bytes()[:5000])
    before = desk.state()
    done = desk.run("backup", "duckdb")
    assert (done.code, done.err.count("\n"), desk.archive.backups(), desk.state()) == (1, 1, [], before)


@pytest.mark.parametrize("pointer", ["../live.duckdb", "snap-20261123T211000.000Z.duckdb"])
def test_a_pointer_to_nothing_that_was_published_is_refused(desk: Desk, writer: SnapshotPublisher, pointer: str) -> None:
    writer.point(pointer)
    before = desk.state()
    done = desk.run("backup", "duckdb")
    assert (done.code, done.err.count("\n"), "latest names" in done.err, desk.state()) == (1, 1, True, before)
