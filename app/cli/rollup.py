"""`bridge rollup`."""

from __future__ import annotations

from pathlib import Path

from app.cli.output import print_lines
from app.cli.snapshots import only_folder
from app.errors import BackupError
from app.sources.duckdb.rolling import RefusedRollup, publish_rollups


def roll_up(config: Path | None, folder: Path | None, to: Path | None, anew: bool) -> int:
    """Publish the newest snapshot with its roll-ups. Returns 0 where it has them already."""
    source = folder or only_folder(config)
    try:
        print_lines(publish_rollups(source, to or source, anew=anew))
    except (OSError, RefusedRollup) as problem:
        raise BackupError(f"rollup: {str(problem).splitlines()[0]}") from problem
    return 0
