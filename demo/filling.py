"""Fills the stores with a world's history, some rows at a time: the memory that it needs does not grow with the history."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from demo.accounts import chunks, instants, opening, ticks
from demo.clickhouse_writer import ClickHouseWriter
from demo.duckdb_writer import DuckDBWriter
from demo.gauges import HEARTBEAT, families, openmetrics
from demo.market import Ints
from demo.progress import Tell, tell_nobody
from demo.stores import backfill
from demo.world import HOUR_MS, World

# the time that a new block of Prometheus covers, and one with few samples (Prometheus' own lengths are 2, 6, 18 hours and so on)
_BLOCK_MS, _SPARSE_BLOCK_MS = 2 * HOUR_MS, 18 * HOUR_MS
_COARSE_MS = 240_000
_TRADES_AT_ONCE = 100_000
_TERMINAL_ROWS_AT_ONCE = 500_000
#: the share of ClickHouse's time that its trades take, and that its account snapshots take
_TRADES_SHARE, _SNAPSHOTS_SHARE = 0.3, 0.5


def fill_clickhouse(world: World, writer: ClickHouseWriter, until_ms: int, tell: Tell = tell_nobody) -> None:
    """Create the tables and write everything from the world's start to `until_ms`."""
    writer.create_tables()
    write_history(world, writer, until_ms, tell)


def write_history(world: World, writer: ClickHouseWriter, until_ms: int, tell: Tell = tell_nobody) -> None:
    """Write everything from the world's start to `until_ms` into existing tables."""
    at_ms = instants(world, until_ms)
    ends_ms = _pieces(world.start_ms, until_ms, len(world.trades.number) // _TRADES_AT_ONCE + 1)
    for piece, (from_ms, to_ms) in enumerate(ends_ms, 1):
        writer.insert_trades(world, from_ms, to_ms)
        tell(_TRADES_SHARE * piece / len(ends_ms))
    written = 0
    for found in chunks(world, at_ms, opening(world)):
        writer.insert_snapshots(world, found)
        written += len(found.at_ms)
        tell(_TRADES_SHARE + _SNAPSHOTS_SHARE * written / len(at_ms))
    for part in np.array_split(at_ms, world.instances * len(at_ms) // _TERMINAL_ROWS_AT_ONCE + 1):
        writer.insert_health(world, part)
    writer.insert_events(world, world.start_ms, until_ms)
    tell(1.0)


def _pieces(from_ms: int, to_ms: int, count: int) -> list[tuple[int, int]]:
    """The time from `from_ms` to `to_ms` in as many pieces."""
    ends = np.linspace(from_ms, to_ms, count + 1).astype(np.int64).tolist()
    return list(pairwise(ends))


def fill_duckdb(world: World, writer: DuckDBWriter, until_ms: int, tell: Tell = tell_nobody) -> None:
    """Write every tick up to `until_ms` and publish a first snapshot."""
    every, written = instants(world, until_ms), 0
    for found in chunks(world, every, opening(world)):
        writer.insert_ticks(world, found)
        written += len(found.at_ms)
        tell(0.95 * written / len(every))
    writer.publish(int(every[-1]))
    tell(1.0)


def scrapes(world: World, until_ms: int) -> Ints:
    """When a Prometheus has scraped from the world's start to `until_ms`: as often as `instants`, but every 4 minutes before
    `fine_from_ms`: an older value than 5 minutes is none to Prometheus."""
    coarse = np.arange(-(-world.start_ms // _COARSE_MS) * _COARSE_MS, min(world.fine_from_ms, until_ms + 1), _COARSE_MS)
    return np.concatenate((coarse, ticks(world.fine_from_ms, until_ms)))


def fill_prometheus(world: World, folder: Path, at_ms: Ints, tell: Tell = tell_nobody) -> None:
    """Make blocks under `folder`/data with a sample of every series at each of the ascending instants.

    Heartbeats begin at `fine_from_ms`: sampled less often, each would look as if the next one had not come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = list(families(world))
    sparse = [family for family in known if family.name != HEARTBEAT]
    # One block at a time, because promtool reads the whole text again for each block.
    blocks = [
        *_blocks(at_ms[at_ms < world.fine_from_ms], _SPARSE_BLOCK_MS),
        *_blocks(at_ms[at_ms >= world.fine_from_ms], _BLOCK_MS),
    ]
    # While promtool reads the text of a block, the next text is written.
    with ThreadPoolExecutor(1, "promtool") as reading:
        running: Future[None] | None = None
        for place, block in enumerate(blocks):
            text, is_sparse = folder / f"backfill-{place % 2}.txt", block[0] < world.fine_from_ms
            with text.open("w", encoding="utf-8") as file:
                file.writelines(openmetrics(sparse if is_sparse else known, block))
            if running is not None:
                running.result()
                tell(place / len(blocks))
            running = reading.submit(_make_block, text, folder / "data", _SPARSE_BLOCK_MS if is_sparse else _BLOCK_MS)
        if running is not None:
            running.result()
    tell(1.0)


def _blocks(at_ms: Ints, block_ms: int) -> list[Ints]:
    """The instants of each block."""
    return np.split(at_ms, np.flatnonzero(np.diff(at_ms // block_ms)) + 1) if len(at_ms) else []


def _make_block(text: Path, data: Path, block_ms: int) -> None:
    backfill(text, data, block_ms // HOUR_MS)
    text.unlink()
