"""Backups: taking, verifying and restoring them. Only `health` is used while the bridge serves.

Each kind has a file (`grafana`, `clickhouse`, `prometheus`, `duckdb`, `config_files`). They share `manifest` (the description of
a backup), `archive` (the folder of backups), `placing` (restoring all files or none) and `command` (the four commands).
"""

from app.backup.archive import Archive
from app.backup.command import list_backups, newest_of_each, restore, take, verify
from app.backup.health import BackupHealthReader, health_lines, watch_backups
from app.backup.manifest import KINDS, Backup, KindName
from app.backup.settings import BackupSettings, configured_kinds
from app.sources.base import SourceConfig

__all__ = [
    "KINDS",
    "Archive",
    "Backup",
    "BackupHealthReader",
    "BackupSettings",
    "KindName",
    "SourceConfig",
    "configured_kinds",
    "health_lines",
    "list_backups",
    "newest_of_each",
    "restore",
    "take",
    "verify",
    "watch_backups",
]
