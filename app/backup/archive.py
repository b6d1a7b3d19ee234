"""The folder of backups: finding, publishing and pruning them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.backup import disk
from app.backup.manifest import MANIFEST, OUTSIDE, Backup, KindName, Manifest, backup_in, digest_of
from app.clock import wall_ms
from app.errors import BackupError
from app.process_lock import exclusive_lock

# Everything that is overwritten or removed here has an unmistakable name: the folder may hold other files too.
_LOCK = ".bridge-lock"
_PART = ".bridge-part-"
_GONE = ".bridge-gone-"
_ASIDE = ".bridge-aside"


@dataclass(frozen=True, slots=True)
class Archive:
    """Each backup is a folder. A name with a leading dot is no backup: it is unfinished, being removed, or a note."""

    folder: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing here, and clear what an earlier one left."""
        with disk.os_errors(str(self.folder)):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            with exclusive_lock(self.folder / _LOCK, self._busy_error):
                disk.remove(self.folder / _ASIDE)
                for gone in self.folder.glob(f"{_GONE}*"):
                    disk.remove(gone)
                yield

    def _busy_error(self, holder: str) -> BackupError:
        return BackupError(f"{self.folder}: another backup or restore is at work here (process {holder}); wait for it")

    def backups(self, kind: KindName | None = None) -> list[Backup]:
        """The backups of one kind, or of all, newest first."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [backup for path in paths if (backup := backup_in(path)) is not None and path.is_dir()]
        return sorted((one for one in found if kind in (None, one.kind)), key=lambda one: (one.taken_ms, one.name), reverse=True)

    def find(self, name: str, kind: KindName | None = None) -> Backup:
        """The backup with that name or path, or the newest (`latest`). Raises BackupError."""
        if name == "latest":
            found = next(iter(self.backups(kind)), None)
        else:
            path = Path(name)
            path = path.absolute() if path.name != name else self.folder / name
            found = backup_in(path) if path.is_dir() else None
        if found is None:
            known = ", ".join(one.name for one in self.backups(kind)[:3]) or "none"
            raise BackupError(f"{name}: there is no such backup in {self.folder}; the newest: {known}")
        if kind not in (None, found.kind):
            raise BackupError(f"{found.name}: is a backup of {found.kind}, not of {kind}")
        return found

    def unfinished_parts(self, kind: KindName) -> list[Path]:
        """The unfinished backups of killed runs."""
        return sorted(self.folder.glob(f"{_PART}{kind}"))

    def make_part(self, kind: KindName) -> Path:
        """A new folder to fill. It is no backup before `publish`."""
        part = self.folder / f"{_PART}{kind}"
        part.mkdir(mode=0o700)
        return part

    def make_aside(self) -> Path:
        """A new folder for a trial restore."""
        aside = self.folder / _ASIDE
        aside.mkdir(mode=0o700)
        return aside

    def remove_aside(self) -> None:
        """Remove the folder of the trial restore."""
        disk.remove(self.folder / _ASIDE)

    def publish(self, part: Path, manifest: Manifest) -> Backup:
        """Turn a part into a backup, atomically."""
        encoded = manifest.to_bytes()
        disk.write(part / MANIFEST, encoded)
        (part / OUTSIDE).unlink(missing_ok=True)
        # Readers of the folder may see the age and size of its backups, but not their contents.
        (part / MANIFEST).chmod(0o640)
        part.chmod(0o750)
        disk.sync(part)
        target = self.folder / f"{manifest.kind}-{manifest.taken_at}-{digest_of(encoded)}"
        part.rename(target)
        disk.sync(self.folder)
        found = backup_in(target)
        assert found is not None  # noqa: S101  the name was made here
        return found

    def prune(self, made: Backup, keep: int, remove_outside: Callable[[Manifest], None]) -> list[Backup]:
        """Remove all but the newest `keep` of a kind, but neither the one just made (clocks can be wrong) nor a needed base."""
        older = [backup for backup in self.backups(made.kind) if backup != made]
        kept, others = [made, *older[: keep - 1]], older[keep - 1 :]
        bases = {backup.manifest().base for backup in kept}
        surplus = [backup for backup in others if backup.name not in bases]
        for backup in surplus:
            # manifest() raises for a manifest that cannot be trusted, so it never leads to other folders.
            remove_outside(backup.manifest())
            gone = self.folder / f"{_GONE}{backup.name}"
            backup.path.rename(gone)
            disk.remove(gone)
        return surplus

    def write_note(self, kind: KindName, what: str, problem: str | None) -> None:
        """Store the result of the last `backup` or `verify` of a kind, for the metrics."""
        file = self._note_file(kind)
        noted = self.read_notes(kind) | {what: {"at_ms": wall_ms(), "ok": problem is None, "problem": problem or ""}}
        # If the folder cannot be written to, the result itself has reported that.
        with suppress(OSError):
            disk.replace(file, json.dumps(noted).encode())
            file.chmod(0o640)

    def read_notes(self, kind: KindName) -> dict[str, Any]:
        """The last results: backup, verify -> at_ms, ok, problem."""
        with suppress(OSError, ValueError):
            noted = json.loads(self._note_file(kind).read_bytes())
            return noted if isinstance(noted, dict) else {}
        return {}

    def _note_file(self, kind: KindName) -> Path:
        return self.folder / f".last-{kind}.json"


def backup_and_base(backup: Backup) -> Sequence[tuple[Backup, Manifest]]:
    """The backup and its base, if it has one, with their manifests. Raises BackupError if the base is gone."""
    manifest = backup.manifest()
    if manifest.base is None:
        return [(backup, manifest)]
    try:
        base = Archive(backup.path.parent).find(manifest.base, manifest.kind)
    except BackupError as problem:
        raise BackupError(f"{backup.name}: the full backup under it is gone: {manifest.base}") from problem
    return [(backup, manifest), (base, base.manifest())]
