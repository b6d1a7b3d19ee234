"""Metrics of one source with cache times of their own: each is as old as its own entry allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.catalog import load
from app.model import Query
from app.policies import Policy, PolicyDeps, PrioritySemaphore, guard
from app.query.bridge import Bridge
from app.sources.redis.source import RedisConfig
from app.telemetry import Telemetry
from tests.policies.scripted import Clock
from tests.servers.redis import RedisServer

#: Both metrics read the same field, so that nothing but the cache times tells them apart.
TEXT = """
group: g
title: G
metrics:
  heartbeat:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    live: {source: rts, read: hash, key: state, field: figure}
    cache: {fresh_s: 1, stale_s: 0}
  monthly:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    live: {source: rts, read: hash, key: state, field: figure}
    cache: {fresh_s: 600, stale_s: 3600}
  usual:
    title: t
    description: d
    unit: short
    aggregate: sum
    over_time: last
    live: {source: rts, read: hash, key: state, field: figure}
"""


@asynccontextmanager
async def bridge_on(server: RedisServer) -> AsyncIterator[Bridge]:
    telemetry, clock, source = Telemetry(), Clock(), RedisConfig(port=server.port).build("rts")
    guarded = guard(
        "rts", source.fetch, Policy(fresh_s=10, attempts=1), PolicyDeps(telemetry, clock, asyncio.sleep, PrioritySemaphore(5))
    )
    yield Bridge(load({"g.yaml": TEXT}, {"rts": "redis"}), {"rts": guarded.fetch}, telemetry, clock)
    await guarded.close()
    await source.close()


async def figures(bridge: Bridge) -> dict[str, float | str]:
    """Each metric's figure of now; its status where it has none."""
    now_ms = bridge.clock()
    queries = [Query(name, now_ms - 600_000, now_ms, step_ms=600_000, instant=True) for name in ("heartbeat", "monthly", "usual")]
    found = await bridge.run(queries, budget_s=5)
    return {one.query.metric: float(one.frame.value[0]) if len(one.frame) else one.status for one in found}


def pass_time(bridge: Bridge, seconds: float) -> None:
    assert isinstance(bridge.clock, Clock)
    bridge.clock.now_ms += round(seconds * 1000)


async def test_each_metric_is_served_again_for_its_own_time(server: RedisServer) -> None:
    async with bridge_on(server) as bridge:
        server.client.hset("state", "figure", 1)
        assert await figures(bridge) == {"heartbeat": 1.0, "monthly": 1.0, "usual": 1.0}
        server.client.hset("state", "figure", 2)
        pass_time(bridge, 2)
        assert await figures(bridge) == {"heartbeat": 2.0, "monthly": 1.0, "usual": 1.0}
        pass_time(bridge, 10)
        assert await figures(bridge) == {"heartbeat": 2.0, "monthly": 1.0, "usual": 2.0}


async def test_an_older_answer_stands_in_for_as_long_as_the_metric_allows(own_server: RedisServer) -> None:
    async with bridge_on(own_server) as bridge:
        own_server.client.hset("state", "figure", 1)
        await figures(bridge)
        own_server.stop()
        pass_time(bridge, 800)
        assert await figures(bridge) == {"heartbeat": "error", "monthly": 1.0, "usual": 1.0}
        pass_time(bridge, 800)
        assert await figures(bridge) == {"heartbeat": "error", "monthly": 1.0, "usual": "error"}
