"""Writes the world into Redis, as the trading system does: live state, streams, an hour of samples."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import redis

from demo.accounts import LEVERAGE, AccountStates, commission, fees, swap
from demo.gauges import SYNCS, backlog, signal_times
from demo.health import beats_until, cpu_percent, heartbeat_ms, host_figures, memory_mb, restarts, socket_failures, sync_runs
from demo.market import POINTS, SYMBOLS, Ints
from demo.world import ACTIONS, HOUR_MS, TICK_MS, Trades, World

STREAM_LENGTH = 10_000
_BATCH = 500
_ACCOUNT_FIELDS = ("balance", "credit", "equity", "margin", "free_margin", "floating_pnl", "peak_equity")
_SAMPLED = ("equity", "balance", "margin", "free_margin", "floating_pnl", "peak_equity")
_HOST_FIELDS = ("cpu_load", "network_latency_ms", "memory_used", "disk_used", "network_bytes_total")

StreamEntry = tuple[int, dict[Any, Any]]


def iso_text(at_ms: int) -> str:
    """An instant in the system's text form."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RedisWriter:
    """Writes the world's state at an instant and the events in (from, to] before it.

    Streams keep about `stream_length` entries.
    """

    def __init__(self, client: redis.Redis, stream_length: int = STREAM_LENGTH) -> None:
        self._client = client
        self._stream_length = stream_length

    def write(self, world: World, states: AccountStates, from_ms: int, to_ms: int) -> None:
        """Write state and events. `states` are the accounts at `to_ms`; at the first call `from_ms` is the world's start."""
        pipe = self._client.pipeline(transaction=False)
        if from_ms <= world.start_ms:
            _create_groups(pipe)
        _write_trades(pipe, world, from_ms, to_ms)
        _write_accounts(pipe, world, states, to_ms)
        _write_instances(pipe, world, from_ms, to_ms)
        if from_ms <= world.start_ms or from_ms // TICK_MS != to_ms // TICK_MS:
            _write_hosts(pipe, world, to_ms)
        _write_syncs(pipe, world, to_ms)
        pipe.execute()
        self._write_streams(world, from_ms, to_ms)

    def write_samples(self, world: World, states: AccountStates, to_ms: int) -> None:
        """Add samples at the states' instants (ticks) and trim the samples to an hour."""
        pipe = self._client.pipeline(transaction=False)
        for place, name in enumerate(world.account_names):
            for field in _SAMPLED:
                _add_samples(pipe, f"hist:{field}:{name}", states.at_ms, getattr(states, field)[:, place], to_ms)
        for place, name in enumerate(world.instance_names):
            _add_samples(pipe, f"hist:cpu_usage:{name}", states.at_ms, cpu_percent(world, place, states.at_ms), to_ms)
            _add_samples(pipe, f"hist:memory_usage:{name}", states.at_ms, memory_mb(world, place, states.at_ms), to_ms)
            _add_samples(
                pipe, f"hist:socket_failures_total:{name}", states.at_ms, socket_failures(world, place, states.at_ms), to_ms
            )
        for place, name in enumerate(world.host_names):
            figures = host_figures(world, place, states.at_ms)
            for field in _HOST_FIELDS:
                _add_samples(pipe, f"hist:{field}:{name}", states.at_ms, figures[field], to_ms)
        for pair in SYNCS:
            runs, ident = sync_runs(world, pair), ":".join(pair)
            for field, flags in (("ok_total", runs.ok), ("fail_total", ~runs.ok)):
                counts = np.searchsorted(runs.at_ms[flags], states.at_ms, side="right")
                _add_samples(pipe, f"hist:sync_{field}:{ident}", states.at_ms, counts.astype(np.float64), to_ms)
        pipe.execute()

    def _write_streams(self, world: World, from_ms: int, to_ms: int) -> None:
        most = self._stream_length
        self._add_entries("trade_signals", _signal_entries(world, from_ms, to_ms, most))
        self._add_entries("trade_results", _result_entries(world, from_ms, to_ms, most))
        if from_ms <= world.start_ms:
            _catch_up(self._client, "trade_signals", "executors")
            _catch_up(self._client, "trade_results", "sync")
        now = np.array([to_ms], dtype=np.int64)
        _consume_entries(self._client, "trade_signals", "executors", int(backlog(world, 21, 9)(now)[0]))
        _consume_entries(self._client, "trade_results", "sync", int(backlog(world, 22, 14)(now)[0]))

    def _add_entries(self, stream: str, entries: list[StreamEntry]) -> None:
        newest = entries[-self._stream_length :]
        for first in range(0, len(newest), _BATCH):
            pipe = self._client.pipeline(transaction=False)
            for sequence, (at_ms, fields) in enumerate(newest[first : first + _BATCH], first):
                pipe.xadd(stream, fields, id=f"{at_ms}-{sequence}", maxlen=self._stream_length, approximate=True)
            pipe.execute()


def _create_groups(pipe: Any) -> None:
    for stream, group in (("trade_signals", "executors"), ("trade_results", "sync")):
        pipe.xgroup_create(stream, group, id="0", mkstream=True)


def _catch_up(client: redis.Redis, stream: str, group: str) -> None:
    """Let the group finish everything that is in the stream."""
    while client.xreadgroup(group, "worker-1", {stream: ">"}, count=_BATCH, noack=True):
        pass


def _consume_entries(client: redis.Redis, stream: str, group: str, left: int) -> None:
    """Deliver the new entries and acknowledge all delivered ones but the newest `left`."""
    delivered: Any = client.xreadgroup(group, "worker-1", {stream: ">"}, count=_BATCH)
    ids = [entry_id for _, entries in delivered or [] for entry_id, _ in entries]
    finished = ids[: len(ids) - left] if left else ids
    if finished:
        client.xack(stream, group, *finished)
    pending: Any = client.xpending_range(stream, group, "-", "+", _BATCH)
    overdue = [entry["message_id"] for entry in pending][: max(len(pending) - left, 0)]
    if overdue:
        client.xack(stream, group, *overdue)


def _write_trades(pipe: Any, world: World, from_ms: int, to_ms: int) -> None:
    trades = world.trades
    changed = (trades.signal_ms <= to_ms) & (np.maximum(trades.executed_ms, trades.closed_ms) > from_ms)
    trades = trades.where(changed)
    signalled = trades.signal_ms > from_ms
    executed = (trades.executed_ms > from_ms) & (trades.executed_ms <= to_ms)
    closed = (trades.closed_ms > from_ms) & (trades.closed_ms <= to_ms)
    # A trade that both began and ended in this time leaves no key.
    over = signalled & np.where(trades.failed, trades.executed_ms <= to_ms - HOUR_MS, trades.closed_ms <= to_ms)
    left = trades.where((signalled | executed | closed) & ~over)
    for place, failed in enumerate(left.failed.tolist()):
        _write_trade(pipe, world, left, place, failed, to_ms)


def _write_trade(pipe: Any, world: World, trades: Trades, place: int, failed: bool, now_ms: int) -> None:
    name = world.uuid(int(trades.number[place]), 1)
    executed_ms, closed_ms = int(trades.executed_ms[place]), int(trades.closed_ms[place])
    if executed_ms > now_ms:
        state, since_ms = "pending", int(trades.signal_ms[place])
    elif failed:
        state, since_ms = "failed", executed_ms
    else:
        state, since_ms = ("closed" if closed_ms <= now_ms else "executed"), executed_ms
    pipe.zrem("trade_state:pending", name)
    pipe.zrem("trade_state:open", name)
    if state == "closed":
        pipe.delete(f"trade_state:{name}")
        return
    pipe.hset(f"trade_state:{name}", mapping=_trade_fields(world, trades, place, state, since_ms))
    index = {"pending": "pending", "failed": "failed", "executed": "open"}[state]
    pipe.zadd(f"trade_state:{index}", {name: since_ms})
    if state == "failed":
        pipe.zremrangebyscore("trade_state:failed", "-inf", now_ms - HOUR_MS)
        pipe.expire(f"trade_state:{name}", 3700)


def _trade_fields(world: World, trades: Trades, place: int, state: str, since_ms: int) -> dict[str, str]:
    account, symbol = int(trades.account[place]), int(trades.symbol[place])
    filled = "" if state == "pending" else f"{trades.filled[place]:.8g}"
    return {
        "trade_id": world.uuid(int(trades.number[place]), 1),
        "signal_id": world.uuid(int(trades.signal[place]), 2),
        "account_id": world.account_names[account],
        "broker_id": world.broker_of(account),
        "instance_id": world.instance_names[world.instance_of(account)],
        "symbol": SYMBOLS[symbol].name,
        "order_type": "limit" if trades.limit[place] else "market",
        "direction": "buy" if trades.side[place] > 0 else "sell",
        "lot_size": f"{trades.lots[place]:g}",
        "requested_price": f"{trades.requested[place]:.8g}",
        "execution_price": filled,
        "stop_loss": "",
        "take_profit": "",
        "partial_fill_percentage": "" if state == "pending" else "60" if trades.retcode[place] == 10010 else "100",
        "state": state,
        "profit": "",
        "swap": "0",
        "retcode": "" if state == "pending" else str(trades.retcode[place]),
        "execution_latency_ms": "" if state == "pending" else str(trades.latency_ms[place]),
        "created_at": iso_text(int(trades.signal_ms[place])),
        "updated_at": iso_text(since_ms),
    }


def _write_accounts(pipe: Any, world: World, states: AccountStates, now_ms: int) -> None:
    pipe.sadd("account_state:index", *world.account_names)
    for place, name in enumerate(world.account_names):
        amounts = {field: f"{getattr(states, field)[-1, place]:.4f}" for field in _ACCOUNT_FIELDS}
        constant = {"leverage": str(LEVERAGE), "currency": "USD", "margin_so_call": "100", "margin_so_so": "50"}
        who = {"account_id": name, "broker_id": world.broker_of(place), "last_updated_at": iso_text(now_ms)}
        pipe.hset(f"account_state:{name}", mapping=who | amounts | constant)


def _write_instances(pipe: Any, world: World, from_ms: int, now_ms: int) -> None:
    """A terminal reports with each of its heartbeats, and when its state changes."""
    now, before, states = np.array([now_ms], dtype=np.int64), world.states(from_ms), world.states(now_ms)
    pipe.sadd("instance:index", *world.instance_names)
    for place, name in enumerate(world.instance_names):
        known = from_ms > world.start_ms and before[place] == states[place]
        if known and beats_until(place, from_ms) == beats_until(place, now_ms):
            continue
        for state in ("running", "stopped", "crashed"):
            (pipe.sadd if state == states[place] else pipe.srem)(f"instance:state:{state}", name)
        running = states[place] == "running"
        memory = float(memory_mb(world, place, now)[0])
        pipe.hset(
            f"instance:{name}",
            mapping={
                "instance_id": name,
                "host_id": world.host_names[place // 4],
                "broker_id": world.broker_of_instance(place),
                "state": states[place],
                "launch_mode": "portable",
                "active_connections": "2" if running else "0",
                "socket_failures_total": f"{socket_failures(world, place, now)[0]:.0f}",
                "last_heartbeat_ms": f"{heartbeat_ms(world, place, now)[0]:.0f}",
            },
        )
        usage = {"cpu_usage": f"{cpu_percent(world, place, now)[0]:g}", "memory_usage": f"{memory:g}"}
        more = {"network_usage": f"{memory * 0.09:.1f}", "disk_usage": f"{800 + memory:.1f}"}
        pipe.hset(f"instance_metrics:{name}", mapping={"instance_id": name} | usage | more)
        health = {
            "restart_count": str(restarts(world, place, now_ms)),
            "health_status": "ok" if running else states[place],
            "last_error": "",
        }
        pipe.hset(f"instance_health:{name}", mapping=health)


def _write_hosts(pipe: Any, world: World, now_ms: int) -> None:
    now = np.array([now_ms], dtype=np.int64)
    pipe.sadd("host:index", *world.host_names)
    for place, name in enumerate(world.host_names):
        figures = {field: f"{values[0]:.15g}" for field, values in host_figures(world, place, now).items()}
        pipe.hset(f"host_metrics:{name}", mapping={"host_id": name} | figures)


def _write_syncs(pipe: Any, world: World, now_ms: int) -> None:
    for pair in SYNCS:
        runs, ident = sync_runs(world, pair), ":".join(pair)
        done = runs.at_ms <= now_ms
        good = np.flatnonzero(done & runs.ok)
        facts = {
            "source": pair[0],
            "sink": pair[1],
            "last_ok_ms": str(runs.at_ms[good[-1]]) if len(good) else "",
            "last_attempt_ms": str(runs.at_ms[done][-1]) if done.any() else "",
            "last_latency_ms": f"{runs.lasted_s[good[-1]] * 1000:.3f}" if len(good) else "",
            "ok_total": str(len(good)),
            "fail_total": str(int((done & ~runs.ok).sum())),
            "backlog": "0",
            "last_error": "",
        }
        pipe.sadd("sync:index", ident)
        pipe.hset(f"sync:{ident}", mapping=facts)


def _add_samples(pipe: Any, key: str, at_ms: Ints, values: Any, now_ms: int) -> None:
    members = {
        f"{at}:{value:.15g}": at for at, value in zip(at_ms.tolist(), values.tolist(), strict=True) if at > now_ms - HOUR_MS
    }
    if members:
        pipe.zadd(key, members)
        pipe.zremrangebyscore(key, "-inf", now_ms - HOUR_MS)


def _signal_entries(world: World, from_ms: int, to_ms: int, most: int) -> list[StreamEntry]:
    trades = world.trades
    signalled = (trades.signal_ms > from_ms) & (trades.signal_ms <= to_ms)
    closed = (trades.closed_ms > from_ms) & (trades.closed_ms <= to_ms)
    numbers, times, actions = signal_times(trades.where(signalled | closed))
    inside = np.flatnonzero((times > from_ms) & (times <= to_ms))
    newest = inside[-most:]
    return [(int(times[row]), {"signal_id": world.uuid(int(numbers[row]), 2), "action": ACTIONS[actions[row]]}) for row in newest]


def _result_entries(world: World, from_ms: int, to_ms: int, most: int) -> list[StreamEntry]:
    trades = world.trades
    # Skip entries that the stream would drop at once.
    times = np.concatenate((trades.executed_ms, trades.closed_ms))
    kept = np.sort(times[(times > from_ms) & (times <= to_ms)])[-most - 1 :]
    from_ms = max(from_ms, int(kept[0])) if len(kept) > most else from_ms
    executed = trades.where((trades.executed_ms > from_ms) & (trades.executed_ms <= to_ms))
    closed = trades.where((trades.closed_ms > from_ms) & (trades.closed_ms <= to_ms))
    entries = [*_result_events(world, executed, closing=False), *_result_events(world, closed, closing=True)]
    return sorted(entries, key=lambda entry: entry[0])


def _result_events(world: World, trades: Trades, closing: bool) -> Iterable[StreamEntry]:
    points = trades.side * (trades.filled - trades.requested) / POINTS[trades.symbol]
    gains = trades.profit(world.seed, trades.closed_ms)
    paid, held, charged = commission(trades), swap(trades), fees(trades)
    for place, failed in enumerate(trades.failed.tolist()):
        account = int(trades.account[place])
        event = "close" if closing else "reject" if failed else "execution"
        money = {"pnl": gains, "commission": paid, "swap": held, "fees": charged}
        yield (
            int((trades.closed_ms if closing else trades.executed_ms)[place]),
            {
                "event": event,
                "trade_id": world.uuid(int(trades.number[place]), 1),
                "signal_id": world.uuid(int(trades.signal[place]), 2),
                "account_id": world.account_names[account],
                "instance_id": world.instance_names[world.instance_of(account)],
                "broker_id": world.broker_of(account),
                "symbol": SYMBOLS[int(trades.symbol[place])].name,
                "direction": "buy" if trades.side[place] > 0 else "sell",
                "retcode": str(trades.retcode[place]),
                "requested_price": f"{trades.requested[place]:.8g}",
                "execution_price": "" if failed else f"{trades.filled[place]:.8g}",
                "slippage_points": "" if failed or closing else f"{points[place]:.15g}",
                "execution_latency_ms": "" if failed or closing else str(trades.latency_ms[place]),
                **{name: f"{amounts[place]:.4f}" if closing else "" for name, amounts in money.items()},
            },
        )
