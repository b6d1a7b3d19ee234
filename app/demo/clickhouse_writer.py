"""What the system writes into ClickHouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import orjson

from app.demo.accounts import AccountStates
from app.demo.rows import Columns, event_columns, host_columns, instance_columns, snapshot_columns, trade_columns
from app.demo.schema import DATABASE, clickhouse_statements
from app.demo.world import World


class ClickHouse(Protocol):
    """What is needed of a clickhouse-connect client, of either interface."""

    def command(self, cmd: str) -> Any:
        """Run a statement."""

    def raw_insert(self, table: str, column_names: Sequence[str], insert_block: bytes, *, fmt: str) -> Any:
        """Insert a block of rows as they are."""


class ClickHouseWriter:
    """Inserts what has happened in the half-open time (from, to]."""

    def __init__(self, client: ClickHouse) -> None:
        self._client = client

    def create(self) -> None:
        """Make the database and its tables."""
        for statement in clickhouse_statements():
            self._client.command(statement)

    def trades(self, world: World, from_ms: int, to_ms: int) -> None:
        """Trades that were executed, failed or closed."""
        trades = world.trades
        executed = trades.where((trades.executed_ms > from_ms) & (trades.executed_ms <= to_ms))
        closed = trades.where((trades.closed_ms > from_ms) & (trades.closed_ms <= to_ms))
        self._insert("trades", trade_columns(world, executed, closed=False))
        self._insert("trades", trade_columns(world, closed, closed=True))

    def ticks(self, world: World, states: AccountStates) -> None:
        """Account snapshots and resources at the states' instants."""
        self._insert("account_snapshots", snapshot_columns(world, states))
        self._insert("instance_performance", instance_columns(world, states.at_ms))
        self._insert("host_performance", host_columns(world, states.at_ms))

    def events(self, world: World, from_ms: int, to_ms: int) -> None:
        """Crashes whose end has come."""
        ended = [outage for outage in world.outages if from_ms < outage.to_ms <= to_ms]
        self._insert("system_event_log", event_columns(world, ended))

    def _insert(self, table: str, columns: Columns) -> None:
        if len(next(iter(columns.values()))):
            block = orjson.dumps({name: _plain(cells) for name, cells in columns.items()}, option=orjson.OPT_SERIALIZE_NUMPY)
            self._client.raw_insert(f"{DATABASE}.{table}", list(columns), block, fmt="JSONColumns")


def _plain(cells: Any) -> Any:
    return np.ascontiguousarray(cells) if isinstance(cells, np.ndarray) else cells
