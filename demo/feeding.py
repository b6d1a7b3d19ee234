"""The simulated trade feed into running stores (`python -m demo.feeding`), used by docker-compose.yml's profile `demo`.

The bridge's configuration says where the stores are. The environment has the users with write access
(BRIDGE_SOURCES__RTS__CONNECT__USERNAME=backend and so on). The tables must exist. After a restart the same world continues; to
begin another one, empty the stores and the folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import clickhouse_connect
import redis

from app.config import Settings, read_settings
from app.sources.clickhouse.address import ClickHouseAddress
from app.sources.redis.source import RedisConfig
from app.telemetry import set_up_logging
from demo.accounts import AccountStates
from demo.clickhouse_writer import ClickHouseWriter
from demo.duckdb_writer import DuckDBWriter
from demo.feed import LiveFeed, Writers
from demo.filling import fill_duckdb, write_history
from demo.gauges import exposition, families
from demo.redis_filling import fill_redis
from demo.redis_writer import RedisWriter
from demo.stores import Exporter
from demo.world import HOUR_MS, World

_log = logging.getLogger(__name__)
_AHEAD_MS = 2 * HOUR_MS


class EachRedis(RedisWriter):
    """Writes everything to every server; the bridge reads from each what its source needs."""

    def __init__(self, writers: Sequence[RedisWriter]) -> None:
        self._writers = writers

    def write(self, world: World, states: AccountStates, from_ms: int, to_ms: int) -> None:
        """See RedisWriter."""
        for writer in self._writers:
            writer.write(world, states, from_ms, to_ms)

    def write_samples(self, world: World, states: AccountStates, to_ms: int) -> None:
        """See RedisWriter."""
        for writer in self._writers:
            writer.write_samples(world, states, to_ms)


class Progress:
    """The world, and the instant until which it has been written."""

    def __init__(self, file: Path, seed: int, instances: int, hours: int, now_ms: int) -> None:
        self._file = file
        self.begun = file.exists()
        first = {"seed": seed, "instances": instances, "start_ms": now_ms - hours * HOUR_MS, "until_ms": now_ms}
        known: Mapping[str, int] = json.loads(file.read_text(encoding="utf-8")) if self.begun else first
        self._identity = {name: known[name] for name in ("seed", "instances", "start_ms")}
        self.until_ms = known["until_ms"]
        self.world = World(known["seed"], known["instances"], known["start_ms"])
        self.world.extend(self.until_ms + _AHEAD_MS)

    def note(self, until_ms: int) -> None:
        """Record that everything up to then is in the stores."""
        self.until_ms = until_ms
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(json.dumps({**self._identity, "until_ms": until_ms}), encoding="utf-8")
        unfinished.replace(self._file)


async def feed(settings: Settings, options: argparse.Namespace) -> None:
    """Fill empty stores, then write second by second, for ever."""
    options.folder.mkdir(parents=True, exist_ok=True)
    now_ms = time.time_ns() // 1_000_000_000 * 1000
    progress = Progress(options.folder / "feed.json", options.seed, options.instances, options.hours, now_ms)
    async with AsyncExitStack() as stack:
        writers = _open_writers(stack, settings, options.folder)
        if not progress.begun:
            await asyncio.to_thread(_fill_stores, progress, writers)
        server = await asyncio.start_server(Exporter(_metrics_page(progress.world)).answer, options.host, options.port)
        stack.callback(server.close)
        live = LiveFeed(progress.world, writers, progress.until_ms)
        _log.info("feeding since %d; the system's own metrics are on port %d", progress.until_ms, options.port)
        while True:
            now_ms = time.time_ns() // 1_000_000_000 * 1000
            if now_ms > progress.until_ms:
                await asyncio.to_thread(live.advance, now_ms)
                progress.note(now_ms)
            await asyncio.sleep(1 - time.time() % 1)


def _fill_stores(progress: Progress, writers: Writers) -> None:
    world, until_ms = progress.world, progress.until_ms
    fill_redis(world, writers.redis, until_ms)
    fill_duckdb(world, writers.duckdb, until_ms)
    if writers.clickhouse is not None:
        write_history(world, writers.clickhouse, until_ms)
    progress.note(until_ms)


def _open_writers(stack: AsyncExitStack, settings: Settings, folder: Path) -> Writers:
    servers: dict[tuple[str, int], RedisConfig] = {}
    clickhouse = None
    for source in settings.sources.values():
        if isinstance(source.connect, RedisConfig):
            servers.setdefault((source.connect.host, source.connect.port), source.connect)
        elif isinstance(source.connect, ClickHouseAddress) and source.connect.enabled:
            clickhouse = ClickHouseWriter(stack.enter_context(_clickhouse_client(source.connect)))
    redis_writers = [RedisWriter(stack.enter_context(_redis_client(server))) for server in servers.values()]
    duckdb_writer = DuckDBWriter(folder)
    stack.callback(duckdb_writer.close)
    return Writers(EachRedis(redis_writers), clickhouse, duckdb_writer)


def _redis_client(config: RedisConfig) -> redis.Redis:
    password = config.password.get_secret_value() if config.password else None
    return redis.Redis(config.host, config.port, config.db, username=config.username, password=password)


def _clickhouse_client(config: ClickHouseAddress) -> Any:
    secret, (host, port) = config.password.get_secret_value(), config.nodes[0]
    return clickhouse_connect.get_client(host=host, port=port, username=config.username, password=secret)


def _metrics_page(world: World) -> Any:
    async def page() -> str:
        found = await asyncio.to_thread(lambda: list(families(world)))
        return exposition(found, time.time_ns() // 1_000_000)

    return page


def main(argv: Sequence[str] | None = None) -> None:
    """Feed until stopped."""
    parser = argparse.ArgumentParser(prog="python -m demo.feeding", description="The simulated trade feed into running stores.")
    parser.add_argument("--config", type=Path, help="as for `bridge serve`")
    parser.add_argument(
        "--folder", type=Path, required=True, help="where DuckDB's live file, its snapshots and the progress are kept"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--instances", type=int, default=12, help="MT5 instances, 1 to 500")
    parser.add_argument("--hours", type=int, default=24, help="of history to begin with")
    parser.add_argument("--host", default="127.0.0.1", help="where the system's own metrics are shown to Prometheus")
    parser.add_argument("--port", type=int, default=9464)
    options = parser.parse_args(argv)
    settings = read_settings(options.config)
    set_up_logging(settings.log_level, settings.log_style)
    asyncio.run(feed(settings, options))


if __name__ == "__main__":
    main()
