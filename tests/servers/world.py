"""A small simulated world in four real stores, and a bridge over them whose clock stands still."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import numpy as np
from fastapi import FastAPI

from app.config import Settings, settings_from
from app.main import build_service
from demo.clickhouse_writer import ClickHouseWriter
from demo.duckdb_writer import DuckDBWriter
from demo.feed import Writers
from demo.filling import fill_clickhouse, fill_duckdb, fill_prometheus, scrapes
from demo.market import Ints
from demo.redis_filling import fill_redis
from demo.redis_writer import RedisWriter
from demo.stores import free_port, prometheus_store
from demo.world import HOUR_MS, World
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.eventful import make_eventful
from tests.servers.redis import RedisServer

#: `minutes` has a sample a minute; rates need four of them.
MIN_WINDOW_S = 240


@dataclass(frozen=True, slots=True)
class Stores:
    """The running stores, the world that is in them, and how far it goes."""

    world: World
    until_ms: int
    redis: RedisServer
    clickhouse: ClickHouseServer
    snapshots: Path
    prometheus_port: int
    writers: Writers

    def rows(self, sql: str) -> list[Mapping[str, Any]]:
        """What ClickHouse answers to a statement of ours."""
        answer = self.clickhouse.execute(
            f"{sql} FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0", "trade_system"
        )
        return [json.loads(line) for line in answer.splitlines()]

    def settings(self, fresh_s: float = 0.0, settled_s: float = 1200.0, **ports: int) -> Settings:
        """The bridge's settings for these stores; `ports` puts a proxy's port in the place of a store's."""
        policy = {"fresh_s": fresh_s, "settled_s": settled_s}
        live = {"connect": {"kind": "redis", "port": ports.get("redis", self.redis.port)}, "policy": policy}
        reached = {"port": ports.get("clickhouse", self.clickhouse.port), "password": self.clickhouse.password}
        prometheus = f"http://127.0.0.1:{ports.get('prometheus', self.prometheus_port)}"
        sources = {
            **dict.fromkeys(("rts", "ris", "rtss", "rtrs"), live),
            "clickhouse": {
                "connect": {"kind": "clickhouse", **reached},
                "policy": policy,
            },
            "duckdb": {"connect": {"kind": "duckdb", "snapshots": str(self.snapshots), "poll_s": 0}, "policy": policy},
            "prometheus": {"connect": {"kind": "prometheus", "url": prometheus, "min_window_s": MIN_WINDOW_S}, "policy": policy},
        }
        return settings_from({"sources": sources, "agent": {"port": None}}, "test")

    def app(self, fresh_s: float = 0.0, now_ms: int | None = None, **ports: int) -> FastAPI:
        """A bridge over the stores; its clock stands still at the world's end unless told otherwise."""
        stands_at = self.until_ms if now_ms is None else now_ms
        return build_service(self.settings(fresh_s, **ports), lambda: stands_at).app


def unhurried(settings: Settings) -> Settings:
    """The settings with time limits that a busy machine does not reach: for tests that ask whether an answer is right."""
    policy = {"attempt_timeout_s": 20.0, "total_timeout_s": 25.0, "patience_s": 20.0, "failures": 100}
    sources = {}
    for name, one in settings.sources.items():
        limits = {"reply_timeout_s", "max_execution_time_s"} & type(one.connect).model_fields.keys()
        connect = one.connect.model_copy(update=dict.fromkeys(limits, 20.0))
        sources[name] = one.model_copy(update={"connect": connect, "policy": one.policy.model_copy(update=policy)})
    request = settings.request.model_copy(update={"budget_s": 28.0})
    return settings.model_copy(update={"sources": sources, "request": request})


def keeping_nothing(settings: Settings) -> Settings:
    """The settings of a bridge that asks its stores each time, also a snapshot that has not changed."""
    sources = {
        name: one.model_copy(update={"policy": one.policy.model_copy(update={"cache_bytes": 0, "cache_entries": 0})})
        for name, one in settings.sources.items()
    }
    request = settings.request.model_copy(update={"ready_bytes": 0})
    return settings.model_copy(update={"sources": sources, "request": request})


def minutes(world: World, until_ms: int) -> Ints:
    """When a Prometheus has scraped, in tests that need no more of it: once a minute, as often as the demo's before that."""
    coarse = scrapes(world, until_ms)
    return np.concatenate((coarse[coarse < world.fine_from_ms], np.arange(world.fine_from_ms, until_ms + 1, 60_000)))


def _fill_all(world: World, writers: Writers, prometheus: Path, until_ms: int) -> None:
    """All stores side by side: ClickHouse and promtool work in processes of their own."""
    assert writers.clickhouse
    with ThreadPoolExecutor(4) as threads:
        filling = [
            threads.submit(fill_redis, world, writers.redis, until_ms),
            threads.submit(fill_clickhouse, world, writers.clickhouse, until_ms),
            threads.submit(fill_duckdb, world, writers.duckdb, until_ms),
            threads.submit(fill_prometheus, world, prometheus, minutes(world, until_ms)),
        ]
        for each in filling:
            each.result()


@contextmanager
def running_stores(
    folder: Path, hours: int = 24, instances: int = 4, seed: int = 7, eventful: bool = True, days_before: int = 0
) -> Iterator[Stores]:
    """Redis, ClickHouse, DuckDB and Prometheus, real each, with the last `hours` of a world that ends a few minutes ago.

    The days before these hours are sampled as the demo samples its older days (`World`).
    An eventful one has a trade a minute on each terminal: a small world needs them, a large one has trades enough.
    """
    until_ms = time.time_ns() // 1_000_000 // 60_000 * 60_000 - 180_000 + 5_000
    fine_from_ms = until_ms - hours * HOUR_MS
    world = World(seed, instances, fine_from_ms - 24 * days_before * HOUR_MS, fine_from_ms)
    world.extend(until_ms + 2 * HOUR_MS)
    if eventful:
        make_eventful(world, until_ms)
    with ExitStack() as stack:
        (folder / "redis").mkdir()
        server = stack.enter_context(RedisServer(folder / "redis"))
        (folder / "clickhouse").mkdir()
        clickhouse = ClickHouseServer(folder / "clickhouse", "world").start()
        stack.callback(clickhouse.close)
        stack.callback(clickhouse.stop)
        client = clickhouse_connect.get_client(host=clickhouse.host, port=clickhouse.port, password=clickhouse.password)
        stack.callback(client.close)
        duckdb_writer = DuckDBWriter(folder / "duckdb")
        stack.callback(duckdb_writer.close)
        writers = Writers(RedisWriter(server.client), ClickHouseWriter(client), duckdb_writer)
        _fill_all(world, writers, folder / "prometheus", until_ms)
        port = stack.enter_context(prometheus_store(folder / "prometheus", free_port()))
        yield Stores(world, until_ms, server, clickhouse, folder / "duckdb" / "snapshots", port, writers)
