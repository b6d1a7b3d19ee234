"""Every catalogue metric computed by other means: raw rows read from the stores with own statements, folded in plain Python.

Nothing here uses the bridge's code. A result is {label values in the order of `by`: {bucket start ms: value or None}}.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import duckdb
import httpx
import redis

Key = tuple[str, ...]
Answer = dict[Key, dict[int, float | None]]
Row = Mapping[str, Any]

RETCODES_FILLED = {10009, 10010}
RETCODES_FINE = {0, 10008, 10009, 10010, 10025}


@dataclass(frozen=True)
class Window:
    """The asked buckets: whole steps from `from_ms`; the last one contains `now_ms`. Of the bucket that contains `until_ms` only
    what lies before that counts."""

    from_ms: int
    now_ms: int
    step_ms: int
    until_ms: int | None = None

    def bucket(self, at_ms: float) -> int:
        found = int(at_ms) // self.step_ms * self.step_ms
        cut = self.until_ms is not None and at_ms >= self.until_ms and found == self.until_ms // self.step_ms * self.step_ms
        return -1 if cut else found

    @property
    def open_ms(self) -> int:
        return int(self.now_ms) // self.step_ms * self.step_ms

    @property
    def buckets(self) -> range:
        return range(self.bucket(self.from_ms), self.open_ms + 1, self.step_ms)


class Stores:
    """The four stores, read with statements of our own; raw rows are read once."""

    def __init__(self, clickhouse: Callable[[str], list[Row]], snapshot: str, redis_port: int, prometheus_url: str) -> None:
        self._clickhouse = clickhouse
        self._snapshot = snapshot
        self._prometheus = httpx.Client(base_url=prometheus_url, trust_env=False)
        self.redis: Any = redis.Redis(host="127.0.0.1", port=redis_port, decode_responses=True)

    def close(self) -> None:
        self._prometheus.close()
        self.redis.close()

    @cached_property
    def trades(self) -> list[Row]:
        newest: dict[str, Row] = {}
        statement = """SELECT toString(trade_id) AS id, account_id AS account, symbol, broker_id AS broker,
            toString(state) AS state, toUnixTimestamp64Milli(executed_at) AS executed,
            toUnixTimestamp64Milli(closed_at) AS closed, toInt32(retcode) AS code, toFloat64(requested_price) AS requested,
            toFloat64(execution_price) AS filled, toFloat64(point) AS point,
            toString(direction) AS direction, toFloat64(pnl) AS pnl, toFloat64(commission) AS commission, toFloat64(swap) AS swap,
            toFloat64(fees) AS fees, toInt32(execution_latency_ms) AS latency, toInt32(version) AS version FROM trades"""
        for row in sorted(self._clickhouse(statement), key=lambda row: row["version"]):
            newest[row["id"]] = row
        return list(newest.values())

    @cached_property
    def snapshots(self) -> list[Row]:
        return self._clickhouse(
            """SELECT toUnixTimestamp64Milli(ts) AS at, account_id AS account, broker_id AS broker,
            toInt32(open_positions) AS open, toInt32(pending_orders) AS pending FROM account_snapshots"""
        )

    @cached_property
    def accounts(self) -> list[Row]:
        with duckdb.connect(self._snapshot, read_only=True) as connection:
            found = connection.execute(
                """SELECT epoch_ms(ts), account_id, broker_id, balance::DOUBLE, equity::DOUBLE, margin::DOUBLE,
                free_margin::DOUBLE, floating_pnl::DOUBLE, peak_equity::DOUBLE FROM account_snapshots"""
            ).fetchall()
        names = ("at", "account", "broker", "balance", "equity", "margin", "free_margin", "floating_pnl", "peak_equity")
        return [dict(zip(names, row, strict=True)) for row in found]

    def promql(self, query: str, window: Window, by: Sequence[str]) -> Answer:
        """The expression at the end of each closed bucket, and at now for the open one: one instant query each."""
        answer: Answer = defaultdict(dict)
        for begin in window.buckets:
            at_ms = min(begin + window.step_ms, window.now_ms // 1000 * 1000)
            reply = self._prometheus.get("/api/v1/query", params={"query": query, "time": at_ms / 1000}).json()
            for series in reply["data"]["result"]:
                value = float(series["value"][1])
                key = tuple(series["metric"].get(label, "") for label in by)
                answer[key][begin] = value if math.isfinite(value) else None
        return answer

    def hashes(self, index: str, template: str) -> list[dict[str, str]]:
        kind = self.redis.type(index)
        ids = self.redis.zrange(index, 0, -1) if kind == "zset" else self.redis.smembers(index)
        found = [{"id": one, **self.redis.hgetall(template.format(one))} for one in sorted(ids)]
        return [one for one in found if len(one) > 1]


def group(rows: Iterable[Row], by: Sequence[str], at: str, window: Window) -> dict[tuple[Key, int], list[Row]]:
    found: dict[tuple[Key, int], list[Row]] = defaultdict(list)
    for row in rows:
        bucket = window.bucket(row[at])
        if bucket in window.buckets:
            found[tuple(row[label] for label in by), bucket].append(row)
    return found


def fold(groups: Mapping[tuple[Key, int], list[Row]], value: Callable[[list[Row]], float | None]) -> Answer:
    answer: Answer = defaultdict(dict)
    for (key, bucket), rows in groups.items():
        answer[key][bucket] = value(rows)
    return answer


def last_of_each(rows: Iterable[Row], one: str, window: Window) -> list[Row]:
    """For each id and bucket the newest row, dated with its bucket."""
    newest: dict[tuple[Any, int], Row] = {}
    for row in sorted(rows, key=lambda row: row["at"]):
        newest[row[one], window.bucket(row["at"])] = row
    return [{**row, "at": bucket} for (_, bucket), row in newest.items()]


def joined(closed: Answer, live: Mapping[Key, float | None], window: Window) -> Answer:
    """Closed buckets from one side, the open bucket from the other."""
    answer: Answer = defaultdict(dict)
    for key, course in closed.items():
        answer[key] = {at: value for at, value in course.items() if at < window.open_ms}
    for key, value in live.items():
        answer[key][window.open_ms] = value
    return {key: course for key, course in answer.items() if course}


def live_fold(rows: Iterable[Row], by: Sequence[str], value: Callable[[list[Row]], float | None]) -> dict[Key, float | None]:
    groups: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[label] for label in by)].append(row)
    return {key: value(rows) for key, rows in groups.items()}


def quantile_95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    place = 0.95 * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (place - low)


def total(field: str) -> Callable[[list[Row]], float]:
    return lambda rows: sum(float(row[field]) for row in rows)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def cost_points(row: Row) -> float:
    side = 1 if row["direction"] == "buy" else -1
    return side * (row["filled"] - row["requested"]) / row["point"] if row["point"] else 0.0


def margin_level(rows: list[Row]) -> float | None:
    used = sum(float(row["margin"]) for row in rows)
    return sum(float(row["equity"]) for row in rows) / used * 100 if used else None


def worst_drawdown(rows: list[Row]) -> float:
    return max((float(row["peak_equity"]) - float(row["equity"])) / float(row["peak_equity"]) * 100 for row in rows)


class Reference:
    """One method per metric (or per family of metrics)."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self._rate_window = "240s"

    def answer(self, metric: str, window: Window, by: Sequence[str], rate_window: str) -> Answer:
        self._rate_window = rate_window
        return _METRICS[metric](self, metric, window, by)

    def account(self, metric: str, window: Window, by: Sequence[str]) -> Answer:
        value = _ACCOUNT_VALUES.get(metric, total(metric))
        history = fold(group(last_of_each(self.stores.accounts, "account", window), by, "at", window), value)
        live = [{**row, "account": row["id"], "broker": row["broker_id"]} for row in self._account_hashes()]
        return joined(history, live_fold(live, by, value), window)

    def _account_hashes(self) -> list[dict[str, str]]:
        return self.stores.hashes("account_state:index", "account_state:{}")

    def ages(self, _: str, window: Window, by: Sequence[str]) -> Answer:
        now_s = window.now_ms // 1000
        rows = [
            {
                "account": row["id"],
                "broker": row["broker_id"],
                "age": now_s - datetime.fromisoformat(row["last_updated_at"]).timestamp(),
            }
            for row in self._account_hashes()
        ]
        return joined({}, live_fold(rows, by, lambda found: max(row["age"] for row in found)), window)

    def positions(self, metric: str, window: Window, by: Sequence[str]) -> Answer:
        column, index = {"open_trades": ("open", "trade_state:open"), "active_orders": ("pending", "trade_state:pending")}[metric]
        history = fold(group(last_of_each(self.stores.snapshots, "account", window), by, "at", window), total(column))
        found = [
            {"account": row["account_id"], "broker": row["broker_id"], "n": 1}
            for row in self.stores.hashes(index, "trade_state:{}")
        ]
        none = [{"account": row["id"], "broker": row["broker_id"], "n": 0} for row in self._account_hashes()]
        return joined(history, live_fold([*found, *none], by, total("n")), window)

    def trades(self, metric: str, window: Window, by: Sequence[str]) -> Answer:
        chosen, at, value = _TRADE_VALUES[metric]
        return fold(group([row for row in self.stores.trades if chosen(row)], by, at, window), value)

    def prometheus(self, metric: str, window: Window, by: Sequence[str]) -> Answer:
        return self.stores.promql(_PROMQL[metric].format(by=", ".join(by)).replace("WINDOW", self._rate_window), window, by)

    def instances(self, metric: str, window: Window, by: Sequence[str]) -> Answer:
        template, field, value = _INSTANCE_VALUES[metric]
        rows = [{**row, "instance": row["id"]} for row in self.stores.hashes("instance:index", template)]
        now_ms = window.now_ms // 1000 * 1000
        for row in rows:
            row["age"] = str((now_ms - int(row.get("last_heartbeat_ms", 0))) / 1000)
        live = live_fold(rows, by, lambda found: value([float(row[field]) for row in found]))
        return joined(self.prometheus(metric, window, by), live, window)

    def states(self, metric: str, window: Window, by: Sequence[str]) -> Answer:
        rows = [
            {"state": state, "n": self.stores.redis.scard(f"instance:state:{state}")}
            for state in ("running", "stopped", "crashed")
        ]
        return joined(self.prometheus(metric, window, by), live_fold(rows, by, total("n")), window)

    def backlog(self, metric: str, window: Window, by: Sequence[str]) -> Answer:
        stream, name = {"signal_backlog": ("trade_signals", "executors"), "result_backlog": ("trade_results", "sync")}[metric]
        [found] = [one for one in self.stores.redis.xinfo_groups(stream) if one["name"] == name]
        live = {tuple(name for _ in by): float(found["lag"] + found["pending"])}
        return joined(self.prometheus(metric, window, by), live, window)


_ACCOUNT_VALUES: Mapping[str, Callable[[list[Row]], float | None]] = {"margin_level": margin_level, "drawdown": worst_drawdown}

_MEGABYTE = 1024 * 1024
_INSTANCE_VALUES: Mapping[str, tuple[str, str, Callable[[Sequence[float]], float]]] = {
    "cpu_usage": ("instance_metrics:{}", "cpu_usage", mean),
    "memory_usage": ("instance_metrics:{}", "memory_usage", lambda values: sum(values) * _MEGABYTE),
    "heartbeat_age": ("instance:{}", "age", max),
}

#: fewer answers make no rate (`least` in the catalogue)
LEAST_ANSWERS = 10


def share_percent(found: Sequence[bool]) -> float | None:
    """The share of those that are true, in percent; null for too few."""
    return 100 * mean([float(one) for one in found]) if len(found) >= LEAST_ANSWERS else None


_TRADE_VALUES: Mapping[str, tuple[Callable[[Row], bool], str, Callable[[list[Row]], float | None]]] = {
    "failed_trades": (lambda row: row["state"] == "failed", "executed", lambda rows: float(len(rows))),
    "slippage": (lambda row: row["state"] != "failed", "executed", lambda rows: mean([cost_points(row) for row in rows])),
    "broker_slippage": (
        lambda row: row["code"] in RETCODES_FILLED,
        "executed",
        lambda rows: mean([cost_points(row) for row in rows]),
    ),
    "execution_latency": (
        lambda row: row["state"] != "failed",
        "executed",
        lambda rows: quantile_95([row["latency"] for row in rows]),
    ),
    "total_pnl": (
        lambda row: row["closed"] is not None,
        "closed",
        lambda rows: sum(row["pnl"] + row["commission"] + row["swap"] - row["fees"] for row in rows),
    ),
    "fill_rate": (lambda _: True, "executed", lambda rows: share_percent([row["code"] in RETCODES_FILLED for row in rows])),
    "reject_rate": (lambda _: True, "executed", lambda rows: share_percent([row["code"] not in RETCODES_FINE for row in rows])),
}

# WINDOW is the wider of the step and the configured window.
_PROMQL: Mapping[str, str] = {
    "state_updates": "sum by ({by}) (rate(redis_rts_state_updates_total[WINDOW]))",
    "cpu_usage": "avg by ({by}) (tds_instance_cpu_ratio * 100)",
    "memory_usage": "sum by ({by}) (tds_instance_memory_bytes)",
    "socket_failures": "sum by ({by}) (rate(tds_instance_socket_failures_total[WINDOW]) * 60)",
    "heartbeat_age": "time() - min by ({by}) (tds_instance_last_heartbeat_timestamp_seconds)",
    "instances_by_state": "sum by ({by}) (tds_instances)",
    "sync_success": "sum by ({by}) (rate(tds_sync_success_total[WINDOW]) * 60)",
    "sync_failure": "sum by ({by}) (rate(tds_sync_failure_total[WINDOW]) * 60)",
    "sync_latency": "histogram_quantile(0.95, sum by (le, {by}) (rate(tds_sync_duration_seconds_bucket[WINDOW])))",
    "signal_backlog": "sum by ({by}) (redis_tss_pending_signals)",
    "result_backlog": "sum by ({by}) (redis_trs_pending_results)",
    "signals_received": "sum by ({by}) (rate(redis_tss_signals_received_total[WINDOW]))",
    "signals_failed": "sum by ({by}) (rate(redis_tss_signals_failed_total[WINDOW]))",
    "signal_latency": "histogram_quantile(0.95, sum by (le) (rate(redis_tss_signal_processing_seconds_bucket[WINDOW])))",
    "connection_errors": "sum by ({by}) (rate(redis_tss_connection_errors_total[WINDOW]) * 60)",
    "order_execution_rate": 'sum by ({by}) (rate(tds_order_responses_total{{retcode=~"10009|10010"}}[WINDOW]) * 60)',
    "cpu_load": "avg by ({by}) (tds_host_cpu_load_ratio * 100)",
    "network_latency": "max by ({by}) (tds_host_network_latency_seconds)",
    "memory_used": "sum by ({by}) (tds_host_memory_used_bytes)",
    "disk_used": "sum by ({by}) (tds_host_disk_used_bytes)",
    "disk_fullness": "max by ({by}) (tds_host_disk_used_ratio * 100)",
    "network_throughput": "sum by ({by}) (rate(tds_host_network_bytes_total[WINDOW]))",
}

_METRICS: dict[str, Callable[[Reference, str, Window, Sequence[str]], Answer]] = {
    **dict.fromkeys(_PROMQL, Reference.prometheus),
    **dict.fromkeys(_TRADE_VALUES, Reference.trades),
    **dict.fromkeys(_INSTANCE_VALUES, Reference.instances),
    **dict.fromkeys(
        ("equity", "balance", "margin", "free_margin", "margin_level", "floating_pnl", "drawdown"), Reference.account
    ),
    "account_age": Reference.ages,
    "open_trades": Reference.positions,
    "active_orders": Reference.positions,
    "instances_by_state": Reference.states,
    "signal_backlog": Reference.backlog,
    "result_backlog": Reference.backlog,
}
