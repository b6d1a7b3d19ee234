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

from demo.accounts import AccountStates, Opening, closing, opening, states, ticks
from demo.clickhouse_writer import ClickHouseWriter
from demo.duckdb_writer import DuckDBWriter
from demo.folder import hold_emptied
from demo.gauges import exposition, families, openmetrics
from demo.market import Ints
from demo.redis_filling import RefilledRedis, fill_redis
from demo.redis_writer import STREAM_LENGTH, RedisWriter
from demo.stores import Exporter, backfill, has_prometheus, prometheus_store, redis_store
from demo.world import HOUR_MS, TICK_MS, World

_AHEAD_MS = 2 * HOUR_MS
_PUBLISH_MS = 10_000
# the time that a new block of Prometheus covers
_BLOCK_MS = 2 * HOUR_MS
# fakeredis would need seconds for a longer stream.
_EMBEDDED_STREAM = 1000
_REDIS_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The size of the world, the folder of its stores (an earlier demo's are wiped), and the function that reports progress."""

    folder: Path
    seed: int = 7
    instances: int = 12
    hours: int = 24
    say: Callable[[str], None] = print


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


def fill_clickhouse(world: World, writer: ClickHouseWriter, until_ms: int) -> None:
    """Create the tables and write everything from the world's start to `until_ms`."""
    writer.create_tables()
    write_history(world, writer, until_ms)


def write_history(world: World, writer: ClickHouseWriter, until_ms: int) -> None:
    """Write everything from the world's start to `until_ms` into existing tables."""
    writer.insert_trades(world, world.start_ms, until_ms)
    writer.insert_ticks(world, states(world, ticks(world.start_ms, until_ms), opening(world)))
    writer.insert_events(world, world.start_ms, until_ms)


def fill_duckdb(world: World, writer: DuckDBWriter, until_ms: int) -> None:
    """Write every tick up to `until_ms` and publish a first snapshot."""
    every = ticks(world.start_ms, until_ms)
    writer.insert_ticks(world, states(world, every, opening(world)))
    writer.publish(int(every[-1]))


def fill_prometheus(world: World, folder: Path, at_ms: Ints) -> None:
    """Make blocks under `folder`/data with a sample of every series at each of the ascending instants."""
    folder.mkdir(parents=True, exist_ok=True)
    known, text = list(families(world)), folder / "backfill.txt"
    # One block at a time, because promtool reads the whole text again for each block.
    for instants in np.split(at_ms, np.flatnonzero(np.diff(at_ms // _BLOCK_MS)) + 1):
        with text.open("w", encoding="utf-8") as file:
            file.writelines(openmetrics(known, instants))
        backfill(text, folder / "data")
        text.unlink()


class LiveFeed:
    """Advances the world in real time."""

    def __init__(self, world: World, writers: Writers, since_ms: int) -> None:
        self._world = world
        self._writers = writers
        self._since_ms = since_ms
        self._before = closing(states(world, np.array([since_ms // TICK_MS * TICK_MS]), _opening_before(world, since_ms)))
        self._published_ms = since_ms

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
        if now_ms - self._published_ms >= _PUBLISH_MS:
            writers.duckdb.publish(int(found.at_ms[-1]))
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


def _opening_before(world: World, until_ms: int) -> Opening:
    """The accounts at the last but one tick up to `until_ms`."""
    return closing(states(world, ticks(world.start_ms, until_ms // TICK_MS * TICK_MS - 1), opening(world)))


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
    world = World(options.seed, options.instances, until_ms - (options.hours + 1) * HOUR_MS)
    world.extend(until_ms + _AHEAD_MS)
    options.say(
        f"simulated {options.hours} h: {world.instances} instances, {world.accounts} accounts, {len(world.trades.number)} trades"
    )
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
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(fill_redis, world, writers.redis, until_ms))
        group.create_task(asyncio.to_thread(fill_duckdb, world, writers.duckdb, until_ms))
        if writers.clickhouse is not None:
            group.create_task(asyncio.to_thread(fill_clickhouse, world, writers.clickhouse, until_ms))
        if has_prometheus():
            at_ms = ticks(world.start_ms, until_ms)
            group.create_task(asyncio.to_thread(fill_prometheus, world, options.folder / "prometheus", at_ms))


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
