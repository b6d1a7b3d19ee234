"""The live edge on real stores: what changes in Redis is seen at once; no bucket is doubled or missing where the sides meet."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.main import build_service
from demo.world import TICK_MS
from tests.e2e.conftest import client_of
from tests.servers.world import Stores, unhurried


@pytest_asyncio.fixture
async def client(stores: Stores) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(stores.app()) as one:
        yield one


async def newest(client: httpx.AsyncClient, metric: str, account: str) -> float:
    reply = await client.get(
        "/v1/rows", params={"metric": metric, "by": "account", "where": f"account={account}", "instant": "1"}
    )
    [row] = reply.json()["rows"]
    found: float = row["value"]
    return found


async def test_an_account_that_changes_in_redis_is_seen_with_the_next_question(client: httpx.AsyncClient, stores: Stores) -> None:
    account = stores.world.account_names[0]
    key = f"account_state:{account}"
    before = stores.redis.client.hget(key, "equity")
    try:
        stores.redis.client.hset(key, "equity", "123456.5")
        assert await newest(client, "equity", account) == 123456.5
    finally:
        stores.redis.client.hset(key, "equity", before)


async def test_a_trade_that_is_opened_is_counted_with_the_next_question(client: httpx.AsyncClient, stores: Stores) -> None:
    account, redis = stores.world.account_names[1], stores.redis.client
    before = await newest(client, "open_trades", account)
    try:
        redis.hset(
            "trade_state:new", mapping={"account_id": account, "broker_id": stores.world.broker_of(1), "state": "executed"}
        )
        redis.zadd("trade_state:open", {"new": stores.until_ms})
        opened = await newest(client, "open_trades", account)
    finally:
        redis.zrem("trade_state:open", "new")
        redis.delete("trade_state:new")
    assert (opened, await newest(client, "open_trades", account)) == (before + 1, before)


async def test_a_trade_whose_hash_is_gone_is_not_counted(client: httpx.AsyncClient, stores: Stores) -> None:
    account = stores.world.account_names[1]
    before = await newest(client, "open_trades", account)
    stores.redis.client.zadd("trade_state:open", {"gone": stores.until_ms})
    try:
        assert await newest(client, "open_trades", account) == before
    finally:
        stores.redis.client.zrem("trade_state:open", "gone")


@pytest.mark.parametrize("metric", ["equity", "open_trades"])
async def test_over_many_windows_and_steps_no_bucket_is_doubled_or_missing_at_the_seam(stores: Stores, metric: str) -> None:
    """500 windows for each metric, asked by clocks that are up to 2 s off the stores', after rows of the last ticks came late.

    Equity's history is a snapshot that ends with the last tick; open trades' last two ticks are taken out of ClickHouse and
    put back half way through, as late rows.
    """
    rng, settings = random.Random(11), unhurried(stores.settings())
    steps_s = (10, 20, 30, 60, 90, 300, 600, 3600)
    last_tick = stores.until_ms // TICK_MS * TICK_MS
    late = f"ts > fromUnixTimestamp64Milli({last_tick - TICK_MS})"
    columns = "SELECT * FROM account_snapshots WHERE"
    stores.clickhouse.execute(f"CREATE TABLE late ENGINE = Memory AS {columns} {late}", "trade_system")
    try:
        stores.clickhouse.execute(f"DELETE FROM account_snapshots WHERE {late}", "trade_system")
        for half in range(2):
            if half:
                stores.clickhouse.execute("INSERT INTO account_snapshots SELECT * FROM late", "trade_system")
            for skew_s in (-2, -1, 0, 1, 2):
                now_ms = stores.until_ms + skew_s * 1000
                async with client_of(build_service(settings, partial(int, now_ms)).app) as client:
                    for _ in range(50):
                        await assert_one_window_is_whole(client, metric, now_ms, rng.choice(steps_s), rng)
    finally:
        stores.clickhouse.execute(f"DELETE FROM account_snapshots WHERE {late}", "trade_system")
        stores.clickhouse.execute("INSERT INTO account_snapshots SELECT * FROM late", "trade_system")
        stores.clickhouse.execute("DROP TABLE late", "trade_system")


async def assert_one_window_is_whole(
    client: httpx.AsyncClient, metric: str, now_ms: int, step_s: int, rng: random.Random
) -> None:
    step_ms = step_s * 1000
    to_ms = now_ms - rng.choice((0, 0, rng.randrange(0, 3 * step_ms)))
    from_ms = to_ms - rng.randrange(step_ms, min(step_ms * 90, 12 * 3_600_000) + 1)
    params: dict[str, Any] = {"metric": metric, "from": from_ms, "to": to_ms, "step": f"{step_s}s"}
    body = (await client.get("/v1/rows", params=params)).json()
    assert body["meta"]["metrics"][metric]["status"] == "fresh", str(body["meta"])
    times = [row["time"] for row in body["rows"]]
    whole = range(from_ms // step_ms * step_ms, to_ms + (-to_ms % step_ms), step_ms)
    # The two ticks that are not there yet may be a whole bucket, where the step is no longer than they are.
    missing = set(whole) - set(times)
    late = {at for at in whole if now_ms - 4 * TICK_MS < at and step_ms <= TICK_MS} if metric == "open_trades" else set()
    assert (len(times), missing - late) == (len(set(times)), set()), (params, missing)
