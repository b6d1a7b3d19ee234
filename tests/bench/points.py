"""Stores to measure misses on: 100 accounts with a value a minute, the same in three stores, and the hashes of 1000 accounts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from tests.servers.clickhouse import ClickHouseServer
from tests.servers.prometheus import prometheus_with
from tests.servers.redis import RedisServer
from tests.servers.snapshots import snapshot_name

MINUTE_MS = 60_000
SERIES = 100
HASHES = 1000
#: what one question asks for, and how many questions there can be that begin a minute earlier each
POINTS = 1000
WINDOWS = 1000

CLICKHOUSE_SQL = """
SELECT intDiv(toUnixTimestamp64Milli(ts), {step_ms:Int64}) * {step_ms:Int64} AS time, {by}, avg(equity) AS value
FROM account_minutes
WHERE ts >= fromUnixTimestamp64Milli({from_ms:Int64}) AND ts < fromUnixTimestamp64Milli({to_ms:Int64}) {where}
GROUP BY ALL ORDER BY time"""
DUCKDB_SQL = """
SELECT epoch_ms(ts) // $step_ms * $step_ms AS time, {by}, avg(equity) AS value
FROM account_minutes
WHERE ts >= make_timestamp_ms($from_ms) AND ts < make_timestamp_ms($to_ms) {where}
GROUP BY ALL ORDER BY time"""
PROMQL = "sum by ({by}) (account_equity{where})"


def _metric(**reads: Any) -> dict[str, Any]:
    words = {"title": "Equity", "description": "For the benchmark.", "unit": "currencyUSD"}
    return words | {"aggregate": "sum", "over_time": "last", "labels": ["account"]} | reads


_COLUMN = {"account": "account_id"}
CATALOGUE = {
    "group": "bench",
    "title": "Bench",
    "labels": {name: {"title": name, "values": ["any"]} for name in ("account", "broker")},
    "metrics": {
        "of_clickhouse": _metric(history={"source": "clickhouse", "labels": _COLUMN, "sql": CLICKHOUSE_SQL}),
        "of_duckdb": _metric(history={"source": "duckdb", "labels": _COLUMN, "sql": DUCKDB_SQL}),
        "of_prometheus": _metric(history={"source": "prometheus", "query": PROMQL}),
        "of_redis": _metric(
            labels=["account", "broker"],
            live={
                "source": "rts",
                "index": "account:index",
                "hash": "account:{id}",
                "field": "equity",
                "labels": {"account": "$id", "broker": "broker_id"},
            },
        ),
    },
}


@dataclass(frozen=True, slots=True)
class PointStores:
    """The running stores and where their values end."""

    until_ms: int
    clickhouse: ClickHouseServer
    snapshots: Path
    prometheus_port: int
    redis: RedisServer

    def sources(self) -> dict[str, Any]:
        """The bridge's `sources`: every policy as it is by default."""
        clickhouse = {"kind": "clickhouse", "port": self.clickhouse.port, "password": self.clickhouse.password}
        connects: dict[str, dict[str, Any]] = {
            "clickhouse": clickhouse,
            "duckdb": {"kind": "duckdb", "snapshots": str(self.snapshots)},
            "prometheus": {"kind": "prometheus", "url": f"http://127.0.0.1:{self.prometheus_port}"},
            "rts": {"kind": "redis", "port": self.redis.port},
        }
        return {name: {"connect": connect} for name, connect in connects.items()}


@contextmanager
def point_stores(folder: Path) -> Iterator[PointStores]:
    """ClickHouse, DuckDB, Prometheus and Redis, real each, filled."""
    until_ms = time.time_ns() // 1_000_000 // MINUTE_MS * MINUTE_MS - 10 * MINUTE_MS
    times = until_ms - MINUTE_MS * np.arange(POINTS + WINDOWS, 0, -1, dtype=np.int64)
    values = np.random.default_rng(1).normal(1e5, 10, (SERIES, len(times)))
    names = [f"{100_000 + number}" for number in range(SERIES)]
    with ExitStack() as stack:
        for name in ("clickhouse", "redis", "snapshots"):
            (folder / name).mkdir(parents=True)
        clickhouse = ClickHouseServer(folder / "clickhouse", "points").start()
        stack.callback(clickhouse.close)
        stack.callback(clickhouse.stop)
        columns = [np.tile(times, SERIES), np.repeat(names, len(times)), values.ravel()]
        _fill_clickhouse(clickhouse, columns)
        _fill_duckdb(folder / "snapshots" / snapshot_name(until_ms), columns)
        port = stack.enter_context(prometheus_with(folder / "prometheus", _openmetrics(names, times, values)))
        redis = stack.enter_context(RedisServer(folder / "redis"))
        _fill_redis(redis.client)
        yield PointStores(until_ms, clickhouse, folder / "snapshots", port, redis)


def _fill_clickhouse(server: ClickHouseServer, columns: list[npt.NDArray[Any]]) -> None:
    server.execute("CREATE DATABASE trade_system")
    server.execute(
        "CREATE TABLE account_minutes (ts DateTime64(3, 'UTC'), account_id LowCardinality(String), equity Float64)"
        " ENGINE = MergeTree ORDER BY (account_id, ts)",
        "trade_system",
    )
    times, names, values = (column.tolist() for column in columns)
    lines = (f"{at / 1000:.3f}\t{name}\t{value!r}" for at, name, value in zip(times, names, values, strict=True))
    server.execute("INSERT INTO account_minutes FORMAT TabSeparated\n" + "\n".join(lines), "trade_system")


def _fill_duckdb(file: Path, columns: list[npt.NDArray[Any]]) -> None:
    with duckdb.connect(str(file)) as database:
        database.execute("CREATE TABLE account_minutes (ts TIMESTAMP_MS, account_id VARCHAR, equity DOUBLE)")
        table = dict(zip(("ms", "account_id", "equity"), columns, strict=True))
        table["account_id"] = table["account_id"].astype(object)
        database.register("filled", table)
        database.execute("INSERT INTO account_minutes SELECT make_timestamp_ms(ms), account_id, equity FROM filled")


def _openmetrics(names: list[str], times: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> str:
    """Stamped at each minute's end: a bucket is what the expression is there."""
    ends = ((times + MINUTE_MS) // 1000).tolist()
    lines = ["# TYPE account_equity gauge"]
    for name, column in zip(names, values.tolist(), strict=True):
        lines += [f'account_equity{{account="{name}"}} {value!r} {end}' for value, end in zip(column, ends, strict=True)]
    return "\n".join([*lines, "# EOF", ""])


def _fill_redis(client: Any) -> None:
    values = np.random.default_rng(2).normal(1e5, 10, (HASHES, 6))
    fields = ("balance", "credit", "equity", "margin", "free_margin", "floating_pnl")
    pipe = client.pipeline(transaction=False)
    for number, row in enumerate(values.tolist()):
        own = {"broker_id": f"broker-{number % 3}", "currency": "USD", "state": "online", "updated": number}
        pipe.hset(f"account:{number}", mapping=own | dict(zip(fields, row, strict=True)))
        pipe.zadd("account:index", {str(number): number})
    pipe.execute()
