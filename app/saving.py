"""What `bridge backup` and `bridge restore` do, with the configuration in hand."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from app import backup
from app.backup import KINDS, Archive, Backup, KindName
from app.backup.kind import Kind
from app.backup.kinds import kinds as kinds_of
from app.config import DEFAULT_FILE, FILE_VARIABLE, Settings, read_settings
from app.errors import BackupError, BadQuery, BridgeError


def save(arguments: argparse.Namespace) -> int:
    """`bridge backup WHAT [BACKUP]`."""
    _end_in_good_order()
    settings = read_settings(arguments.config)
    archive, kinds = _archive(settings, arguments.to), _kinds(settings, arguments.config)
    if arguments.what == "list":
        return _say(backup.listed(archive))
    if arguments.what == "verify":
        return _each(backup.verify(archive, kinds[one.kind], one) for one in _wanted(archive, kinds, arguments.backup))
    if arguments.backup:
        raise BadQuery(f"{arguments.backup}: only `bridge backup verify` takes a backup's name")
    keep = settings.backup.keep if arguments.keep is None else arguments.keep
    if keep is not None and keep < 1:
        raise BadQuery(f"--keep: {keep} is not allowed; allowed: 1 and more")
    chosen = backup.configured(settings.backup, _sources(settings)) if arguments.what == "all" else (arguments.what,)
    return _each(backup.take(archive, kinds[kind], keep, arguments.full) for kind in chosen)


def restore(arguments: argparse.Namespace) -> int:
    """`bridge restore KIND BACKUP`. With a folder's path and --to no configuration is needed: it may be what was lost."""
    _end_in_good_order()
    named, bare = Path(arguments.backup), arguments.to is not None and arguments.kind != "clickhouse"
    if bare and named.is_dir():
        settings = Settings.model_construct(sources={}, backup=backup.BackupSettings(folder=named.absolute().parent))
    else:
        settings = read_settings(arguments.config)
    archive = _archive(settings, None)
    kind = _kinds(settings, arguments.config)[arguments.kind]
    found = archive.find(arguments.backup, arguments.kind)
    return _say(backup.restore(archive, kind, found, arguments.to, arguments.force))


def _archive(settings: Settings, to: Path | None) -> Archive:
    folder = to or settings.backup.folder
    if folder is None:
        raise BackupError("backup: nobody says where the backups are: set backup.folder, or say --to FOLDER")
    return Archive(folder)


def _kinds(settings: Settings, config: Path | None) -> dict[KindName, Kind]:
    file = config or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)
    return kinds_of(settings.backup, _sources(settings), (file.absolute().parent, settings.catalog_folder))


def _sources(settings: Settings) -> dict[str, backup.SourceConfig]:
    return {name: source.connect for name, source in settings.sources.items()}


def _wanted(archive: Archive, kinds: dict[KindName, Kind], name: str | None) -> list[Backup]:
    """Which to verify: the one that is named, the newest of a kind, or the newest of each kind."""
    if name is None:
        found = backup.newest_of_each(archive, kinds)
        if not found:
            raise BackupError(f"{archive.folder}: there is no backup to verify")
        return found
    return [archive.find("latest", name) if name in KINDS else archive.find(name)]


def _each(works: Iterable[Iterator[str]]) -> int:
    """Each on its own: one that fails is told and stops no other."""
    failed = 0
    for work in works:
        try:
            _say(work)
        except BridgeError as failure:
            print(f"bridge: {failure}", file=sys.stderr)
            failed = 1
    return failed


def _say(lines: Iterator[str]) -> int:
    for line in lines:
        print(line, flush=True)
    return 0


def _end_in_good_order() -> None:
    """Told to stop, it removes what is half done, as with Ctrl-C."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
