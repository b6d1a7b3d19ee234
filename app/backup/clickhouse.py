"""ClickHouse: the server's own BACKUP to one of its disks, sometimes full and otherwise incremental.

The server writes the files. The archive keeps the manifest, with the SHA-256 of each file if that disk can be read from here.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from app.backup import disk
from app.backup.archive import Archive
from app.backup.clickhouse_server import ClickHouseServer, quote_identifier, quote_text
from app.backup.kind import Draft, require_same_contents
from app.backup.manifest import OUTSIDE, Backup, KindName, Manifest, time_stamp
from app.backup.settings import ClickHouseBackup
from app.clock import wall_ms
from app.errors import BackupError
from app.sources.clickhouse.address import ClickHouseAddress

_DAY_MS = 86_400_000
_NAME = re.compile(r"bridge-\d{8}T\d{6}\.\d{3}Z-(inc|full)")


class ClickHouseKind:
    """One database."""

    name: KindName = "clickhouse"
    reminder = ""

    def __init__(self, settings: ClickHouseBackup | None, address: ClickHouseAddress | None) -> None:
        self._settings = settings
        self._address = address

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Have the server save its database."""
        settings, address = self._require_settings()
        base = None if full else self._usable_base(archive)
        path = f"bridge-{time_stamp(wall_ms())}-{'inc' if base else 'full'}"
        with closing(self._make_server()) as server:
            version = server.execute("SELECT version()")
            disk.write(part / OUTSIDE, path.encode())
            under = f"base_backup = {_disk_clause(settings.disk, base[1].place['path'])}" if base else ""
            server.run_backup(
                f"BACKUP DATABASE {quote_identifier(address.database)} TO {_disk_clause(settings.disk, path)}", under
            )
        if settings.files is not None and not (settings.files / path).is_dir():
            raise BackupError(
                f"clickhouse: it has written {path} to its disk {settings.disk}, but {settings.files / path} is not there:"
                " backup.clickhouse.files is not that disk's folder; remove it there by hand"
            )
        place = {"disk": settings.disk, "path": path, "database": address.database}
        return Draft(versions={"clickhouse": version}, base=base[0].name if base else None, place=place)

    def files_folder(self, folder: Path, place: Mapping[str, str]) -> Path | None:
        """The folder on the server's disk."""
        seen = self._settings.files if self._settings else None
        return seen / _checked_name(place["path"]) if seen else None

    def contents_of(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """Restore under another name; return each table's row count and the sum of the rows' hashes."""
        if aside is None and not self._require_settings()[0].prove:
            return {}
        with closing(self._make_server()) as server:
            return self._restore_aside(server, place)

    def _restore_aside(self, server: ClickHouseServer, place: Mapping[str, str]) -> dict[str, Any]:
        # The name comes from the configuration and not from the manifest, because this database is dropped.
        database = f"{self._require_settings()[1].database}_aside"
        try:
            server.execute(f"DROP DATABASE IF EXISTS {quote_identifier(database)} SYNC", long=True)
            # Restore empty tables first and stop their merges: a merge would fold rows together and drop expired ones.
            server.run_backup(_restore_statement(place, database), "structure_only = 1")
            server.stop_merges(database)
            server.run_backup(_restore_statement(place, database))
            return {"tables": server.table_hashes(database)}
        finally:
            with suppress(BackupError):
                server.execute(f"DROP DATABASE IF EXISTS {quote_identifier(database)} SYNC", long=True)

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Restore under another name and compare, then under the database's own name. The old database is renamed."""
        target = to or self._require_settings()[1].database
        self._refuse_foreign(backup, manifest.place)
        with closing(self._make_server()) as server:
            if server.is_empty(target):
                old = None
            elif force:
                old = f"{target}_before_{time_stamp(wall_ms()).replace('.', '_')}"
            else:
                raise BackupError(
                    f"{backup.name}: the database {target} has tables; say --force to replace it, the old one is kept beside it"
                )
            require_same_contents(backup.name, manifest.contents, self._restore_aside(server, manifest.place))
            with _set_aside(server, target, old) if old else nullcontext():
                server.run_backup(_restore_statement(manifest.place, target))
        if old:
            yield f"kept: database {old} (its materialized views are detached: they would feed on the new tables)"
        yield f"restored: database {target}"

    def _refuse_foreign(self, backup: Backup, place: Mapping[str, str]) -> None:
        if place.keys() != {"disk", "path", "database"} or place["disk"] != self._require_settings()[0].disk:
            raise BackupError(f"{backup.name}: it is on the disk {place.get('disk')}, not on backup.clickhouse.disk")

    def discard(self, part: Path) -> None:
        """Remove the files that the server has written. It removes those of a failed BACKUP itself."""
        with suppress(FileNotFoundError):
            path = _checked_name((part / OUTSIDE).read_text(encoding="ascii"))
            if self._settings is not None and self._settings.files is not None:
                disk.remove(self._settings.files / path)

    def remove(self, manifest: Manifest) -> None:
        """Remove the backup's files from the server's disk."""
        files = self.files_folder(Path(), manifest.place)
        if files is not None:
            disk.remove(files)

    @property
    def prune_obstacle(self) -> str:
        """Old backups can be removed only through the disk's folder."""
        seen = self._settings is not None and self._settings.files is not None
        return "" if seen else "set backup.clickhouse.files, or let rules of the disk's own remove old ones"

    def _require_settings(self) -> tuple[ClickHouseBackup, ClickHouseAddress]:
        if self._settings is None or self._address is None:
            raise BackupError("clickhouse: set backup.clickhouse, whose `source` names a clickhouse source")
        if self._address.interface != "http":
            raise BackupError("clickhouse: the embedded engine's folder is its process' alone; only a server can be saved")
        return self._settings, self._address

    def _make_server(self) -> ClickHouseServer:
        settings, address = self._require_settings()
        tls = ssl.create_default_context(cafile=address.ca_file) if address.tls else False
        password = settings.password if settings.username else address.password
        # Of several nodes it is always the preferred one: an incremental backup needs the disk of the one before.
        url = f"http{'s' if address.tls else ''}://{address.nodes[0]}/"
        secret = password.get_secret_value() if password else ""
        return ClickHouseServer(url, settings.username or address.username, secret, tls, settings.timeout_s)

    def _usable_base(self, archive: Archive) -> tuple[Backup, Manifest] | None:
        """The last full backup, if it is young enough and complete."""
        settings, address = self._require_settings()
        for backup in archive.backups(self.name):
            if wall_ms() - backup.taken_ms >= settings.full_every_days * _DAY_MS:
                return None
            with suppress(BackupError, OSError):
                manifest = backup.manifest()
                same = (manifest.place["disk"], manifest.place["database"]) == (settings.disk, address.database)
                if manifest.base is None and same and self._is_there(backup, manifest):
                    return backup, manifest
        return None

    def _is_there(self, backup: Backup, manifest: Manifest) -> bool:
        files = self.files_folder(backup.path, manifest.place)
        return files is None or all((files / path).stat().st_size == saved.size_bytes for path, saved in manifest.files.items())


@contextmanager
def _set_aside(server: ClickHouseServer, database: str, old: str) -> Iterator[None]:
    """Rename a database while a new one is made under its name. If that fails, undo the renaming.

    The materialized views of the old database stay detached: they name their source tables and would read from the new ones.
    """
    detached = []
    try:
        for view in server.materialized_views(database):
            server.execute(f"DETACH TABLE {quote_identifier(database)}.{quote_identifier(view)} PERMANENTLY")
            detached.append(view)
        server.execute(f"RENAME DATABASE {quote_identifier(database)} TO {quote_identifier(old)}")
        try:
            yield
        except BaseException:
            server.execute(f"DROP DATABASE IF EXISTS {quote_identifier(database)} SYNC", long=True)
            server.execute(f"RENAME DATABASE {quote_identifier(old)} TO {quote_identifier(database)}")
            raise
    except BaseException:
        for view in detached:
            server.execute(f"ATTACH TABLE {quote_identifier(database)}.{quote_identifier(view)}")
        raise


def _restore_statement(place: Mapping[str, str], target: str) -> str:
    renamed = f" AS {quote_identifier(target)}" if target != place["database"] else ""
    origin = _disk_clause(place["disk"], _checked_name(place["path"]))
    return f"RESTORE DATABASE {quote_identifier(place['database'])}{renamed} FROM {origin}"


def _disk_clause(disk_name: str, path: str) -> str:
    return f"Disk({quote_text(disk_name)}, {quote_text(path + '/')})"


def _checked_name(name: str) -> str:
    """The name, if this module made it. A manifest must not name another path, because the folder is removed later."""
    if not _NAME.fullmatch(name):
        raise BackupError(f"clickhouse: {name!r} is no folder of ours")
    return name
