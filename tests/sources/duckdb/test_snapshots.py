"""What may lie in the folder of the snapshots: nothing there holds anybody up, computes for itself, or misses rows unnoticed."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from app.errors import SourceUnavailable
from app.model import Frame
from app.sources.duckdb.snapshots import Demands, Snapshots
from app.sources.duckdb.source import DuckDBConfig, DuckDBSource
from tests.frames import shown
from tests.servers.snapshots import TABLE, snapshot_name
from tests.sources.duckdb.test_duckdb import ask

OLDER, NEWER = snapshot_name(30_000), snapshot_name(60_000)
ROW = "INSERT INTO samples VALUES (make_timestamp_ms({at}), 'A', 'x', 1.5)"


def write(folder: Path, name: str, *statements: str, at: int = 1000) -> None:
    """A whole snapshot with one row, and what these statements do."""
    with duckdb.connect(str(folder / name)) as file:
        for statement in (TABLE, ROW.format(at=at), *statements):
            file.execute(statement)


@asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[DuckDBSource]:
    source = DuckDBConfig(snapshots=folder, poll_s=0, **more).build("lake")
    try:
        yield source
    finally:
        await source.close()


async def answered(folder: Path, **more: Any) -> Frame:
    async with opened(folder, **more) as source:
        return await ask(source)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE MACRO sum(a) AS 42", "the macro 'sum'"),
        ("CREATE MACRO epoch_ms(a) AS 7", "the macro 'epoch_ms'"),
        ("CREATE MACRO duckdb_functions() AS TABLE SELECT 1 AS function_name, true AS internal", "the macro 'duckdb_functions'"),
        ("CREATE SCHEMA other; CREATE MACRO other.f(a) AS a", "the macro 'f'"),
        ("CREATE VIEW wide AS SELECT repeat('x', 1000000000) AS account", "the view 'wide'"),
        ("ALTER TABLE samples RENAME TO t; CREATE VIEW samples AS SELECT * FROM t", "the view 'samples'"),
        ("CREATE TABLE t (a INT, b VARCHAR AS (repeat('x', 1000000000)))", "the computed column 't.b'"),
    ],
)
async def test_a_snapshot_that_computes_by_itself_is_not_used_and_the_log_says_why(
    tmp_path: Path, statement: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, OLDER)
    write(tmp_path, NEWER, *statement.split("; "))
    found = await answered(tmp_path)
    assert (shown(found), found.covers_to_ms) == ({"": {0: 1.5}}, 30_000)
    assert f"snapshot {NEWER} is not used: it holds {said}" in (found.older_copy or "")
    assert [record.message for record in caplog.records] == [
        f"snapshot {NEWER} is not used: it holds {said}; allowed are tables (see the setting computed)"
    ]


async def test_where_the_configuration_trusts_it_a_snapshot_may_compute(tmp_path: Path) -> None:
    write(tmp_path, NEWER, "ALTER TABLE samples RENAME TO t", "CREATE VIEW samples AS SELECT * FROM t")
    assert (await answered(tmp_path, computed=True)).older_copy is None


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


def make_link(file: Path) -> None:
    elsewhere = file.parent.parent / f"{file.parent.name}-elsewhere"
    elsewhere.mkdir()
    write(elsewhere, NEWER)
    file.symlink_to(elsewhere / NEWER)


ODD: dict[str, Callable[[Path], None]] = {
    "a pipe": make_pipe,
    "a folder": Path.mkdir,
    "a link to elsewhere": make_link,
    "a device": lambda file: file.symlink_to("/dev/zero"),
    "a link to itself": lambda file: file.symlink_to(file.name),
    "an empty file": Path.touch,
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
async def test_what_is_no_plain_file_is_no_snapshot_and_holds_nobody_up(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = tmp_path / "snapshots"
    folder.mkdir()
    write(folder, OLDER)
    make(folder / NEWER)
    begun = time.monotonic()
    found = await answered(folder)
    assert (shown(found), NEWER in (found.older_copy or ""), time.monotonic() - begun < 1.5) == ({"": {0: 1.5}}, True, True)


@pytest.mark.parametrize(
    "make",
    [
        *ODD.values(),
        lambda file: file.write_bytes(f"{OLDER}\n".encode() + b" " * 10_000_000),
        lambda file: file.write_bytes(b"\xff"),
    ],
    ids=[*ODD, "a file without end", "no text"],
)
async def test_a_pointer_that_is_none_is_said_and_the_newest_snapshot_is_used(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    folder = tmp_path / "snapshots"
    folder.mkdir()
    write(folder, NEWER)
    make(folder / "latest")
    begun = time.monotonic()
    found = await answered(folder)
    assert [notice.text for notice in found.notices] == [
        "lake: the pointer latest names no snapshot; the snapshot of 1970-01-01 00:01:00Z is shown"
    ]
    assert (shown(found), time.monotonic() - begun < 1.5) == ({"": {0: 1.5}}, True)


async def test_a_snapshot_that_still_has_its_writers_log_beside_it_is_not_used(tmp_path: Path) -> None:
    write(tmp_path, OLDER)
    write(tmp_path, NEWER)
    (tmp_path / f"{NEWER}.wal").touch()
    unfinished = await answered(tmp_path)
    (tmp_path / f"{NEWER}.wal").unlink()
    finished = await answered(tmp_path)
    assert (unfinished.covers_to_ms, "a write-ahead log lies beside it" in (unfinished.older_copy or "")) == (30_000, True)
    assert (finished.covers_to_ms, finished.older_copy) == (60_000, None)


async def test_a_copy_whose_log_was_left_behind_is_noticed_by_its_newest_row(tmp_path: Path) -> None:
    writer = duckdb.connect(str(tmp_path / "live"))
    writer.execute(TABLE)
    writer.execute(ROW.format(at=1000))
    writer.execute("CHECKPOINT")
    writer.execute(ROW.format(at=59_000))
    (tmp_path / NEWER).write_bytes((tmp_path / "live").read_bytes())
    writer.close()
    async with opened(tmp_path, newest="samples.ts", newest_within_s=30) as source:
        # The folder is looked at again for the second answer, and the snapshot is the one in use.
        for told in [await ask(source), await ask(source)]:
            assert [notice.text for notice in told.notices] == [
                f"lake: snapshot {NEWER} is said to be complete to 1970-01-01 00:01:00Z, and its newest row is of "
                "1970-01-01 00:00:01Z (samples.ts); the snapshot of 1970-01-01 00:01:00Z is shown"
            ]
            assert (told.older_copy, told.partial) == (None, True)
        assert "its newest row is of" in (source.warning or "")
    untold = await answered(tmp_path, newest="samples.ts", newest_within_s=60)
    assert (untold.notices, untold.partial) == ((), False)


async def test_a_snapshot_without_the_table_that_tells_its_newest_row_is_not_used(tmp_path: Path) -> None:
    write(tmp_path, NEWER)
    with pytest.raises(SourceUnavailable, match=r"cannot be opened: Catalog Error: Table with name nosuch does not exist"):
        await answered(tmp_path, newest="nosuch.ts")


@contextmanager
def hanging() -> Iterator[Callable[[Path], duckdb.DuckDBPyConnection]]:
    """A way to open that answers for the older snapshot and hangs for the newer one until the block ends."""
    ends = threading.Event()

    def connect(file: Path) -> duckdb.DuckDBPyConnection:
        if file.name == NEWER:
            ends.wait(30)
        return duckdb.connect(str(file), read_only=True)

    yield connect
    ends.set()


def test_an_opening_that_hangs_costs_one_moment_once_and_the_snapshot_in_use_stands_in(tmp_path: Path) -> None:
    write(tmp_path, OLDER)
    with hanging() as connect:
        snapshots = Snapshots(tmp_path, connect, 0, Demands(look_s=0.5))
        first = snapshots.lease()
        write(tmp_path, NEWER)
        begun = time.monotonic()
        leased = [snapshots.lease() for _ in range(4)]
        took_s = time.monotonic() - begun
        health = snapshots.health
    assert ([one.name for one in (first, *leased)], took_s < 1) == ([OLDER] * 5, True)
    assert (health.problem, health.stands_in) == ("the folder of the snapshots does not answer within 0.5s", True)
    assert used_at_last(snapshots) == NEWER
    snapshots.close()


def used_at_last(snapshots: Snapshots) -> str:
    """What is used when the look that hung has ended."""
    for _ in range(200):
        if (name := snapshots.lease().name) == NEWER:
            break
        time.sleep(0.01)
    return name


async def test_a_folder_that_is_none_is_unavailable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "snapshots").touch()
    with caplog.at_level(logging.INFO), pytest.raises(SourceUnavailable):
        await answered(tmp_path / "snapshots")
    assert len(caplog.records) == 1
