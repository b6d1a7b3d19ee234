"""The world as rows of the tables: an array for each column, by name, for any writer. Times are epoch ms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from demo.accounts import AccountStates, commission, fees, swap
from demo.health import cpu_percent, host_figures, memory_mb, socket_failures
from demo.market import POINTS, SYMBOLS, Ints
from demo.world import Outage, Trades, World

#: NumPy arrays of equal length; texts are objects
Columns = dict[str, Any]

_AMOUNTS = ("balance", "credit", "equity", "margin", "free_margin", "floating_pnl", "peak_equity")
_COUNTS = ("open_positions", "pending_orders")


def names_at(names: Sequence[str], places: Ints) -> Any:
    """The names at these indices, as an array of objects."""
    return _texts(names)[places]


def _texts(given: Iterable[Any]) -> Any:
    """An array of objects, one for each of the given (which may be lists)."""
    found = list(given)
    array = np.empty(len(found), dtype=object)
    for place, one in enumerate(found):
        array[place] = one
    return array


def _repeated(text: str, count: int) -> Any:
    return np.full(count, text, dtype=object)


def trade_columns(world: World, trades: Trades, closed: bool) -> Columns:
    """Rows of `trades`: inserted on execution or failure (version 1), and again on closing (version 2)."""
    brokers = [world.broker_of(account) for account in range(world.accounts)]
    instances = [world.instance_names[world.instance_of(account)] for account in range(world.accounts)]
    count = len(trades.number)
    nothing = np.zeros(count)
    return {
        "trade_id": _texts(world.uuid(number, 1) for number in trades.number.tolist()),
        "signal_id": _texts(world.uuid(number, 2) for number in trades.signal.tolist()),
        "account_id": names_at(world.account_names, trades.account),
        "instance_id": names_at(instances, trades.account),
        "broker_id": names_at(brokers, trades.account),
        "symbol": names_at([symbol.name for symbol in SYMBOLS], trades.symbol),
        "direction": names_at(("sell", "buy"), (trades.side > 0).astype(np.int64)),
        "order_type": names_at(("market", "limit"), trades.limit.astype(np.int64)),
        "state": _repeated("closed", count) if closed else names_at(("executed", "failed"), trades.failed.astype(np.int64)),
        "lot_size": trades.lots,
        "requested_price": np.round(trades.requested, 8),
        "execution_price": np.round(trades.filled, 8),
        "point": POINTS[trades.symbol],
        "retcode": trades.retcode,
        "pnl": trades.profit(world.seed, trades.closed_ms) if closed else nothing,
        "commission": commission(trades) if closed else nothing,
        "swap": swap(trades) if closed else nothing,
        "fees": fees(trades) if closed else nothing,
        "currency": _repeated("USD", count),
        "signal_at": trades.signal_ms,
        "executed_at": trades.executed_ms,
        # An open trade has no time of closing, and no such column.
        **({"closed_at": trades.closed_ms} if closed else {}),
        "execution_latency_ms": trades.latency_ms,
        "version": np.full(count, 2 if closed else 1),
    }


def snapshot_columns(world: World, states: AccountStates) -> Columns:
    """Rows of `account_snapshots`: every account at every instant of the states."""
    accounts, instants = world.accounts, len(states.at_ms)
    brokers = [world.broker_of(account) for account in range(accounts)]
    return {
        "ts": np.repeat(states.at_ms, accounts),
        "account_id": np.tile(_texts(world.account_names), instants),
        "broker_id": np.tile(_texts(brokers), instants),
        **{name: np.ascontiguousarray(getattr(states, name)).ravel() for name in (*_AMOUNTS, *_COUNTS)},
    }


def instance_columns(world: World, at_ms: Ints) -> Columns:
    """Rows of `instance_performance`: every terminal at every instant."""
    rows: list[Columns] = []
    for place, name in enumerate(world.instance_names):
        memory = memory_mb(world, place, at_ms)
        rows.append(
            {
                "ts": at_ms,
                "instance_id": _repeated(name, len(at_ms)),
                "broker_id": _repeated(world.broker_of_instance(place), len(at_ms)),
                "cpu_usage": cpu_percent(world, place, at_ms),
                "memory_usage": memory * 1048576,
                "network_usage": np.round(memory * 90),
                "disk_usage": np.round((800 + memory) * 1048576),
                "socket_failures_total": socket_failures(world, place, at_ms).astype(np.int64),
            }
        )
    return _concatenate_rows(rows)


def host_columns(world: World, at_ms: Ints) -> Columns:
    """Rows of `host_performance`: every host at every instant."""
    rows: list[Columns] = []
    for place, name in enumerate(world.host_names):
        figures = host_figures(world, place, at_ms)
        rows.append(
            {
                "ts": at_ms,
                "host_id": _repeated(name, len(at_ms)),
                "cpu_load": figures["cpu_load"],
                "network_latency": np.round(figures["network_latency_ms"] / 1000, 6),
                "memory_used": figures["memory_used"] * 1048576,
                "disk_used": figures["disk_used"] * 1048576,
                "network_bytes_total": figures["network_bytes_total"].astype(np.int64),
            }
        )
    return _concatenate_rows(rows)


def event_columns(world: World, outages: Sequence[Outage]) -> Columns:
    """Rows of `system_event_log`: a crash and its end."""
    names = [world.instance_names[outage.instance] for outage in outages]
    return {
        "ts": np.array([outage.from_ms for outage in outages], dtype=np.int64),
        "ts_end": np.array([outage.to_ms for outage in outages], dtype=np.int64),
        "event_id": _texts(world.uuid(outage.from_ms + outage.instance, 3) for outage in outages),
        "level": _repeated("error", len(outages)),
        "source": _repeated("supervisor", len(outages)),
        "instance_id": _texts(names),
        "title": _texts(f"{name} crashed" for name in names),
        "text": _texts(
            f"{name} lost its terminal process; started again {(o.to_ms - o.from_ms) // 1000} s later"
            for name, o in zip(names, outages, strict=True)
        ),
        "tags": _texts(["crash", name] for name in names),
    }


def _concatenate_rows(rows: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([one[name] for one in rows]) for name in rows[0]}
