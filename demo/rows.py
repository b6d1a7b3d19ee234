"""The world as rows of the tables: columns by name, for any writer. Times are epoch seconds with milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from demo.accounts import AccountStates, commission, fees, swap
from demo.health import cpu_percent, host_figures, memory_mb, socket_failures
from demo.market import POINTS, SYMBOLS, Ints
from demo.world import Outage, Trades, World

Columns = dict[str, Any]

_AMOUNTS = ("balance", "credit", "equity", "margin", "free_margin", "floating_pnl", "peak_equity")
_COUNTS = ("open_positions", "pending_orders")


def _epoch_seconds(at_ms: Ints) -> Any:
    return np.round(at_ms / 1000, 3)


def names_at(names: Sequence[str], places: Ints) -> list[str]:
    """The names at these indices."""
    return [names[place] for place in places.tolist()]


def trade_columns(world: World, trades: Trades, closed: bool) -> Columns:
    """Rows of `trades`: inserted on execution or failure (version 1), and again on closing (version 2)."""
    brokers = [world.broker_of(account) for account in range(world.accounts)]
    instances = [world.instance_names[world.instance_of(account)] for account in range(world.accounts)]
    nothing = np.zeros(len(trades.number))
    state = "closed" if closed else np.where(trades.failed, "failed", "executed").tolist()
    return {
        "trade_id": [world.uuid(number, 1) for number in trades.number.tolist()],
        "signal_id": [world.uuid(number, 2) for number in trades.signal.tolist()],
        "account_id": names_at(world.account_names, trades.account),
        "instance_id": names_at(instances, trades.account),
        "broker_id": names_at(brokers, trades.account),
        "symbol": [SYMBOLS[place].name for place in trades.symbol.tolist()],
        "direction": np.where(trades.side > 0, "buy", "sell").tolist(),
        "order_type": np.where(trades.limit, "limit", "market").tolist(),
        "state": [state] * len(trades.number) if isinstance(state, str) else state,
        "lot_size": trades.lots,
        "requested_price": np.round(trades.requested, 8),
        "execution_price": np.round(trades.filled, 8),
        "point": POINTS[trades.symbol],
        "retcode": trades.retcode,
        "pnl": trades.profit(world.seed, trades.closed_ms) if closed else nothing,
        "commission": commission(trades) if closed else nothing,
        "swap": swap(trades) if closed else nothing,
        "fees": fees(trades) if closed else nothing,
        "currency": ["USD"] * len(trades.number),
        "signal_at": _epoch_seconds(trades.signal_ms),
        "executed_at": _epoch_seconds(trades.executed_ms),
        "closed_at": _epoch_seconds(trades.closed_ms) if closed else [None] * len(trades.number),
        "execution_latency_ms": trades.latency_ms,
        "version": np.full(len(trades.number), 2 if closed else 1),
    }


def snapshot_columns(world: World, states: AccountStates) -> Columns:
    """Rows of `account_snapshots`: every account at every instant of the states."""
    accounts, instants = world.accounts, len(states.at_ms)
    brokers = [world.broker_of(account) for account in range(accounts)]
    return {
        "ts": np.repeat(_epoch_seconds(states.at_ms), accounts),
        "account_id": list(world.account_names) * instants,
        "broker_id": brokers * instants,
        **{name: np.ascontiguousarray(getattr(states, name)).ravel() for name in (*_AMOUNTS, *_COUNTS)},
    }


def instance_columns(world: World, at_ms: Ints) -> Columns:
    """Rows of `instance_performance`: every terminal at every instant."""
    rows: list[Columns] = []
    for place, name in enumerate(world.instance_names):
        memory = memory_mb(world, place, at_ms)
        rows.append(
            {
                "ts": _epoch_seconds(at_ms),
                "instance_id": [name] * len(at_ms),
                "broker_id": [world.broker_of_instance(place)] * len(at_ms),
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
                "ts": _epoch_seconds(at_ms),
                "host_id": [name] * len(at_ms),
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
        "ts": [outage.from_ms / 1000 for outage in outages],
        "ts_end": [outage.to_ms / 1000 for outage in outages],
        "event_id": [world.uuid(outage.from_ms + outage.instance, 3) for outage in outages],
        "level": ["error"] * len(outages),
        "source": ["supervisor"] * len(outages),
        "instance_id": names,
        "title": [f"{name} crashed" for name in names],
        "text": [
            f"{name} lost its terminal process; started again {(o.to_ms - o.from_ms) // 1000} s later"
            for name, o in zip(names, outages, strict=True)
        ],
        "tags": [["crash", name] for name in names],
    }


def _concatenate_rows(rows: Sequence[Columns]) -> Columns:
    return {
        name: list(chain.from_iterable(one[name] for one in rows))
        if isinstance(rows[0][name], list)
        else np.concatenate([one[name] for one in rows])
        for name in rows[0]
    }
