"""Each store's own client, asked alone: what a program has that does without the bridge. The quickest reasonable way of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import clickhouse_connect
import duckdb
import orjson
import redis.asyncio

from tests.bench.points import CLICKHOUSE_SQL, DUCKDB_SQL, MINUTE_MS, PROMQL, PointStores

#: each series' values in time order
Values = dict[str, list[float]]

_FILLED = {"{by}": "account_id AS account", "{where}": ""}


def filled(sql: str) -> str:
    """The catalogue's statement as somebody writes it by hand."""
    for name, text in _FILLED.items():
        sql = sql.replace(name, text)
    return sql


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients, ready to ask."""

    _clickhouse: Any
    _duckdb: duckdb.DuckDBPyConnection
    _http: aiohttp.ClientSession
    _prometheus: str
    _redis: Any

    @property
    def described(self) -> Mapping[str, str]:
        """What each is, for the report."""
        return {
            "of_clickhouse": "ClickHouse, 100 x 1000 points, against clickhouse-connect's asyncio client (columns)",
            "of_duckdb": "DuckDB, 100 x 1000 points, against duckdb's execute().fetchnumpy()",
            "of_prometheus": "Prometheus, 100 x 1000 points, against aiohttp (uncompressed) and orjson",
            "of_redis": "Redis, 1000 accounts, against redis-py's asyncio pipeline of HMGET",
        }

    @property
    def values(self) -> Mapping[str, Callable[[Any], Values]]:
        """What each has answered, in one form."""
        return {
            "of_clickhouse": lambda columns: _of_columns(columns[0], columns[1], columns[2]),
            "of_duckdb": lambda found: _of_columns(*(found[name].tolist() for name in ("time", "account", "value"))),
            "of_prometheus": lambda answer: {
                one["metric"]["account"]: [float(value) for _, value in one["values"]] for one in answer["data"]["result"]
            },
            "of_redis": lambda accounts: {name: [float(fields["equity"])] for name, fields in accounts.items()},
        }

    async def clickhouse(self, from_ms: int, to_ms: int) -> Any:
        """The columns. Rows, NumPy and Arrow take the same within a tenth: the engine takes nearly all of it."""
        params = {"step_ms": MINUTE_MS, "from_ms": from_ms, "to_ms": to_ms}
        result = await self._clickhouse.query(filled(CLICKHOUSE_SQL), parameters=params, column_oriented=True)
        return result.result_columns

    async def duckdb(self, from_ms: int, to_ms: int) -> Any:
        """NumPy columns, on a cursor of its own."""
        params = {"step_ms": MINUTE_MS, "from_ms": from_ms, "to_ms": to_ms}
        with self._duckdb.cursor() as cursor:
            return cursor.execute(filled(DUCKDB_SQL), params).fetchnumpy()

    async def prometheus(self, from_ms: int, to_ms: int) -> Any:
        """The parsed answer, its numbers still text."""
        asked = PROMQL.replace("{by}", "account").replace("{where}", "")
        step_s = MINUTE_MS // 1000
        params = {"query": asked, "start": from_ms // 1000 + step_s, "end": to_ms // 1000, "step": step_s}
        async with self._http.post(f"{self._prometheus}/api/v1/query_range", data=params) as reply:
            return orjson.loads(await reply.read())

    async def redis(self) -> Any:
        """A dictionary of the wanted fields for each account of the index."""
        names = await self._redis.zrange("account:index", 0, -1)
        fields = ("equity", "broker_id")
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hmget(f"account:{name}", fields)
        found = await pipe.execute()
        return {name: dict(zip(fields, values, strict=True)) for name, values in zip(names, found, strict=True)}


def _of_columns(times: Any, names: Any, values: Any) -> Values:
    series: dict[str, list[tuple[int, float]]] = {}
    for time, name, value in zip(times, names, values, strict=True):
        series.setdefault(name, []).append((time, value))
    return {name: [value for _, value in sorted(points)] for name, points in series.items()}


@asynccontextmanager
async def clients(stores: PointStores) -> AsyncIterator[Clients]:
    """All of them, connected."""
    async with AsyncExitStack() as stack:
        server = stores.clickhouse
        clickhouse = await clickhouse_connect.get_async_client(
            host=server.host, port=server.port, password=server.password, database="trade_system", compress=False
        )
        stack.push_async_callback(clickhouse.close)
        [snapshot] = stores.snapshots.glob("snap-*.duckdb")
        database = stack.enter_context(duckdb.connect(str(snapshot), read_only=True, config={"threads": "1"}))
        uncompressed = {"Accept-Encoding": "identity"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=uncompressed, trust_env=False))
        live: Any = redis.asyncio.Redis(port=stores.redis.port, decode_responses=True, protocol=2)
        stack.push_async_callback(live.aclose)
        yield Clients(clickhouse, database, http, f"http://127.0.0.1:{stores.prometheus_port}", live)
