"""What the feed wrote into unlike stores says the same thing, and a second later it still does."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb

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


def amounts(stores: Stores) -> tuple[list[str], list[str]]:
    """The sum of every amount and the number of rows of `account_snapshots`, as ClickHouse and DuckDB have them."""
    names = ("balance", "credit", "equity", "margin", "free_margin", "floating_pnl", "peak_equity")
    asked = f"SELECT count(), {', '.join(f'sum({name})' for name in names)} FROM account_snapshots"
    text = stores.clickhouse.execute(asked, "trade_system")
    snapshot = stores.snapshots / (stores.snapshots / "latest").read_text(encoding="utf-8").strip()
    with duckdb.connect(str(snapshot), read_only=True) as database:
        [row] = database.execute(asked).fetchall()
    return [f"{Decimal(cell):.4f}" for cell in text.split("\t")], [f"{cell:.4f}" for cell in row]


def test_both_histories_have_the_same_amounts_to_the_last_digit(tmp_path: Path) -> None:
    with running_stores(tmp_path, hours=1) as stores:
        in_clickhouse, in_duckdb = amounts(stores)
    assert (in_clickhouse, float(in_duckdb[0]) > 1000) == (in_duckdb, True)


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
