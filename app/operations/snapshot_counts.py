"""How many snapshots a folder of the DuckDB writer has, and how large they are: they pile up where nobody removes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from app.sources import AnySource
from app.sources.duckdb.pruning import kept_snapshots
from app.sources.duckdb.source import DuckDBConfig
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)
_COUNT_EVERY_S = 60.0


def snapshot_folders(connections: Mapping[str, AnySource]) -> dict[str, Path]:
    """Source -> the folder of its snapshots."""
    return {name: one.snapshots for name, one in connections.items() if isinstance(one, DuckDBConfig) and one.enabled}


async def watch_snapshots(folders: Mapping[str, Path], telemetry: Telemetry) -> None:
    """Update both metrics of each source, for ever. The folder may be a share that hangs, so a thread looks into it."""
    while True:
        for source, folder in folders.items():
            try:
                kept = await asyncio.to_thread(kept_snapshots, folder)
            except OSError as problem:
                _log.warning("the snapshots of %s cannot be counted: %s", source, problem)
                continue
            telemetry.snapshots.labels(source).set(len(kept))
            telemetry.snapshot_bytes.labels(source).set(sum(one.size_bytes for one in kept))
        await asyncio.sleep(_COUNT_EVERY_S)
