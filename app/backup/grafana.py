"""Grafana's own database: one SQLite file, saved while Grafana writes to it.

A copy of the file would miss the newest pages in its `-wal`. SQLite's backup API reads both. It runs in one step: in several
steps it would start again at each write of another process, and might never end.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.backup import disk
from app.backup.archive import Archive
from app.backup.kind import Draft, InFolder, require_files
from app.backup.manifest import DATA, Backup, KindName, Manifest
from app.backup.placing import Step, put_in_place
from app.errors import BackupError

_FILE = "grafana.db"
_BUSY_S = 15.0
# SQLite's lock bytes (its file format, "File Locking"): an open connection in WAL mode holds a shared lock here.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510


class GrafanaKind(InFolder):
    """Users, dashboards, alert states, data sources. Passwords in it are encrypted with Grafana's secret_key."""

    name: KindName = "grafana"
    reminder = "keep Grafana's secret_key too, in another place: without it the data sources' passwords in here cannot be read"

    def __init__(self, database: Path | None) -> None:
        self._database = database

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Read the database as it is at one instant."""
        if self._database is None or not self._database.is_file():
            raise BackupError(f"grafana: {self._database}: there is no such file; set backup.grafana.database")
        target = part / DATA / _FILE
        target.parent.mkdir()
        with _sqlite_errors("grafana"), _open_read_only(self._database) as source, closing(sqlite3.connect(target)) as saved:
            source.backup(saved)
            # Make it one file without a `-wal`. Grafana switches back if it is configured with `wal = true`.
            saved.execute("PRAGMA journal_mode=DELETE")
        target.chmod(0o600)
        disk.sync(target)
        return Draft(versions={"sqlite": sqlite3.sqlite_version})

    def contents_of(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """Check the database's integrity and count each table's rows."""
        assert files is not None  # noqa: S101  they are in the folder
        with _sqlite_errors("grafana"), _open_read_only(files / _FILE, "immutable=1") as database:
            wrong = [row[0] for row in database.execute("PRAGMA integrity_check")]
            if wrong != ["ok"]:
                raise BackupError(f"grafana: the database is damaged: {wrong[0]}")
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
            quoted = {table: '"' + table.replace('"', '""') + '"' for table in tables}
            rows = {table: database.execute(f"SELECT count(*) FROM {quoted[table]}").fetchone()[0] for table in tables}  # noqa: S608
        return {"tables": rows}

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Replace the database, and move its `-wal` and `-shm` aside: their newer pages must not mix with it."""
        target = Path(to) if to else self._database
        if target is None:
            raise BackupError("grafana: nobody says where the database is: set backup.grafana.database, or say --to FILE")
        require_files(backup, manifest, _FILE)
        _refuse_in_use(target)
        beside = [target.with_name(target.name + suffix) for suffix in ("-wal", "-shm", "-journal")]
        yield from put_in_place(backup.name, [Step(backup.path / DATA / _FILE, target, manifest.files[_FILE])], beside, force)
        yield 'start Grafana and ask it: /api/health says "database": "ok"'


@contextmanager
def _open_read_only(file: Path, how: str = "") -> Iterator[sqlite3.Connection]:
    # Read-only, because the last writing connection would merge the -wal into the file when it closes.
    uri = f"file:{quote(str(file.absolute()))}?mode=ro&{how}"
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as connection:
        yield connection


@contextmanager
def _sqlite_errors(who: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as problem:
        raise BackupError(f"{who}: {problem}") from problem


def _refuse_in_use(database: Path) -> None:
    """Raise if a program has it open. Nothing is read or written: the old file must not change."""
    if os.name == "nt" or not database.is_file():
        return  # Windows does not let an open file be renamed
    import fcntl

    with disk.os_errors("grafana"), database.open("r+b") as probe:
        try:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except BlockingIOError as problem:
            raise BackupError(f"grafana: {database} is open in another program; stop Grafana first") from problem
