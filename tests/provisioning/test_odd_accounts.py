"""The catalogue as it is provisioned, asked of accounts that are odd: residues, negative amounts, several currencies."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import chdb
import duckdb
import pytest

from app.catalog.loading import load_folder
from app.errors import SourceRejected
from app.model import Frame, Matcher, TimeRange
from app.sources.base import Ask, Read
from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseSource
from app.sources.duckdb.source import DuckDBConfig
from app.sources.redis.source import RedisConfig
from tests.frames import shown
from tests.provisioning.agreements import ROOT
from tests.servers.redis import RedisServer
from tests.servers.snapshots import snapshot_name

KINDS = {"rts": "redis", "rtrs": "redis", "rtss": "redis", "ris": "redis"} | {
    name: name for name in ("duckdb", "clickhouse", "prometheus")
}
CATALOGUE = load_folder(ROOT / "provisioning/catalog", KINDS)
BUCKET = TimeRange(600_000, 660_000, 60_000)
NOW_MS = 630_000
#: The tables forget what is years old.
MINUTE_MS = int(time.time()) // 60 * 60_000
TODAY = TimeRange(MINUTE_MS - 60_000, MINUTE_MS, 60_000)


def ask(metric: str, now_ms: int = 0, *by: str) -> Ask:
    return Ask(metric, BUCKET, by, (), now_ms)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(redis: RedisServer) -> RedisServer:
    redis.client.flushall()
    return redis


async def live(server: RedisServer, metric: str, *by: str) -> Frame:
    read = CATALOGUE.metric(metric).live
    assert read is not None
    source = RedisConfig(port=server.port).build("rts")
    try:
        return await source.fetch(read.statement(ask(metric, NOW_MS, *by)))
    finally:
        await source.close()


async def history(folder: Path, metric: str) -> Frame:
    read = CATALOGUE.metric(metric).history
    assert isinstance(read, Read)
    source = DuckDBConfig(snapshots=folder, poll_s=0).build("duckdb")
    try:
        return await source.fetch(read.statement(ask(metric)))
    finally:
        await source.close()


def snapshot(folder: Path, *accounts: tuple[float | None, float | None, float | None]) -> None:
    """A snapshot whose amounts are floats, as a site's own writer may have them."""
    file = folder / snapshot_name(660_000)
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            "CREATE TABLE account_snapshots (ts TIMESTAMP_MS, account_id VARCHAR, broker_id VARCHAR, "
            "equity DOUBLE, margin DOUBLE, peak_equity DOUBLE)"
        )
        for place, amounts in enumerate(accounts):
            connection.execute(
                "INSERT INTO account_snapshots VALUES (make_timestamp_ms(605000), ?, 'B', ?, ?, ?)", [f"A{place}", *amounts]
            )
    (folder / "latest").write_text(file.name + "\n", encoding="utf-8")


def hashes(server: RedisServer, *accounts: tuple[float | None, float | None, float | None]) -> None:
    for place, amounts in enumerate(accounts):
        fields = dict(zip(("equity", "margin", "peak_equity"), ("" if one is None else one for one in amounts), strict=True))
        server.client.hset(f"account_state:A{place}", mapping={**fields, "last_updated_at": NOW_MS, "broker_id": "B"})
        server.client.sadd("account_state:index", f"A{place}")


RESIDUE, GONE = 3.5527136788005e-15, -3.5527136788005e-15


@pytest.mark.parametrize(
    ("metric", "accounts", "expected"),
    [
        ("margin_level", [(1000, GONE, 0)], None),
        ("margin_level", [(1000, RESIDUE, 0)], None),
        ("margin_level", [(1000, -500, 0)], None),
        ("margin_level", [(0, 0, 0)], None),
        ("margin_level", [(1000, 0.0001, 0)], 1e9),
        ("margin_level", [(1000, GONE, 0), (500, 250, 0)], 600),
        ("margin_level", [(1000, 500, 0), (500, 250, 0)], 200),
        ("margin_level", [(-10, 500, 0)], -2),
        ("drawdown", [(-100, 0, -20)], None),
        ("drawdown", [(-100, 0, 0)], None),
        ("drawdown", [(-100, 0, RESIDUE)], None),
        ("drawdown", [(250, 0, 200)], 0),
        ("drawdown", [(150, 0, 200)], 25),
        ("drawdown", [(-20, 0, 200)], 110),
        ("drawdown", [(-100, 0, -20), (150, 0, 200)], 25),
        ("drawdown", [(None, 0, 200)], None),
    ],
)
async def test_what_is_live_and_what_is_history_have_one_meaning_of_nothing(
    server: RedisServer, tmp_path: Path, metric: str, accounts: list[tuple[float, float, float]], expected: float | None
) -> None:
    hashes(server, *accounts)
    snapshot(tmp_path, *accounts)
    found = [shown(frame)[""][600_000] for frame in (await live(server, metric), await history(tmp_path, metric))]
    assert found == [None if expected is None else pytest.approx(expected)] * 2


@pytest.mark.parametrize("metric", ["equity", "balance", "margin", "free_margin", "floating_pnl", "margin_level"])
async def test_accounts_in_several_currencies_are_not_added_up(server: RedisServer, metric: str) -> None:
    for name, currency in (("A1", "EUR"), ("A2", "USC")):
        amounts = dict.fromkeys(("equity", "balance", "margin", "free_margin", "floating_pnl"), 10)
        server.client.hset(f"account_state:{name}", mapping={**amounts, "last_updated_at": NOW_MS, "currency": currency})
        server.client.sadd("account_state:index", name)
    together, alone = await live(server, metric), await live(server, metric, "account")
    assert (shown(together), together.partial) == ({"": {600_000: None}}, True)
    assert ([name for name, values in shown(alone).items() if values], alone.partial) == (["account=A1", "account=A2"], False)
    assert None not in [value for values in shown(alone).values() for value in values.values()]


@pytest.fixture
async def clickhouse(tmp_path: Path) -> AsyncIterator[ClickHouseSource]:
    text = (ROOT / "provisioning/clickhouse/schema.sql").read_text(encoding="utf-8")
    [table] = re.findall(r"CREATE TABLE IF NOT EXISTS trade_system\.trades \(.*?;", text, re.DOTALL)
    connection = chdb.connect(str(tmp_path))  # type: ignore[no-untyped-call]  # chdb has no types
    for statement in ("CREATE DATABASE trade_system", table):
        connection.query(statement)
    for place, currency in enumerate(("EUR", "USD", "USD")):
        connection.query(
            "INSERT INTO trade_system.trades "
            "(trade_id, account_id, symbol, point, pnl, currency, executed_at, closed_at, version) "
            f"SELECT generateUUIDv4(), 'A{place}', 'S{place}', 1, {10 * (place + 1)}, '{currency}', "
            f"fromUnixTimestamp64Milli({TODAY.from_ms}), fromUnixTimestamp64Milli({TODAY.from_ms + 1000}), 1"
        )
    connection.close()
    source = ClickHouseConfig(interface="chdb", path=tmp_path, database="trade_system").build("clickhouse")
    yield source
    await source.close()


async def test_deals_in_several_currencies_are_not_added_up_and_each_account_has_its_own(clickhouse: ClickHouseSource) -> None:
    read = CATALOGUE.metric("total_pnl").history
    assert read is not None
    with pytest.raises(SourceRejected, match="deals in several currencies are not added up; ask by account"):
        await clickhouse.fetch(read.statement(Ask("total_pnl", TODAY)))
    apart = await clickhouse.fetch(read.statement(Ask("total_pnl", TODAY, ("account",))))
    assert shown(apart) == {f"account=A{place}": {TODAY.from_ms: 10.0 * (place + 1)} for place in range(3)}
    in_dollars = Ask("total_pnl", TODAY, (), (Matcher("account", "!=", ("A0",)),))
    assert shown(await clickhouse.fetch(read.statement(in_dollars))) == {"": {TODAY.from_ms: 50.0}}
