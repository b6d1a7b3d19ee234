"""Writes to a live DuckDB file and publishes snapshots of it."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from app.sources.duckdb.rollups import update_rollups
from app.sources.duckdb.snapshots import POINTER
from demo.accounts import AccountStates
from demo.parquet import typed_columns
from demo.rows import snapshot_columns
from demo.schema import DUCKDB
from demo.world import World

_KEEP = 3


class DuckDBWriter:
    """Keeps the live file open for writing, as the real system does, so other processes cannot read it."""

    def __init__(self, folder: Path) -> None:
        self._snapshots = folder / "snapshots"
        self._snapshots.mkdir(parents=True, exist_ok=True)
        self._file = folder / "live.duckdb"
        self._live = duckdb.connect(str(self._file))
        self._live.execute(DUCKDB)

    def insert_ticks(self, world: World, states: AccountStates) -> None:
        """Account snapshots at the states' instants."""
        columns = snapshot_columns(world, states)
        # DuckDB finds the variable `columns` by its name and reads the arrays without a copy.
        statement = f"SELECT {typed_columns(columns)} FROM columns"  # noqa: S608  the table's own names
        self._live.execute(f"INSERT INTO account_snapshots BY NAME {statement}")

    def publish(self, covers_to_ms: int) -> Path:
        """Publish a snapshot that is complete up to that instant, set the pointer to it, and keep the newest three."""
        update_rollups(self._live)
        stamp = datetime.fromtimestamp(covers_to_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S.") + f"{covers_to_ms % 1000:03d}"
        target = self._snapshots / f"snap-{stamp}Z.duckdb"
        self._copy_to(target)
        pointer = self._snapshots / f"{POINTER}.new"
        pointer.write_text(target.name + "\n", encoding="utf-8")
        os.replace(pointer, self._snapshots / POINTER)
        for old in sorted(self._snapshots.glob("snap-*.duckdb"))[:-_KEEP]:
            _remove_snapshot(old)
        return target

    def _copy_to(self, target: Path) -> None:
        if sys.platform == "win32":  # nobody may read a file that is open for writing, its writer included
            self._live.execute(f"ATTACH '{target}' AS snap")
            self._live.execute("COPY FROM DATABASE live TO snap")
            self._live.execute("DETACH snap")
        else:
            # After a checkpoint everything is in the file itself. Copying it takes a fraction of the time of copying its rows.
            self._live.execute("CHECKPOINT")
            shutil.copyfile(self._file, target)

    def close(self) -> None:
        """Close the live file."""
        self._live.close()


def _remove_snapshot(file: Path) -> None:
    try:
        file.unlink()
    except PermissionError:
        # Windows cannot remove an open file. The next publish tries again.
        return
