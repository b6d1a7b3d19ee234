"""The demo's Redis may be killed, as docs/when-down.md invites to: the feed goes on, and fills it again when it is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo.accounts import AccountStates, opening, states
from demo.redis_filling import RefilledRedis, fill_redis
from demo.redis_writer import STREAM_LENGTH, RedisWriter
from demo.world import HOUR_MS, World
from tests.servers.redis import RedisServer

_START_MS = 1_795_000_000_000
_UNTIL_MS = _START_MS + HOUR_MS


def at(world: World, now_ms: int) -> AccountStates:
    return states(world, np.array([now_ms]), opening(world))


def kept(client: Any) -> tuple[set[str], set[str], int, list[str]]:
    """Which keys there are, which trades are open, how many samples of a curve, which groups read the results."""
    groups = [group["name"] for group in client.xinfo_groups("trade_results")]
    samples = client.zcard(next(key for key in client.keys("hist:equity:*")))
    return set(client.keys()), set(client.zrange("trade_state:open", 0, -1)), samples, groups


def test_a_redis_that_was_killed_is_filled_as_if_it_had_never_been_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(7, 2, _START_MS)
    world.extend(_UNTIL_MS + HOUR_MS)
    with RedisServer(tmp_path) as server:
        writer = RefilledRedis(server.client, STREAM_LENGTH)
        fill_redis(world, writer, _UNTIL_MS)
        server.kill()
        for second in (1, 2):
            writer.write(world, at(world, _UNTIL_MS + second * 1000), _UNTIL_MS, _UNTIL_MS + second * 1000)
        server.start()
        writer.write(world, at(world, _UNTIL_MS + 3000), _UNTIL_MS + 2000, _UNTIL_MS + 3000)
        found = kept(server.client)
        server.client.flushdb()
        fill_redis(world, RedisWriter(server.client), _UNTIL_MS + 3000)
        assert found == kept(server.client)
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said == ["Redis is not fed any more", "Redis is back and filled again"]


def test_a_redis_that_came_back_empty_between_two_seconds_is_filled_too(tmp_path: Path) -> None:
    world = World(7, 2, _START_MS)
    world.extend(_UNTIL_MS + HOUR_MS)
    with RedisServer(tmp_path) as server:
        writer = RefilledRedis(server.client, STREAM_LENGTH)
        fill_redis(world, writer, _UNTIL_MS)
        before = kept(server.client)
        server.client.flushdb()
        for second in (1, 2):
            writer.write(world, at(world, _UNTIL_MS + second * 1000), _UNTIL_MS, _UNTIL_MS + second * 1000)
        assert len(kept(server.client)[0]) > len(before[0]) / 2
        assert kept(server.client)[3] == before[3] == ["sync"]


def test_another_redis_that_listens_at_that_port_now_is_not_emptied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(7, 2, _START_MS)
    world.extend(_UNTIL_MS + HOUR_MS)
    with RedisServer(tmp_path) as server:
        writer = RefilledRedis(server.client, STREAM_LENGTH)
        fill_redis(world, writer, _UNTIL_MS)
        server.kill()
        writer.write(world, at(world, _UNTIL_MS + 1000), _UNTIL_MS, _UNTIL_MS + 1000)
        server.start()
        server.client.flushdb()
        server.client.set("orders:of somebody", "mine")
        for second in (2, 3):
            writer.write(world, at(world, _UNTIL_MS + second * 1000), _UNTIL_MS, _UNTIL_MS + second * 1000)
        assert server.client.keys() == ["orders:of somebody"]
