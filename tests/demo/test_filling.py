"""The demo's history is as fine as its live part: a sample every 10 s in every store, no gap where it becomes live."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from demo.accounts import ticks
from demo.filling import fill_prometheus
from demo.health import heartbeat_ms
from demo.stores import free_port, prometheus_store
from demo.world import HOUR_MS, TICK_MS, World

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
