"""`bridge snapshots prune`."""

from __future__ import annotations

from pathlib import Path

from app.cli.output import print_lines
from app.config import read_settings
from app.errors import BackupError, BadQuery
from app.operations.snapshot_counts import snapshot_folders
from app.sources.duckdb.pruning import LEAST_KEPT, prune_snapshots


def prune(config: Path | None, folder: Path | None, keep: int, dry_run: bool) -> int:
    """Remove old snapshots. Returns 1 where one of them cannot be removed."""
    if keep < LEAST_KEPT:
        raise BadQuery(f"--keep: {keep} is not allowed; a reader may use the newest {LEAST_KEPT}")
    chosen = folder or only_folder(config)
    stayed = 0
    try:
        for line in prune_snapshots(chosen, keep, only_list=dry_run):
            stayed += ": stays:" in line
            print_lines(line)
    except (OSError, ValueError) as problem:
        raise BackupError(f"snapshots: {problem}") from problem
    return 1 if stayed else 0


def only_folder(config: Path | None) -> Path:
    """The folder of the configured DuckDB source. Raises BadQuery where there is not exactly one."""
    connections = {name: source.connect for name, source in read_settings(config).sources.items()}
    folders = sorted(set(snapshot_folders(connections).values()))
    if len(folders) != 1:
        raise BadQuery(f"--folder: say which of {len(folders)} folders")
    return folders[0]
