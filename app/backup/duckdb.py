"""DuckDB: the published snapshot and its pointer. The live file belongs to the writer and is never touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.backup import disk
from app.backup.archive import Archive
from app.backup.kind import Draft, InFolder, require_files
from app.backup.manifest import DATA, Backup, KindName, Manifest
from app.backup.placing import Step, put_in_place
from app.errors import BackupError
from app.sources.duckdb.snapshots import POINTER, covers_to_ms, rows_of

_TRIES = 5


class DuckDBKind(InFolder):
    """The snapshot that the bridge reads: the one that the pointer names."""

    name: KindName = "duckdb"

    def __init__(self, snapshots: Path | None) -> None:
        self._snapshots = snapshots

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Copy the newest snapshot. Meanwhile the writer may publish the next one and remove this one."""
        folder = self._require_folder()
        (part / DATA).mkdir()
        for _ in range(_TRIES):
            name = _pointed_name(folder)
            try:
                disk.copy_file(folder / name, part / DATA / name)
            except FileNotFoundError:
                continue
            disk.write(part / DATA / POINTER, f"{name}\n".encode())
            return Draft(versions={}, place={"snapshot": name})
        raise BackupError(f"duckdb: {folder / POINTER} names {name}, which is not there")

    def contents_of(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """Open the snapshot and count each table's rows."""
        assert files is not None  # noqa: S101  they are in the folder
        name = _pointed_name(files)
        try:
            return {"covers_to_ms": covers_to_ms(name), "tables": rows_of(files / name)}
        except OSError as problem:
            raise BackupError(f"duckdb: {problem}") from problem

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Put the snapshot into the folder and set the pointer to it."""
        folder = Path(to) if to else self._require_folder()
        require_files(backup, manifest, _pointed_name(backup.path / DATA), POINTER)
        names = sorted(manifest.files, key=lambda name: name == POINTER)  # the pointer last
        steps = [Step(backup.path / DATA / name, folder / name, manifest.files[name]) for name in names]
        yield from put_in_place(backup.name, steps, (), force)
        yield "the bridge reads it until the writer publishes the next one; the writer's own live file is not restored by this"

    def _require_folder(self) -> Path:
        if self._snapshots is None:
            raise BackupError("duckdb: there is no such source; let backup.duckdb.source name one")
        return self._snapshots


def _pointed_name(folder: Path) -> str:
    pointer = folder / POINTER
    try:
        name = pointer.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        name = ""
    except OSError as problem:
        raise BackupError(f"duckdb: {pointer} cannot be read: {problem.strerror}") from problem
    if covers_to_ms(name) is None:
        raise BackupError(f"duckdb: {pointer} names no snapshot")
    return name
