"""Writes the world into ClickHouse, as the trading system does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from demo.accounts import AccountStates
from demo.market import Ints
from demo.parquet import ParquetEncoder
from demo.rows import Columns, event_columns, host_columns, instance_columns, snapshot_columns, trade_columns
from demo.schema import DATABASE, clickhouse_statements
from demo.world import World


class ClickHouse(Protocol):
    """The methods that the writer needs of a clickhouse-connect client, of either interface."""

    def command(self, cmd: str) -> Any:
        """Run a statement."""

    def raw_insert(self, table: str, column_names: Sequence[str], insert_block: bytes, *, fmt: str) -> Any:
        """Insert a block of encoded rows."""


class ClickHouseWriter:
    """Inserts everything that happened in (from, to]."""

    def __init__(self, client: ClickHouse) -> None:
        self._client = client
        self._encoder = ParquetEncoder()

    def create_tables(self) -> None:
        """Make the database and its tables."""
        for statement in clickhouse_statements():
            self._client.command(statement)

    def insert_trades(self, world: World, from_ms: int, to_ms: int) -> None:
        """Trades that were executed, failed or closed."""
        trades = world.trades
        executed = trades.where((trades.executed_ms > from_ms) & (trades.executed_ms <= to_ms))
        closed = trades.where((trades.closed_ms > from_ms) & (trades.closed_ms <= to_ms))
        self._insert_rows("trades", trade_columns(world, executed, closed=False))
        self._insert_rows("trades", trade_columns(world, closed, closed=True))

    def insert_ticks(self, world: World, states: AccountStates) -> None:
        """Account snapshots and resources at the states' instants."""
        self.insert_snapshots(world, states)
        self.insert_health(world, states.at_ms)

    def insert_snapshots(self, world: World, states: AccountStates) -> None:
        """Account snapshots at the states' instants."""
        self._insert_rows("account_snapshots", snapshot_columns(world, states))

    def insert_health(self, world: World, at_ms: Ints) -> None:
        """The resources of terminals and hosts at these instants."""
        self._insert_rows("instance_performance", instance_columns(world, at_ms))
        self._insert_rows("host_performance", host_columns(world, at_ms))

    def insert_events(self, world: World, from_ms: int, to_ms: int) -> None:
        """Crashes that have ended."""
        ended = [outage for outage in world.outages if from_ms < outage.to_ms <= to_ms]
        self._insert_rows("system_event_log", event_columns(world, ended))

    def _insert_rows(self, table: str, columns: Columns) -> None:
        if len(next(iter(columns.values()))):
            self._client.raw_insert(f"{DATABASE}.{table}", list(columns), self._encoder.encode(columns), fmt="Parquet")
