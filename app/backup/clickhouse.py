"""ClickHouse: BACKUP to a disk of the server's own, a full one now and then and in between what is new.

The server writes the files; what is here is the manifest, with the SHA-256 of each file where that disk can be seen from here.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from app.backup import disk
from app.backup.archive import Archive
from app.backup.clickhouse_server import ClickHouseServer, quoted, text
from app.backup.kind import Draft, compare
from app.backup.manifest import OUTSIDE, Backup, KindName, Manifest, stamp
from app.backup.settings import ClickHouseBackup
from app.errors import BackupError
from app.sources.clickhouse_link import ClickHouseAddress

_DAY_MS = 86_400_000


class ClickHouseKind:
    """One database."""

    name: KindName = "clickhouse"
    reminder = ""

    def __init__(self, settings: ClickHouseBackup | None, address: ClickHouseAddress | None) -> None:
        self._settings = settings
        self._address = address

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Have the server save its database."""
        settings, address = self._configured()
        base = None if full else self._base(archive)
        path = f"bridge-{stamp(_now_ms())}-{'inc' if base else 'full'}"
        with closing(self._server()) as server:
            version = server.ask("SELECT version()")
            disk.write(part / OUTSIDE, path.encode())
            under = f"base_backup = {_disk(settings.disk, base[1].place['path'])}" if base else ""
            server.work(f"BACKUP DATABASE {quoted(address.database)} TO {_disk(settings.disk, path)}", under)
        if settings.files is not None and not (settings.files / path).is_dir():
            raise BackupError(
                f"clickhouse: it has written {path} to its disk {settings.disk}, but {settings.files / path} is not there:"
                " backup.clickhouse.files is not that disk's folder; remove it there by hand"
            )
        place = {"disk": settings.disk, "path": path, "database": address.database}
        return Draft(versions={"clickhouse": version}, base=base[0].name if base else None, place=place)

    def files(self, folder: Path, place: Mapping[str, str]) -> Path | None:
        """On the server's disk."""
        seen = self._settings.files if self._settings else None
        return seen / _plain(place["path"]) if seen else None

    def look(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """Restored under another name: each table's rows and the sum of their hashes."""
        if aside is None and not self._configured()[0].prove:
            return {}
        with closing(self._server()) as server:
            return self._aside(server, place)

    def _aside(self, server: ClickHouseServer, place: Mapping[str, str]) -> dict[str, Any]:
        database = f"{place['database']}_aside"
        try:
            server.ask(f"DROP DATABASE IF EXISTS {quoted(database)} SYNC", long=True)
            # First empty tables, whose merges are stopped: a merge would fold rows together and drop those past their TTL.
            server.work(_restore(place, database), "structure_only = 1")
            server.stop_merges(database)
            server.work(_restore(place, database))
            return {"tables": server.hashes(database)}
        finally:
            with suppress(BackupError):
                server.ask(f"DROP DATABASE IF EXISTS {quoted(database)} SYNC", long=True)

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Restore aside and compare, then under the database's own name; the old database is renamed."""
        target = to or self._configured()[1].database
        with closing(self._server()) as server:
            if server.is_empty(target):
                old = None
            elif force:
                old = f"{target}_before_{stamp(_now_ms()).replace('.', '_')}"
            else:
                raise BackupError(
                    f"{backup.name}: the database {target} has tables; say --force to replace it, the old one is kept beside it"
                )
            compare(backup.name, manifest.contents, self._aside(server, manifest.place))
            with _set_aside(server, target, old) if old else nullcontext():
                server.work(_restore(manifest.place, target))
        if old:
            yield f"kept: database {old} (its materialized views are detached: they would feed on the new tables)"
        yield f"restored: database {target}"

    def discard(self, part: Path) -> None:
        """Remove what the server has written (what failed it removes by itself, what nobody has published it does not)."""
        with suppress(FileNotFoundError):
            path = _plain((part / OUTSIDE).read_text(encoding="ascii"))
            if self._settings is not None and self._settings.files is not None:
                disk.remove(self._settings.files / path)

    def remove(self, manifest: Manifest) -> None:
        """Remove its files from the server's disk."""
        files = self.files(Path(), manifest.place)
        if files is not None:
            disk.remove(files)

    @property
    def unprunable(self) -> str:
        """Old backups are removed through the disk's folder."""
        seen = self._settings is not None and self._settings.files is not None
        return "" if seen else "set backup.clickhouse.files, or let rules of the disk's own remove old ones"

    def _configured(self) -> tuple[ClickHouseBackup, ClickHouseAddress]:
        if self._settings is None or self._address is None:
            raise BackupError("clickhouse: set backup.clickhouse, whose `source` names a clickhouse source")
        if self._address.interface != "http":
            raise BackupError("clickhouse: the embedded engine's folder is its process' alone; only a server can be saved")
        return self._settings, self._address

    def _server(self) -> ClickHouseServer:
        settings, address = self._configured()
        tls = ssl.create_default_context(cafile=address.ca_file) if address.tls else False
        password = settings.password if settings.username else address.password
        url = f"http{'s' if address.tls else ''}://{address.host}:{address.port}/"
        secret = password.get_secret_value() if password else ""
        return ClickHouseServer(url, settings.username or address.username, secret, tls, settings.timeout_s)

    def _base(self, archive: Archive) -> tuple[Backup, Manifest] | None:
        """The last full backup, where it is young enough and still there."""
        settings, address = self._configured()
        for backup in archive.backups(self.name):
            if _now_ms() - backup.taken_ms >= settings.full_every_days * _DAY_MS:
                return None
            with suppress(BackupError, OSError):
                manifest = backup.manifest()
                same = (manifest.place["disk"], manifest.place["database"]) == (settings.disk, address.database)
                if manifest.base is None and same and self._is_there(backup, manifest):
                    return backup, manifest
        return None

    def _is_there(self, backup: Backup, manifest: Manifest) -> bool:
        files = self.files(backup.path, manifest.place)
        return files is None or all((files / path).stat().st_size == saved.size_bytes for path, saved in manifest.files.items())


@contextmanager
def _set_aside(server: ClickHouseServer, database: str, old: str) -> Iterator[None]:
    """Rename a database while another one is made under its name; back again when that fails.

    Its materialized views are detached for good: they name the tables they feed on, and would feed on the new ones.
    """
    detached = []
    try:
        for view in server.views(database):
            server.ask(f"DETACH TABLE {quoted(database)}.{quoted(view)} PERMANENTLY")
            detached.append(view)
        server.ask(f"RENAME DATABASE {quoted(database)} TO {quoted(old)}")
        try:
            yield
        except BaseException:
            server.ask(f"DROP DATABASE IF EXISTS {quoted(database)} SYNC", long=True)
            server.ask(f"RENAME DATABASE {quoted(old)} TO {quoted(database)}")
            raise
    except BaseException:
        for view in detached:
            server.ask(f"ATTACH TABLE {quoted(database)}.{quoted(view)}")
        raise


def _restore(place: Mapping[str, str], target: str) -> str:
    renamed = f" AS {quoted(target)}" if target != place["database"] else ""
    return f"RESTORE DATABASE {quoted(place['database'])}{renamed} FROM {_disk(place['disk'], place['path'])}"


def _disk(disk_name: str, path: str) -> str:
    return f"Disk({text(disk_name)}, {text(path + '/')})"


def _plain(name: str) -> str:
    """A folder's name and no path, whatever a manifest says."""
    if Path(name).name != name or name in ("", ".."):
        raise BackupError(f"clickhouse: {name!r} is no folder of ours")
    return name


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
