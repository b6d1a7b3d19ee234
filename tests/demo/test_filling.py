"""The demo's history is as fine as its live part: a sample every 10 s in every store, no gap where it becomes live."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from demo.accounts import ticks
from demo.duckdb_writer import DuckDBWriter
from demo.filling import fill_duckdb, fill_prometheus, scrapes
from demo.health import heartbeat_ms
from demo.stores import free_port, prometheus_store
from demo.world import COARSE_MS, HOUR_MS, TICK_MS, World

START_MS = 1_795_000_000_000 // HOUR_MS * HOUR_MS
UNTIL_MS = START_MS + 5 * HOUR_MS


def asked(port: int, query: str, at_ms: int) -> list[Any]:
    given = urllib.parse.urlencode({"query": query, "time": at_ms // 1000})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{given}", timeout=20) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
    return found


def test_prometheus_has_every_sample_of_every_block_once(tmp_path: Path) -> None:
    world = World(7, 2, START_MS)
    world.extend(UNTIL_MS + HOUR_MS)
    instants = ticks(world.start_ms, UNTIL_MS)
    # what was missed while the rest was filled comes as a piece of its own
    for part in (instants[:-3], instants[-3:]):
        fill_prometheus(world, tmp_path, part)
    with prometheus_store(tmp_path, free_port()) as port:
        found = asked(port, "count_over_time(tds_instance_last_heartbeat_timestamp_seconds[6h])", UNTIL_MS)
        beats = asked(port, "tds_instance_last_heartbeat_timestamp_seconds[6h]", UNTIL_MS)
    assert {one["value"][1] for one in found} == {str(len(instants))}
    assert len(beats) == 2
    for place, one in enumerate(beats):
        expected = zip(instants / 1000, heartbeat_ms(world, place, instants) / 1000, strict=True)
        np.testing.assert_allclose([(at, float(value)) for at, value in one["values"]], list(expected), atol=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir() if "backfill" in path.name) == []


def test_a_heartbeat_that_comes_in_time_is_never_old_in_the_history() -> None:
    world = World(7, 3, START_MS)
    world.extend(UNTIL_MS)
    at_ms = ticks(START_MS, UNTIL_MS)
    for place in range(world.instances):
        well = ~world.down(place, at_ms)
        assert (at_ms - heartbeat_ms(world, place, at_ms))[well].max() < TICK_MS


def test_a_long_history_is_fine_at_its_end_and_coarser_before_and_has_no_gap_between(tmp_path: Path) -> None:
    world = World(7, 60, START_MS - 24 * HOUR_MS, START_MS)
    world.extend(UNTIL_MS)
    writer = DuckDBWriter(tmp_path)
    fill_duckdb(world, writer, UNTIL_MS)
    writer.close()
    snapshot = next(tmp_path.glob("snapshots/*.duckdb"))
    with duckdb.connect(str(snapshot), read_only=True) as database:
        found = database.execute("SELECT epoch_ms(ts), count(*) FROM account_snapshots GROUP BY 1 ORDER BY 1").fetchnumpy()
    times, counts = found.values()
    steps, fine = np.diff(times), times[1:] > START_MS
    assert (set(steps[~fine].tolist()), set(steps[fine].tolist())) == ({COARSE_MS}, {TICK_MS})
    assert (times[0], times[-1], set(counts.tolist())) == (world.start_ms, UNTIL_MS, {world.accounts})


def test_before_its_fine_part_a_large_world_trades_as_a_middling_one_does() -> None:
    large, middling = World(7, 500, START_MS - HOUR_MS, START_MS), World(7, 50, START_MS - HOUR_MS)
    for one in (large, middling):
        one.extend(START_MS)
    assert len(large.trades.number) == len(middling.trades.number)
    large.extend(START_MS + HOUR_MS)
    middling.extend(START_MS + HOUR_MS)
    added = [(one.trades.signal_ms >= START_MS).sum() for one in (large, middling)]
    assert added[0] > 9 * added[1]


def test_prometheus_is_filled_often_enough_for_its_own_idea_of_a_value_that_is_there(tmp_path: Path) -> None:
    world = World(7, 2, START_MS - 24 * HOUR_MS, START_MS)
    world.extend(UNTIL_MS)
    fill_prometheus(world, tmp_path, scrapes(world, UNTIL_MS))
    with prometheus_store(tmp_path, free_port()) as port:
        counted = asked(port, "count_over_time(count(tds_instance_cpu_ratio)[28h:1m])", UNTIL_MS)
        beats = asked(port, "min(min_over_time(timestamp(tds_instance_last_heartbeat_timestamp_seconds)[28h:1m]))", UNTIL_MS)
    assert counted[0]["value"][1] == str(28 * 60 + 1)
    assert float(beats[0]["value"][1]) * 1000 >= START_MS
