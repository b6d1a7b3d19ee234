"""Backups: what is saved, how it is known to be whole, and how it is put back. Nothing here is part of serving but `standing`.

One file for each kind (`grafana`, `clickhouse`, `prometheus`, `duckdb`, `config_files`), and what they share: `manifest` (what a
backup says of itself), `archive` (the folder), `placing` (all files or none, the old ones beside), `command` (the four commands).
"""

from app.backup.archive import Archive
from app.backup.command import listed, newest_of_each, restore, take, verify
from app.backup.manifest import KINDS, Backup, KindName
from app.backup.settings import BackupSettings, configured
from app.backup.standing import Standings, line, watch
from app.sources.base import SourceConfig

__all__ = [
    "KINDS",
    "Archive",
    "Backup",
    "BackupSettings",
    "KindName",
    "SourceConfig",
    "Standings",
    "configured",
    "line",
    "listed",
    "newest_of_each",
    "restore",
    "take",
    "verify",
    "watch",
]
