"""The history of the desk in ClickHouse: what is in it, and what its rows are."""

from __future__ import annotations

from demo.schema import DATABASE, clickhouse_statements
from tests.servers.clickhouse import ClickHouseServer

BATCH = 50
COLUMNS = (
    "trade_id, account_id, broker_id, symbol, executed_at, retcode, version, requested_price, execution_price, point, closed_at"
)


def trades_from(first: int) -> str:
    """A batch of trades, numbered. Every second one is still open: its closed_at is NULL."""
    number = f"{first} + number"
    return f"""INSERT INTO {DATABASE}.trades ({COLUMNS})
        SELECT toUUID('00000000-0000-0000-0000-' || leftPad(toString({number}), 12, '0')),
        'a' || toString(number % 5), 'b1', 'EURUSD', toDateTime64('2026-11-23 10:00:00', 3, 'UTC') + {number},
        10009, 1, 1, 1.0001, 0.0001,
        if(number % 2, toDateTime64('2026-11-23 12:00:00', 3, 'UTC'), NULL) FROM numbers({BATCH})"""


def rows(server: ClickHouseServer, database: str = DATABASE, table: str = "trades") -> list[str]:
    """How many rows and the hash of all of them (by way of their text, unlike the tool's own)."""
    return server.execute(f"SELECT count(), sum(sipHash64(formatRow('TSV', *))) FROM {database}.{table}").split("\t")


def make_anew(server: ClickHouseServer) -> None:
    """The history's tables, 200 trades and one event in them, and no other database of ours."""
    databases = server.execute(f"SELECT name FROM system.databases WHERE startsWith(name, '{DATABASE}')").splitlines()
    for statement in (*(f"DROP DATABASE {database} SYNC" for database in databases), *clickhouse_statements()):
        server.execute(statement)
    for batch in range(4):
        server.execute(trades_from(batch * BATCH))
    server.execute(f"INSERT INTO {DATABASE}.system_event_log (ts, level, title, tags) VALUES (now64(3), 'info', 'up', ['a'])")
