"""The commands take, verify, restore and list. Each yields its output line by line as it works. Raises BackupError."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from app import __version__
from app.backup import disk
from app.backup.archive import Archive, backup_and_base
from app.backup.kind import Kind, require_same_contents
from app.backup.manifest import DATA, Backup, KindName, Manifest, check_files, hash_files, time_stamp
from app.clock import age_text, wall_ms
from app.errors import BackupError


def take(archive: Archive, kind: Kind, keep: int | None, full: bool) -> Iterator[str]:
    """Take one backup of a kind, then prune older ones."""
    with archive.lock(), _note_result(archive, kind.name, "backup"):
        begun_s = time.monotonic()
        backup, manifest = _take_backup(archive, kind, full)
        under = f", on top of {manifest.base}" if manifest.base else ""
        yield f"{backup.name}: {_size_words(manifest)}, {time.monotonic() - begun_s:.1f}s{under}"
        yield from (f"  left out: {path}" for path in manifest.left_out)
        if kind.reminder:
            yield f"  {kind.reminder}"
        yield from _prune_old(archive, kind, keep, backup)


def _take_backup(archive: Archive, kind: Kind, full: bool) -> tuple[Backup, Manifest]:
    for left in archive.unfinished_parts(kind.name):
        kind.discard(left)
        disk.remove(left)
    part, taken_ms = archive.make_part(kind.name), wall_ms()
    try:
        draft = kind.take(part, archive, full)
        files = kind.files_folder(part, draft.place)
        entries = hash_files(files) if files else {}
        manifest = Manifest.create(
            kind=kind.name,
            taken_at=time_stamp(taken_ms),
            tool=f"bridge {__version__}",
            versions=draft.versions,
            base=draft.base,
            place=draft.place,
            files=entries,
            contents=kind.contents_of(files, draft.place, None),
            left_out=draft.left_out,
        )
        return archive.publish(part, manifest), manifest
    except BaseException:
        # The next run finds what cannot be removed now, and tries again.
        with suppress(OSError):
            kind.discard(part)
            disk.remove(part)
        raise


def _prune_old(archive: Archive, kind: Kind, keep: int | None, made: Backup) -> Iterator[str]:
    if keep is None:
        return
    if kind.prune_obstacle:
        yield f"  nothing pruned: {kind.prune_obstacle}"
        return
    yield from (f"  removed: {old.name}" for old in archive.prune(made, keep, kind.remove))


def verify(archive: Archive, kind: Kind, backup: Backup) -> Iterator[str]:
    """Check every byte, then restore aside and compare."""
    with archive.lock(), _note_result(archive, kind.name, "verify"):
        manifest = check_backup(kind, backup)
        files = kind.files_folder(backup.path, manifest.place)
        aside = archive.make_aside()
        try:
            if files == backup.path / DATA:
                disk.copy(files, aside / DATA)
                files = aside / DATA
            require_same_contents(backup.name, manifest.contents, kind.contents_of(files, manifest.place, aside))
        finally:
            archive.remove_aside()
        proven = (
            "restored aside, it holds what was saved" if manifest.contents else "restored aside (it was not when it was taken)"
        )
        yield f"{backup.name}: good: {_size_words(manifest)}; {proven}"


def restore(archive: Archive, kind: Kind, backup: Backup, to: str | None, force: bool) -> Iterator[str]:
    """Restore a backup. It is checked completely before anything is changed."""
    with archive.lock():
        manifest = check_backup(kind, backup)
        yield from kind.restore(backup, manifest, to, force)


def check_backup(kind: Kind, backup: Backup) -> Manifest:
    """Check every byte of a backup and of its base; return the backup's manifest."""
    links = backup_and_base(backup)
    for link, manifest in links:
        files = kind.files_folder(link.path, manifest.place)
        if files is not None:
            with disk.os_errors(link.name):
                check_files(link.name, files, manifest.files)
    return links[0][1]


def list_backups(archive: Archive) -> Iterator[str]:
    """A line for each backup, by kind, newest first."""
    backups = archive.backups()
    for backup in sorted(backups, key=lambda one: one.kind):
        try:
            manifest = backup.manifest()
            said = f"{size_text(manifest.size_bytes):>10}  {f'on top of {manifest.base}' if manifest.base else 'full'}"
        except BackupError as problem:
            said = f"DAMAGED: {problem}"
        yield f"{backup.name}  {age_text(wall_ms() - backup.taken_ms):>6} old  {said}"
    if not backups:
        yield f"no backups in {archive.folder}"


def _size_words(manifest: Manifest) -> str:
    if not manifest.files:
        return "the files are out of reach from here"
    return f"{len(manifest.files)} file{'s' if len(manifest.files) > 1 else ''}, {size_text(manifest.size_bytes)}"


@contextmanager
def _note_result(archive: Archive, kind: KindName, what: str) -> Iterator[None]:
    try:
        with disk.os_errors(kind):
            yield
    except GeneratorExit:
        raise
    except BaseException as problem:
        archive.write_note(kind, what, str(problem) or type(problem).__name__)
        raise
    archive.write_note(kind, what, None)


def newest_of_each(archive: Archive, wanted: Mapping[KindName, Kind]) -> list[Backup]:
    """The newest backup of each kind that has one."""
    return [backup for kind in wanted for backup in archive.backups(kind)[:1]]


def size_text(size_bytes: float) -> str:
    """A size for people: 1.2 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
