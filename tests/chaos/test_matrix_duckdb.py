"""Row by row of the fault matrix: DuckDB. Its faults are snapshots that a writer should not have published."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import duckdb
import pytest

from app.sources.duckdb.rollups import RETENTION_DAYS
from app.sources.duckdb.snapshots import POINTER
from tests.chaos.matrix import (
    STALE,
    STALE_AFTER_PATIENCE,
    TIMED_OUT,
    UNAVAILABLE,
    Bed,
    Cell,
    Inflict,
    bed,
    check,
    failed,
    fresh_answer,
    play,
    until,
)
from tests.servers.snapshots import snapshot_name
from tests.servers.world import Stores

#: What a snapshot's table becomes: one that costs far too much time, or memory, to read.
_VIEW = "ALTER TABLE account_snapshots RENAME TO kept; CREATE VIEW account_snapshots AS SELECT kept.* FROM kept WHERE {} > 0"
SLOW = _VIEW.format(
    "(SELECT count(*) FROM range(3000000) a, range(3000000) b WHERE a.range + b.range + len(kept.account_id) > 1)"
)
LARGE = _VIEW.format("(SELECT len(list(range)) FROM range(30000000))")
NO_COLUMN = "ALTER TABLE account_snapshots RENAME COLUMN equity TO worth"
NO_TABLE = "ALTER TABLE account_snapshots RENAME TO elsewhere"


def newest(folder: Path) -> Path:
    """The snapshot that the pointer names."""
    return folder / (folder / POINTER).read_text(encoding="utf-8").strip()


def point(folder: Path, name: str) -> None:
    """Write the pointer, in one step."""
    (folder / "next").write_text(f"{name}\n", encoding="utf-8")
    (folder / "next").rename(folder / POINTER)


def publish(folder: Path, after_ms: int, statements: str = "") -> Path:
    """One more snapshot, the same data after these statements, and the pointer on it. Its writer keeps no roll-ups: a change of
    the samples that leaves them as they are would not be seen in what is read from them."""
    target = folder / snapshot_name(after_ms)
    copy = folder / "copy"
    shutil.copyfile(newest(folder), copy)
    with duckdb.connect(str(copy)) as writer:
        for table in RETENTION_DAYS:
            writer.execute(f"DROP TABLE IF EXISTS {table}")
        writer.execute(statements or "SELECT 1")
    copy.rename(target)
    point(folder, target.name)
    return target


def published(statements: str) -> Inflict:
    """A newer snapshot in which something is wrong; the pointer goes back at the end."""

    @asynccontextmanager
    async def inflict(made: Bed) -> AsyncIterator[None]:
        before = newest(made.snapshots)
        bad = publish(made.snapshots, made.stores.until_ms + 1000, statements)
        try:
            yield
        finally:
            point(made.snapshots, before.name)
            bad.unlink()

    return inflict


@asynccontextmanager
async def damaged(made: Bed) -> AsyncIterator[None]:
    """A newest snapshot that is cut off in its header."""
    before = newest(made.snapshots)
    bad = made.snapshots / snapshot_name(made.stores.until_ms + 1000)
    bad.write_bytes(before.read_bytes()[:2000])
    point(made.snapshots, bad.name)
    try:
        yield
    finally:
        point(made.snapshots, before.name)
        bad.unlink()


@asynccontextmanager
async def vanished(made: Bed) -> AsyncIterator[None]:
    """No folder any more; the file that is open stays open."""
    away = made.snapshots.with_name("away")
    made.snapshots.rename(away)
    try:
        yield
    finally:
        away.rename(made.snapshots)


REJECTED = failed(502, "source_rejected")
OVERLOADED = failed(502, "source_overloaded")

#: Pings are light and go on: bridge_source_up is 1 again with the next one.
CELLS = (
    Cell("black hole", published(SLOW), STALE_AFTER_PATIENCE, TIMED_OUT, "source_timeout", up=True),
    Cell("schema drift, column", published(NO_COLUMN), REJECTED, REJECTED, "source_rejected", "equity", up=True),
    Cell("schema drift, table", published(NO_TABLE), REJECTED, REJECTED, "source_rejected", "account_snapshots", up=True),
    Cell("OOM", published(LARGE), STALE, OVERLOADED, "source_overloaded", "failed to allocate", up=True),
    Cell("corrupt", damaged, STALE, STALE, "", "cannot be opened", up=True),
    Cell("disk gone", vanished, STALE, STALE, "", "is gone, and there is no other", up=True),
)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"duckdb-{cell.name}")
async def test_a_duckdb_fault_gives_the_last_answer_marked_or_says_what_failed_and_heals(
    stores: Stores, snapshots: Path, cell: Cell
) -> None:
    async with bed(
        stores, {"duckdb": {"snapshots": snapshots, "memory_limit": "32MB", "computed": True}}, snapshots=snapshots
    ) as made:
        await play(made, "duckdb", cell)


async def test_duckdb_black_hole_the_threads_are_free_again_when_the_askers_have_left(stores: Stores, snapshots: Path) -> None:
    connect = {"duckdb": {"snapshots": snapshots, "pool_size": 2, "computed": True}}
    async with bed(stores, connect, snapshots=snapshots) as made:
        await fresh_answer(made, "duckdb")
        async with published(SLOW)(made):
            assert {(await made.new("duckdb")).code for _ in range(3)} == {"source_timeout"}
            health = await made.health("duckdb")
            assert (health["up"], health["latency_ms"] < 500) == (True, True), health


async def test_duckdb_auth_error_a_hidden_folder_is_unavailable_until_it_is_seen(stores: Stores, snapshots: Path) -> None:
    """As root no file is forbidden: what a file ACL would hide is hidden here."""
    cell = Cell("missing", vanished, UNAVAILABLE, UNAVAILABLE, "source_unavailable", "no snapshot")
    away = snapshots.rename(snapshots.with_name("hidden"))
    async with bed(stores, snapshots=snapshots) as made:
        check(await made.new("duckdb"), UNAVAILABLE, cell, "duckdb", None)
        assert made.errors("duckdb")["source_unavailable"] >= 1
        assert made.metric("bridge_source_up", source="duckdb") == 0
        away.rename(snapshots)
        await until(lambda: made.metric("bridge_source_up", source="duckdb") == 1, 1.3, "it stays down")
        assert (await made.new("duckdb")).status == "fresh"


async def test_duckdb_restart_a_newer_snapshot_is_opened_without_a_word(stores: Stores, snapshots: Path) -> None:
    async with bed(stores, snapshots=snapshots) as made:
        good = await fresh_answer(made, "duckdb")
        publish(snapshots, stores.until_ms + 1000, "UPDATE account_snapshots SET equity = equity + 1")
        answer = await made.known("duckdb")
        assert (answer.status, answer.says, made.errors("duckdb")) == ("fresh", "", {})
        assert [row["value"] for row in answer.rows] == pytest.approx([row["value"] + 1 for row in good.rows])


async def test_duckdb_clock_skew_a_snapshot_of_the_future_is_clamped_and_said(stores: Stores, snapshots: Path) -> None:
    publish(snapshots, time.time_ns() // 1_000_000 + 3_600_000)
    async with bed(stores, snapshots=snapshots) as made:
        answer = await made.known("duckdb")
        assert answer.status == "fresh"
        assert f"duckdb: snapshot {newest(snapshots).name} is dated in the future" in answer.says
        health = await made.health("duckdb")
        skew_s = health["clock_skew_s"]
        assert 3590 < skew_s < 3610
        assert health["warning"] == f"its clock is {skew_s:.1f}s ahead of the bridge's"
        assert health["data_age_s"] == 0
        assert made.metric("bridge_clock_skew_seconds", source="duckdb") > 3590
