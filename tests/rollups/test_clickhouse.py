"""ClickHouse's roll-ups say what its raw tables say: late rows, corrections and deletions included."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chdb
import pytest

from app.model import Statement, TimeRange
from app.sources.base import Ask
from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseSource
from app.sources.sql.rollups import send_statement, wanted_tables
from demo.schema import clickhouse_statements
from tests.rollups.drawing import CASES, HOUR_MS, SEEDS, Drawn, answer_of, drawn_statements, rolled_reads, told

ROOT = Path(__file__).parents[2]
#: three days that end within an hour that still runs
TO_MS = time.time_ns() // 1_000_000 // 60_000 * 60_000
FROM_MS = TO_MS - 72 * HOUR_MS
DATA = Drawn(
    FROM_MS,
    TO_MS,
    {"account": [f"A{n}" for n in range(6)], "broker": ["B0", "B1"], "symbol": ["EURUSD", "USDJPY", "XAUUSD"]},
)

#: A sample of each account every 10 s, a few of them missing; account 3 changes its broker; balances repeat, so extremes tie.
SAMPLES = f"""
INSERT INTO trade_system.account_snapshots
SELECT fromUnixTimestamp64Milli(toInt64({FROM_MS} + intDiv(number, 6) * 10000 + cityHash64(number, 1) % 9000)),
       concat('A', toString(number % 6)),
       if(number % 6 = 3, if(number < 60000, 'B0', 'B1'), concat('B', toString(number % 2))),
       1000 + intDiv(number, 30000), 0, toDecimal64(1000 + cityHash64(number, 2) % 900000 / 10000, 4), cityHash64(number, 3) % 50,
       7, toDecimal64(cityHash64(number, 4) % 5000 / 7, 4), 2000, cityHash64(number, 5) % 9, cityHash64(number, 6) % 3
FROM numbers({72 * 360 * 6})
WHERE cityHash64(number, 7) % 19 != 0 AND {{part}}
ORDER BY cityHash64(number, 8)"""
TRADES = f"""
INSERT INTO trade_system.trades (trade_id, account_id, broker_id, symbol, direction, state, requested_price, execution_price,
    point, retcode, pnl, currency, executed_at, closed_at, execution_latency_ms, version)
SELECT toUUID(concat('00000000-0000-4000-8000-', leftPad(toString(number), 12, '0'))), concat('A', toString(number % 6)),
       concat('B', toString(number % 2)), ['EURUSD', 'USDJPY', 'XAUUSD'][cityHash64(number, 1) % 3 + 1],
       if(cityHash64(number, 2) % 2, 'buy', 'sell'),
       multiIf({{failed}}, 'failed', {{version}} > 1, 'closed', 'executed'), 1.1,
       toDecimal64(1.1 + (cityHash64(number, 4, {{price}}) % 200 - 80) / 700000, 8), if(number % 97 = 3, 0, 0.00001),
       if({{failed}}, 10006, if(number % 5, 10009, 10010)), cityHash64(number, 5) % 100, 'USD',
       fromUnixTimestamp64Milli(toInt64({FROM_MS} + cityHash64(number, 6) % {72 * HOUR_MS})),
       if({{version}} > 1, fromUnixTimestamp64Milli(toInt64({TO_MS})), NULL), cityHash64(number, 7) % 3000, {{version}}
FROM numbers(6000) WHERE {{part}}"""
FAILED = "cityHash64(number, 3) % 11 = 0"


def fill(execute: Any) -> None:
    """Samples in two blocks, the second late; trades, late ones, their closes, corrections, and deletions of marked hours."""
    for part in ("cityHash64(number, 9) % 7 != 0", "cityHash64(number, 9) % 7 = 0"):
        execute(SAMPLES.format(part=part))
    for part in ("number % 13 != 0", "number % 13 = 0"):
        execute(TRADES.format(failed=FAILED, version=1, price=0, part=part))
    execute(TRADES.format(failed=FAILED, version=2, price=0, part=f"number % 3 != 0 AND NOT ({FAILED})"))
    execute(TRADES.format(failed="number % 2", version=3, price=1, part="number % 401 = 0"))
    doomed = "toUInt32(substring(toString(trade_id), 25)) % 499 = 0"
    execute(
        f"""INSERT INTO trade_system.rollup_gaps (source, hour, reason)
        SELECT DISTINCT 'trades', toStartOfHour(executed_at), 'a deletion' FROM trade_system.trades WHERE {doomed}"""
    )
    execute(f"ALTER TABLE trade_system.trades DELETE WHERE {doomed} SETTINGS mutations_sync = 2")


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("clickhouse")
    opened = chdb.connect(str(folder))  # type: ignore[no-untyped-call]  # chdb has no types
    opened.folder = folder
    for statement in clickhouse_statements() * 2:
        opened.query(statement)
    fill(opened.query)
    yield opened
    opened.close()


@pytest.fixture
async def source(connection: Any) -> AsyncIterator[ClickHouseSource]:
    config = ClickHouseConfig(
        interface="chdb", path=connection.folder, database="trade_system", max_rows=5_000_000, max_execution_time_s=60
    )
    found = config.build("clickhouse")
    yield found
    await found.close()


async def both(source: ClickHouseSource, statement: Statement) -> tuple[Any, Any]:
    """The answer of the roll-ups, and that of the raw tables."""
    rolled, raw = await source.fetch(statement), await source.fetch(replace(send_statement(statement), read=None))
    return answer_of(rolled, statement), answer_of(raw, statement)


def is_rolled(statement: Statement) -> bool:
    return send_statement(statement, wanted_tables(statement)).text != send_statement(statement).text


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_roll_up_answers_as_the_raw_table_does(source: ClickHouseSource, seed: int) -> None:
    rolled = thinned = points = 0
    for statement in drawn_statements("clickhouse", DATA, seed):
        found, raw = await both(source, statement)
        assert found == raw, told(statement)
        used = is_rolled(statement)
        rolled, points = rolled + used, points + used * sum(len(times) for times, _, _ in raw.values())
        thinned += used and "account_extremes_1h" in wanted_tables(statement)
    assert (rolled > CASES // 4, thinned > 1, points > CASES * 10) == (True, True, True), (rolled, thinned, points)


def statements_of(file: str, database: str = "trade_system") -> list[str]:
    """The statements of a file beside the schema, for a database."""
    text = (ROOT / "provisioning" / "clickhouse" / file).read_text(encoding="utf-8").replace("trade_system", database)
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    return [found.strip().rstrip(";") for found in lines.split(";\n") if found.strip()]


def cells(connection: Any, sql: str) -> list[str]:
    return str(connection.query(sql, "TabSeparated").bytes().decode()).splitlines()


def hours_of(connection: Any, database: str, source: str) -> int:
    """How many hours are marked, the first one of 1970 aside."""
    return int(cells(connection, f"SELECT count() FROM {database}.rollup_gaps FINAL WHERE source = '{source}' AND hour > 0")[0])


def copied_schema(connection: Any, database: str) -> None:
    for statement in clickhouse_statements():
        connection.query(statement.replace("trade_system", database))


TRADES_OF_A_MONTH = """
INSERT INTO {database}.trades (trade_id, account_id, broker_id, symbol, direction, state, requested_price, execution_price, point,
    retcode, executed_at, execution_latency_ms, version)
SELECT toUUID(concat('00000000-0000-4000-8000-', leftPad(toString(number), 12, '0'))), concat('A', toString(number % 5)), 'B',
       'S', 'buy', if(number % 7 = 0, 'failed', 'executed'), 1.1, 1.1001, 0.00001, if(number % 7 = 0, 10006, 10009),
       toStartOfMonth(now('UTC') - INTERVAL 1 MONTH) + INTERVAL number * 100 SECOND, number % 300, {version}
FROM numbers({count}) WHERE {part}"""
SAMPLES_OF_A_MONTH = """
INSERT INTO {database}.account_snapshots
SELECT toStartOfMonth(now('UTC') - INTERVAL 1 MONTH) + INTERVAL number * 10 SECOND, 'A', 'B', 1, 0, number % 1000, 1, 1, 1, 2,
       3, 4
FROM numbers({count}) WHERE {part}"""
ORDERS = "SELECT sum(requests), sum(fills), sum(failed), sum(executed_slippage), sum(fill_slippage) FROM {}.{}"


def test_hours_from_before_a_roll_up_are_marked_and_a_month_that_was_filled_is_not(connection: Any) -> None:
    database, names = (
        "migrated",
        ("orders_1m", "orders_1h", "account_snapshots_1m", "account_snapshots_1h", "account_extremes_1h"),
    )
    copied_schema(connection, database)
    views = [f"{name}_of_{'trades' if name.startswith('orders') else 'samples'}" for name in names]
    for name in (*views, *names, "rollup_gaps_of_trades", "rollup_gaps", "orders"):
        connection.query(f"DROP TABLE {database}.{name} SYNC")
    connection.query(TRADES_OF_A_MONTH.format(database=database, version=1, count=2000, part="1"))
    connection.query(SAMPLES_OF_A_MONTH.format(database=database, count=20_000, part="1"))
    copied_schema(connection, database)
    # 2000 * 100 s and 20000 * 10 s are 56 hours; the hour that runs and the next one are marked, too.
    assert [hours_of(connection, database, source) for source in ("trades", "account_snapshots")] == [58, 58]
    copied_schema(connection, database)
    assert hours_of(connection, database, "trades") == 58
    # Late rows, counted by the views, and a correction. Filling counts nothing twice.
    connection.query(TRADES_OF_A_MONTH.format(database=database, version=1, count=2100, part="number >= 2000"))
    connection.query(TRADES_OF_A_MONTH.format(database=database, version=3, count=100, part="number = 50"))
    month = cells(connection, "SELECT toYYYYMM(now('UTC') - INTERVAL 1 MONTH)")[0]
    connection.query("SELECT sleep(1.1)")
    for _ in range(2):
        for statement in statements_of("fill_rollups.sql", database):
            connection.query(statement, params={"month": month})
    assert [hours_of(connection, database, source) for source in ("trades", "account_snapshots")] == [2, 2]
    told_of = {table: cells(connection, ORDERS.format(database, table)) for table in ("orders", "orders_1m", "orders_1h")}
    assert told_of == dict.fromkeys(told_of, told_of["orders"])
    assert cells(connection, f"SELECT count() FROM {database}.account_snapshots_1m FINAL") == [str(-(-20_000 // 6))]
    for statement in statements_of("mark_rollups.sql", database):
        connection.query(statement)
    assert [hours_of(connection, database, source) for source in ("trades", "account_snapshots")] == [2, 2]


def test_the_month_that_runs_is_not_filled(connection: Any) -> None:
    month = cells(connection, "SELECT toYYYYMM(now('UTC'))")[0]
    create, truncate, check = statements_of("fill_rollups.sql")[:3]
    connection.query(create)
    connection.query(truncate)
    with pytest.raises(RuntimeError, match="this month is not over"):
        connection.query(check, params={"month": month})
    connection.query("DROP TABLE trade_system.rollup_filling")


_OLD = "77 AND executed_at < {day}"
_CHANGES = {
    "deleted trades": ("trades", f"ALTER TABLE {{database}}.trades DELETE WHERE execution_latency_ms = {_OLD}"),
    "changed trades": ("trades", f"ALTER TABLE {{database}}.trades UPDATE retcode = 10006 WHERE execution_latency_ms = {_OLD}"),
    "deleted samples": ("account_snapshots", "ALTER TABLE {database}.account_snapshots DELETE WHERE equity < 12 AND ts < {day}"),
    "changed samples": (
        "account_snapshots",
        "ALTER TABLE {database}.account_snapshots UPDATE equity = 5000 WHERE equity = 500 AND ts < {day}",
    ),
    "a block that came again in another form": ("trades", TRADES_OF_A_MONTH),
}


@pytest.mark.parametrize("name", _CHANGES)
def test_hours_whose_rows_were_changed_by_hand_are_found_and_marked(connection: Any, name: str) -> None:
    database, (source, change) = "changed", _CHANGES[name]
    connection.query(f"DROP DATABASE IF EXISTS {database} SYNC")
    copied_schema(connection, database)
    connection.query(TRADES_OF_A_MONTH.format(database=database, version=1, count=2000, part="1"))
    connection.query(SAMPLES_OF_A_MONTH.format(database=database, count=20_000, part="1"))
    for statement in statements_of("mark_rollups.sql", database):
        connection.query(statement)
    assert [hours_of(connection, database, source) for source in ("trades", "account_snapshots")] == [0, 0]
    day = "toStartOfMonth(now('UTC') - INTERVAL 1 MONTH) + INTERVAL 1 DAY"
    settings = " SETTINGS mutations_sync = 2" if change.startswith("ALTER") else ""
    connection.query(change.format(database=database, day=day, version=1, count=3, part="1") + settings)
    for statement in statements_of("mark_rollups.sql", database):
        connection.query(statement)
    found = [hours_of(connection, database, source) for source in ("trades", "account_snapshots")]
    assert [0 < count < 25 for count in found] == [source == "trades", source == "account_snapshots"], found


async def test_a_schema_without_roll_ups_is_read_raw_until_it_has_them(connection: Any) -> None:
    database = "older"
    copied_schema(connection, database)
    connection.query(SAMPLES_OF_A_MONTH.format(database=database, count=2000, part="1"))
    for name in ("account_snapshots_1h", "account_snapshots_1m"):
        connection.query(f"DROP TABLE {database}.{name}_of_samples SYNC")
        connection.query(f"DROP TABLE {database}.{name} SYNC")
    begin_ms = int(cells(connection, "SELECT toUnixTimestamp(toStartOfMonth(now('UTC') - INTERVAL 1 MONTH), 'UTC') * 1000")[0])
    read = rolled_reads("clickhouse")["open_trades"]
    statement = read.statement(Ask("open_trades", TimeRange(begin_ms, begin_ms + 4 * HOUR_MS, HOUR_MS), ("account",)))
    source = ClickHouseConfig(interface="chdb", path=connection.folder, database=database).build("clickhouse")
    before = await source.fetch(statement)
    assert before.value.tolist() == [3.0] * 4
    # A roll-up that tells of itself: the answer shows which table was read.
    copied_schema(connection, database)
    told_apart = f"SELECT * REPLACE(77 AS open_positions) FROM {database}.account_snapshots"
    connection.query(f"INSERT INTO {database}.account_snapshots_1h {told_apart}")
    assert (await source.fetch(statement)).value.tolist() == [3.0] * 4
    fresh = ClickHouseConfig(interface="chdb", path=connection.folder, database=database).build("clickhouse")
    assert (await fresh.fetch(statement)).value.tolist() == [77.0] * 4
    for one in (source, fresh):
        await one.close()
