"""Fills the stores with 24 hours of history, then feeds them the same world second by second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from demo.accounts import AccountStates, closing, instants, opening_at, states, ticks
from demo.clickhouse_writer import ClickHouseWriter
from demo.duckdb_writer import DuckDBWriter
from demo.filling import fill_clickhouse, fill_duckdb, fill_prometheus, scrapes
from demo.folder import hold_emptied
from demo.gauges import exposition, families
from demo.progress import shown_progress
from demo.redis_filling import RefilledRedis, fill_redis
from demo.redis_writer import STREAM_LENGTH, RedisWriter
from demo.stores import Exporter, has_prometheus, prometheus_store, redis_store
from demo.world import HOUR_MS, QUIET_INSTANCES, TICK_MS, World

#: the largest simulated system: a thousand accounts, and what ClickHouse keeps of their samples
MOST_INSTANCES, MOST_DAYS = 500, 90
_AHEAD_MS = 2 * HOUR_MS
_PUBLISH_MS = 10_000
# the least time between two snapshots, as a multiple of what one takes
_PUBLISH_PAUSE = 30
# fakeredis would need seconds for a longer stream.
_EMBEDDED_STREAM = 1000
_REDIS_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The size of the world, the folder of its stores (an earlier demo's are wiped), and the function that reports progress."""

    folder: Path
    seed: int = 7
    instances: int = 12
    days: int = 1
    say: Callable[..., None] = print


@dataclass(frozen=True, slots=True)
class Writers:
    """The writers of all stores."""

    redis: RedisWriter
    clickhouse: ClickHouseWriter | None
    duckdb: DuckDBWriter


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """The stores as settings of the bridge, a line about each, and the task that feeds them."""

    sources: Mapping[str, Any]
    facts: Sequence[str]
    feed: asyncio.Task[None]


class LiveFeed:
    """Advances the world in real time."""

    def __init__(self, world: World, writers: Writers, since_ms: int) -> None:
        self._world = world
        self._writers = writers
        self._since_ms = since_ms
        self._before = opening_at(world, instants(world, since_ms))
        self._published_ms = since_ms
        self._publish_every_ms = _PUBLISH_MS

    def advance(self, now_ms: int) -> None:
        """Write everything that happened until `now_ms` (a full second)."""
        world, writers, since_ms = self._world, self._writers, self._since_ms
        world.extend(now_ms + _AHEAD_MS)
        passed = ticks(since_ms + 1, now_ms)
        if writers.clickhouse is not None:
            writers.clickhouse.insert_trades(world, since_ms, now_ms)
            writers.clickhouse.insert_events(world, since_ms, now_ms)
        if len(passed):
            self._write_tick(states(world, passed, self._before), now_ms)
        writers.redis.write(world, states(world, np.array([now_ms]), self._before), since_ms, now_ms)
        self._since_ms = now_ms

    def _write_tick(self, found: AccountStates, now_ms: int) -> None:
        writers = self._writers
        if writers.clickhouse is not None:
            writers.clickhouse.insert_ticks(self._world, found)
        writers.redis.write_samples(self._world, found, now_ms)
        writers.duckdb.insert_ticks(self._world, found)
        self._before = closing(found)
        if now_ms - self._published_ms >= self._publish_every_ms:
            begun_s = time.perf_counter()
            writers.duckdb.publish(int(found.at_ms[-1]))
            # A large file takes a second to copy: then it is published less often.
            self._publish_every_ms = max(_PUBLISH_MS, round(_PUBLISH_PAUSE * (time.perf_counter() - begun_s) * 1000))
            self._published_ms = now_ms

    async def run(self) -> None:
        """Advance once a second, for ever. After a slow second, the next one catches up."""
        while True:
            now_ms = time.time_ns() // 1_000_000
            if now_ms // 1000 * 1000 > self._since_ms:
                await _in_whole(self.advance, now_ms // 1000 * 1000)
            await asyncio.sleep(1 - time.time() % 1)


async def _in_whole(work: Callable[[int], None], now_ms: int) -> None:
    """Run this in a thread to its end, even when cancelled: a thread goes on, and the stores must be open until then."""
    running = asyncio.ensure_future(asyncio.to_thread(work, now_ms))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


@asynccontextmanager
async def running_demo(options: DemoOptions) -> AsyncIterator[RunningDemo]:
    """The stores, filled with history, and fed live until the end of the block."""
    with hold_emptied(options.folder):
        async with _filled_demo(options) as running:
            yield running


@asynccontextmanager
async def _filled_demo(options: DemoOptions) -> AsyncIterator[RunningDemo]:
    begun_s = time.perf_counter()
    until_ms = time.time_ns() // 1_000_000_000 * 1000
    begins_ms, fine_from_ms = (until_ms - (24 * days + 1) * HOUR_MS for days in (options.days, 1))
    world = World(options.seed, options.instances, begins_ms, fine_from_ms)
    world.extend(until_ms + _AHEAD_MS)
    options.say(*_world_lines(world, options.days))
    async with AsyncExitStack() as stack:
        port, redis_fact = await _enter_in_thread(stack, redis_store(options.folder / "redis"))
        client = stack.enter_context(redis.Redis(port=port, socket_timeout=_REDIS_TIMEOUT_S, retry=Retry(NoBackoff(), 0)))
        engine_path = options.folder / "clickhouse"
        engine = await asyncio.to_thread(_open_engine, engine_path)
        if engine is not None:
            stack.callback(engine.close)
        duckdb_writer = DuckDBWriter(options.folder / "duckdb")
        stack.callback(duckdb_writer.close)
        writers = Writers(
            RefilledRedis(client, _EMBEDDED_STREAM if "embedded" in redis_fact else STREAM_LENGTH),
            ClickHouseWriter(engine) if engine else None,
            duckdb_writer,
        )
        await _fill_stores(world, writers, options, until_ms)
        prometheus_port = await _start_prometheus(stack, options, world, until_ms) if has_prometheus() else None
        feed = asyncio.create_task(LiveFeed(world, writers, until_ms).run())
        stack.push_async_callback(_end_feed, feed)
        options.say(f"stores filled in {time.perf_counter() - begun_s:.1f} s")
        yield RunningDemo(
            _source_settings(options, port, engine is not None, prometheus_port),
            _store_facts(redis_fact, engine is not None, prometheus_port),
            feed,
        )


def _world_lines(world: World, days: int) -> list[str]:
    size = f"{world.instances} instances, {world.accounts} accounts, {len(world.trades.number)} trades"
    if days == 1:
        return [f"simulated 24 h: {size}"]
    quiet = f"; as many trades as {QUIET_INSTANCES} instances have" if world.instances > QUIET_INSTANCES else ""
    return [
        f"simulated {days} days: {size}",
        "the last 24 h are sampled every 10 s, the days before them every 10 minutes (in Prometheus every 4 minutes, without"
        f" heartbeats{quiet})",
    ]


async def _enter_in_thread(stack: AsyncExitStack, manager: Any) -> Any:
    entered = await asyncio.to_thread(manager.__enter__)
    stack.push(manager)
    return entered


def _open_engine(path: Path) -> Any:
    """The embedded ClickHouse engine; None if it is not installed (Windows)."""
    try:
        return clickhouse_connect.get_client(interface="chdb", path=str(path))
    except ImportError:
        return None


async def _fill_stores(world: World, writers: Writers, options: DemoOptions, until_ms: int) -> None:
    at_ms, scraped_ms = instants(world, until_ms), scrapes(world, until_ms)
    snapshots, trades = f"{world.accounts * len(at_ms):,} account snapshots", f"{len(world.trades.number):,} trades"
    with shown_progress(options.say) as progress:
        async with asyncio.TaskGroup() as group:

            def fill(store: str, rows: str, work: Callable[..., None], *given: Any) -> None:
                group.create_task(asyncio.to_thread(work, world, *given, progress.track(store, rows)))

            fill("Redis", "the state now, an hour of samples", fill_redis, writers.redis, until_ms)
            fill("DuckDB", snapshots, fill_duckdb, writers.duckdb, until_ms)
            if writers.clickhouse is not None:
                fill("ClickHouse", f"{snapshots}, {trades}", fill_clickhouse, writers.clickhouse, until_ms)
            if has_prometheus():
                fill("Prometheus", f"{len(scraped_ms):,} scrapes", fill_prometheus, options.folder / "prometheus", scraped_ms)


async def _start_prometheus(stack: AsyncExitStack, options: DemoOptions, world: World, until_ms: int) -> int:
    known = {"until_ms": 0, "families": list(families(world))}

    async def page() -> str:
        if known["until_ms"] != world.until_ms:
            known.update(until_ms=world.until_ms, families=await asyncio.to_thread(lambda: list(families(world))))
        return exposition(known["families"], time.time_ns() // 1_000_000)  # type: ignore[arg-type]  # a list of families

    server = await asyncio.start_server(Exporter(page).answer, "127.0.0.1", 0)
    stack.callback(server.close)
    exporter_port = server.sockets[0].getsockname()[1]
    folder = options.folder / "prometheus"
    # The live feed fills the other stores' gap since `until_ms`. Prometheus' gap must be filled here.
    missed = ticks(until_ms + 1, time.time_ns() // 1_000_000)
    if len(missed):
        await asyncio.to_thread(fill_prometheus, world, folder, missed)
    port: int = await _enter_in_thread(stack, prometheus_store(folder, exporter_port))
    return port


async def _end_feed(feed: asyncio.Task[None]) -> None:
    feed.cancel()
    await asyncio.wait((feed,))


def _source_settings(options: DemoOptions, redis_port: int, has_engine: bool, prometheus_port: int | None) -> dict[str, Any]:
    live = {"connect": {"kind": "redis", "port": redis_port}, "policy": {"attempt_timeout_s": 1.0, "total_timeout_s": 2.2}}
    clickhouse = {"kind": "clickhouse", "interface": "chdb", "path": str(options.folder / "clickhouse"), "enabled": has_engine}
    prometheus = {
        "kind": "prometheus",
        "url": f"http://127.0.0.1:{prometheus_port or 9090}",
        "enabled": prometheus_port is not None,
        # four samples of the history, which has one every 10 s
        "min_window_s": 4 * TICK_MS // 1000,
    }
    return {
        **dict.fromkeys(("rts", "ris", "rtss", "rtrs"), live),
        "clickhouse": {"connect": clickhouse},
        "duckdb": {"connect": {"kind": "duckdb", "snapshots": str(options.folder / "duckdb" / "snapshots")}},
        "prometheus": {"connect": prometheus},
    }


def _store_facts(redis_fact: str, has_engine: bool, prometheus_port: int | None) -> tuple[str, ...]:
    engine = "embedded (chdb, the ClickHouse engine in this process)"
    missing = "not configured (prometheus and promtool are not on the PATH): its metrics come from their fallbacks, marked"
    return (
        f"Redis      {redis_fact}",
        f"ClickHouse {engine if has_engine else 'not configured (chdb is not installed): what needs it says so'}",
        "DuckDB     real (published snapshots)",
        f"Prometheus {missing if prometheus_port is None else f'real (prometheus on port {prometheus_port})'}",
    )
