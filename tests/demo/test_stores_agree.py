"""What the feed wrote into unlike stores says the same thing, and a second later it still does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from demo.feed import LiveFeed
from tests.servers.world import Stores, running_stores


def open_in_redis(stores: Stores) -> set[str]:
    return set(stores.redis.client.zrange("trade_state:open", 0, -1))


def open_in_clickhouse(stores: Stores) -> set[str]:
    newest: dict[str, Any] = {}
    for row in stores.rows("SELECT toString(trade_id) AS id, toString(state) AS state, version FROM trades ORDER BY version"):
        newest[row["id"]] = row["state"]
    return {trade for trade, state in newest.items() if state == "executed"}


def counted_in_clickhouse(stores: Stores) -> int:
    [row] = stores.rows(
        "SELECT sum(open_positions) AS open FROM account_snapshots WHERE ts = (SELECT max(ts) FROM account_snapshots)"
    )
    return int(row["open"])


def test_stores_agree_on_history_and_go_on_agreeing_live(tmp_path: Path) -> None:
    with running_stores(tmp_path, hours=2) as stores:
        assert open_in_redis(stores) == open_in_clickhouse(stores)
        feed = LiveFeed(stores.world, stores.writers, stores.until_ms)
        # To a tick's instant, by steps of a second and by one long step, as after a pause.
        for now_ms in (stores.until_ms + 1000, stores.until_ms + 2000, stores.until_ms + 65_000):
            feed.advance(now_ms)
        assert open_in_redis(stores) == open_in_clickhouse(stores)
        assert counted_in_clickhouse(stores) == len(open_in_redis(stores))
        ticks = stores.rows(
            "SELECT toUnixTimestamp64Milli(ts) AS at, count() AS n FROM account_snapshots GROUP BY at ORDER BY at"
        )
        steps = {later["at"] - sooner["at"] for sooner, later in pairwise(ticks)}
        assert (steps, {row["n"] for row in ticks}) == ({10_000}, {stores.world.accounts})
