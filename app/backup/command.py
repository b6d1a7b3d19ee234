"""The commands: take, verify, restore, list. Each yields the lines that it has to say as it goes. Raises BackupError."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from app import __version__
from app.backup import disk
from app.backup.archive import Archive, chain
from app.backup.kind import Kind, compare
from app.backup.manifest import DATA, Backup, KindName, Manifest, check_files, entries_of, stamp
from app.errors import BackupError


def take(archive: Archive, kind: Kind, keep: int | None, full: bool) -> Iterator[str]:
    """One backup of a kind; older ones are removed when it is there."""
    with archive.alone(), _noted(archive, kind.name, "backup"):
        begun_s = time.monotonic()
        backup, manifest = _taken(archive, kind, full)
        under = f", on top of {manifest.base}" if manifest.base else ""
        yield f"{backup.name}: {_size(manifest)}, {time.monotonic() - begun_s:.1f}s{under}"
        yield from (f"  left out: {path}" for path in manifest.left_out)
        if kind.reminder:
            yield f"  {kind.reminder}"
        yield from _pruned(archive, kind, keep, backup)


def _taken(archive: Archive, kind: Kind, full: bool) -> tuple[Backup, Manifest]:
    for left in archive.parts(kind.name):
        kind.discard(left)
        disk.remove(left)
    part, taken_ms = archive.part(kind.name), time.time_ns() // 1_000_000
    try:
        draft = kind.take(part, archive, full)
        files = kind.files(part, draft.place)
        entries = entries_of(files) if files else {}
        manifest = Manifest(
            kind=kind.name,
            taken_at=stamp(taken_ms),
            tool=f"bridge {__version__}",
            versions=draft.versions,
            base=draft.base,
            place=draft.place,
            files=entries,
            contents=kind.look(files, draft.place, None),
            left_out=draft.left_out,
        )
        return archive.publish(part, manifest), manifest
    except BaseException:
        # What cannot be removed now is found by the next run, which tries again.
        with suppress(OSError):
            kind.discard(part)
            disk.remove(part)
        raise


def _pruned(archive: Archive, kind: Kind, keep: int | None, made: Backup) -> Iterator[str]:
    if keep is None:
        return
    if kind.unprunable:
        yield f"  nothing pruned: {kind.unprunable}"
        return
    yield from (f"  removed: {old.name}" for old in archive.prune(made, keep, kind.remove))


def verify(archive: Archive, kind: Kind, backup: Backup) -> Iterator[str]:
    """Every byte, then restore aside and compare."""
    with archive.alone(), _noted(archive, kind.name, "verify"):
        manifest = checked(kind, backup)
        files = kind.files(backup.path, manifest.place)
        aside = archive.aside()
        try:
            if files == backup.path / DATA:
                disk.copy(files, aside / DATA)
                files = aside / DATA
            compare(backup.name, manifest.contents, kind.look(files, manifest.place, aside))
        finally:
            archive.remove_aside()
        proven = (
            "restored aside, it holds what was saved" if manifest.contents else "restored aside (it was not when it was taken)"
        )
        yield f"{backup.name}: good: {_size(manifest)}; {proven}"


def restore(archive: Archive, kind: Kind, backup: Backup, to: str | None, force: bool) -> Iterator[str]:
    """Put a backup in place. Everything about it is checked before anything is touched."""
    with archive.alone():
        manifest = checked(kind, backup)
        yield from kind.restore(backup, manifest, to, force)


def checked(kind: Kind, backup: Backup) -> Manifest:
    """The manifest of a backup whose every byte is what was saved, and so is the one under it."""
    links = chain(backup)
    for link, manifest in links:
        files = kind.files(link.path, manifest.place)
        if files is not None:
            with disk.told(link.name):
                check_files(link.name, files, manifest.files)
    return links[0][1]


def listed(archive: Archive) -> Iterator[str]:
    """What there is, the newest of each kind first."""
    backups = archive.backups()
    for backup in sorted(backups, key=lambda one: one.kind):
        try:
            manifest = backup.manifest()
            said = f"{size_text(manifest.size_bytes):>10}  {f'on top of {manifest.base}' if manifest.base else 'full'}"
        except BackupError as problem:
            said = f"DAMAGED: {problem}"
        yield f"{backup.name}  {age_text(time.time() - backup.taken_ms / 1000):>6} old  {said}"
    if not backups:
        yield f"no backups in {archive.folder}"


def _size(manifest: Manifest) -> str:
    if not manifest.files:
        return "the files are out of reach from here"
    return f"{len(manifest.files)} file{'s' if len(manifest.files) > 1 else ''}, {size_text(manifest.size_bytes)}"


@contextmanager
def _noted(archive: Archive, kind: KindName, what: str) -> Iterator[None]:
    try:
        with disk.told(kind):
            yield
    except GeneratorExit:
        raise
    except BaseException as problem:
        archive.note(kind, what, str(problem) or type(problem).__name__)
        raise
    archive.note(kind, what, None)


def newest_of_each(archive: Archive, wanted: Mapping[KindName, Kind]) -> list[Backup]:
    """The newest backup of each kind that has one."""
    return [backup for kind in wanted for backup in archive.backups(kind)[:1]]


def size_text(size_bytes: float) -> str:
    """For people: 1.2 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def age_text(age_s: float) -> str:
    """For people: 3h."""
    for most_s, per_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if age_s < most_s:
            return f"{age_s / per_s:.0f}{unit}"
    return f"{age_s / 86_400:.0f}d"
