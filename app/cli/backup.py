"""`bridge backup` and `bridge restore`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from app import backup
from app.backup import KINDS, Archive, Backup, KindName
from app.backup.kind import Kind
from app.backup.kinds import build_kinds
from app.cli.output import print_lines
from app.cli.signals import undo_when_stopped
from app.config import Settings, chosen_file, read_settings
from app.errors import BackupError, BadQuery, BridgeError


def save(arguments: argparse.Namespace) -> int:
    """`bridge backup WHAT [BACKUP]`."""
    undo_when_stopped()
    settings = read_settings(arguments.config)
    archive, kinds = _archive_of(settings, arguments.to), _kinds_by_name(settings, arguments.config)
    if arguments.what == "list":
        print_lines(*backup.list_backups(archive))
        return 0
    if arguments.what == "verify":
        chosen = _backups_to_verify(archive, kinds, arguments.backup)
        return _run_each(backup.verify(archive, kinds[one.kind], one) for one in chosen)
    if arguments.backup:
        raise BadQuery(f"{arguments.backup}: only `bridge backup verify` takes a backup's name")
    keep = settings.backup.keep if arguments.keep is None else arguments.keep
    if keep is not None and keep < 1:
        raise BadQuery(f"--keep: {keep} is not allowed; allowed: 1 and more")
    names = backup.configured_kinds(settings.backup, _connections(settings)) if arguments.what == "all" else (arguments.what,)
    return _run_each(backup.take(archive, kinds[name], keep, arguments.full) for name in names)


def restore(arguments: argparse.Namespace) -> int:
    """`bridge restore KIND BACKUP`. A folder's path and --to need no configuration, which may be what was lost."""
    undo_when_stopped()
    named, bare = Path(arguments.backup), arguments.to is not None and arguments.kind != "clickhouse"
    if bare and named.is_dir():
        settings = Settings.model_construct(sources={}, backup=backup.BackupSettings(folder=named.absolute().parent))
    else:
        settings = read_settings(arguments.config)
    archive = _archive_of(settings, None)
    kind = _kinds_by_name(settings, arguments.config)[arguments.kind]
    found = archive.find(arguments.backup, arguments.kind)
    _print_progress(backup.restore(archive, kind, found, arguments.to, arguments.force))
    return 0


def _archive_of(settings: Settings, to: Path | None) -> Archive:
    folder = to or settings.backup.folder
    if folder is None:
        raise BackupError("backup: nobody says where the backups are: set backup.folder, or say --to FOLDER")
    return Archive(folder)


def _kinds_by_name(settings: Settings, config: Path | None) -> dict[KindName, Kind]:
    roots = (chosen_file(config).absolute().parent, settings.catalog_folder)
    return build_kinds(settings.backup, _connections(settings), roots)


def _connections(settings: Settings) -> dict[str, backup.SourceConfig]:
    return {name: source.connect for name, source in settings.sources.items()}


def _backups_to_verify(archive: Archive, kinds: dict[KindName, Kind], name: str | None) -> list[Backup]:
    """The backup of that name, the newest of that kind, or the newest of each kind."""
    if name is None:
        found = backup.newest_of_each(archive, kinds)
        if not found:
            raise BackupError(f"{archive.folder}: there is no backup to verify")
        return found
    return [archive.find("latest", name) if name in KINDS else archive.find(name)]


def _run_each(works: Iterable[Iterator[str]]) -> int:
    """Run all of them. A failure is printed and does not stop the next one."""
    status = 0
    for work in works:
        try:
            _print_progress(work)
        except BridgeError as failure:
            print(f"bridge: {failure}", file=sys.stderr)
            status = 1
    return status


def _print_progress(lines: Iterator[str]) -> None:
    """Print each line as soon as the work yields it."""
    for line in lines:
        print_lines(line)
