"""The folder of backups: what is in it, what is added to it in one step, and what is taken out again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.backup import disk
from app.backup.lock import alone
from app.backup.manifest import MANIFEST, OUTSIDE, Backup, KindName, Manifest, digest_of, named
from app.errors import BackupError

_LOCK = ".lock"
_PART = ".part-"
_GONE = ".gone-"
_ASIDE = ".aside"


@dataclass(frozen=True, slots=True)
class Archive:
    """Backups are folders here. What begins with a dot is none: not finished, being removed, or a note of the last result."""

    folder: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes here meanwhile."""
        with disk.told(str(self.folder)):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            with alone(self.folder / _LOCK):
                disk.remove(self.folder / _ASIDE)
                for gone in self.folder.glob(f"{_GONE}*"):
                    disk.remove(gone)
                yield

    def backups(self, kind: KindName | None = None) -> list[Backup]:
        """All of a kind, or of every kind, from the newest to the oldest."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [backup for path in paths if (backup := named(path)) is not None and path.is_dir()]
        return sorted((one for one in found if kind in (None, one.kind)), key=lambda one: (one.taken_ms, one.name), reverse=True)

    def find(self, name: str, kind: KindName | None = None) -> Backup:
        """The backup of that name, or in that folder, or the newest (`latest`). Raises BackupError."""
        if name == "latest":
            found = next(iter(self.backups(kind)), None)
        else:
            path = Path(name)
            path = path.absolute() if path.name != name else self.folder / name
            found = named(path) if path.is_dir() else None
        if found is None:
            known = ", ".join(one.name for one in self.backups(kind)[:3]) or "none"
            raise BackupError(f"{name}: there is no such backup in {self.folder}; the newest: {known}")
        if kind not in (None, found.kind):
            raise BackupError(f"{found.name}: is a backup of {found.kind}, not of {kind}")
        return found

    def parts(self, kind: KindName) -> list[Path]:
        """What a run that was killed has left half done."""
        return sorted(self.folder.glob(f"{_PART}{kind}"))

    def part(self, kind: KindName) -> Path:
        """A new folder to fill; nobody takes it for a backup."""
        part = self.folder / f"{_PART}{kind}"
        part.mkdir(mode=0o700)
        return part

    def aside(self) -> Path:
        """A new folder to restore into, to look at what comes out."""
        aside = self.folder / _ASIDE
        aside.mkdir(mode=0o700)
        return aside

    def remove_aside(self) -> None:
        """It was looked at."""
        disk.remove(self.folder / _ASIDE)

    def publish(self, part: Path, manifest: Manifest) -> Backup:
        """Make a backup of a part, in one step."""
        encoded = manifest.encoded()
        disk.write(part / MANIFEST, encoded)
        (part / OUTSIDE).unlink(missing_ok=True)
        # Whoever may read the folder may read how old and how large its backups are, not what is in them.
        (part / MANIFEST).chmod(0o640)
        part.chmod(0o750)
        disk.sync(part)
        target = self.folder / f"{manifest.kind}-{manifest.taken_at}-{digest_of(encoded)}"
        part.rename(target)
        disk.sync(self.folder)
        found = named(target)
        assert found is not None  # noqa: S101  the name was made here
        return found

    def prune(self, made: Backup, keep: int, remove_outside: Callable[[Manifest], None]) -> list[Backup]:
        """Remove all but the newest `keep` of a kind; never the one just made (clocks go wrong) nor the base of a kept one."""
        older = [backup for backup in self.backups(made.kind) if backup != made]
        kept, others = [made, *older[: keep - 1]], older[keep - 1 :]
        bases = {backup.manifest().base for backup in kept}
        surplus = [backup for backup in others if backup.name not in bases]
        for backup in surplus:
            # What cannot be trusted is not followed to other folders either.
            remove_outside(backup.manifest())
            gone = self.folder / f"{_GONE}{backup.name}"
            backup.path.rename(gone)
            disk.remove(gone)
        return surplus

    def note(self, kind: KindName, what: str, problem: str | None) -> None:
        """Keep how the last `backup` or `verify` of a kind went, for the metrics."""
        file = self._note_file(kind)
        noted = self.notes(kind) | {what: {"at_ms": time.time_ns() // 1_000_000, "ok": problem is None, "problem": problem or ""}}
        # A folder that cannot be written to is what the result has said already.
        with suppress(OSError):
            disk.replace(file, json.dumps(noted).encode())
            file.chmod(0o640)

    def notes(self, kind: KindName) -> dict[str, Any]:
        """How the last ones went: backup, verify -> at_ms, ok, problem."""
        with suppress(OSError, ValueError):
            noted = json.loads(self._note_file(kind).read_bytes())
            return noted if isinstance(noted, dict) else {}
        return {}

    def _note_file(self, kind: KindName) -> Path:
        return self.folder / f".last-{kind}.json"


def chain(backup: Backup) -> Sequence[tuple[Backup, Manifest]]:
    """The backup and the one that it cannot do without, each with its manifest. Raises BackupError when that is gone."""
    manifest = backup.manifest()
    if manifest.base is None:
        return [(backup, manifest)]
    try:
        base = Archive(backup.path.parent).find(manifest.base, manifest.kind)
    except BackupError as problem:
        raise BackupError(f"{backup.name}: the full backup under it is gone: {manifest.base}") from problem
    return [(backup, manifest), (base, base.manifest())]
