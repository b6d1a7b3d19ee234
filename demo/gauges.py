"""The system's own metrics: every series as a function of time, for the live exporter and for the history in Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from demo.health import cpu_percent, heartbeat_ms, host_figures, memory_mb, socket_failures, states_at, sync_runs
from demo.market import Floats, Ints, hashed
from demo.world import ACTIONS, Trades, World

HEARTBEAT = "tds_instance_last_heartbeat_timestamp_seconds"
_EXECUTION_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0)
_SIGNAL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_SYNC_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0)

Labels = Mapping[str, str]
#: instants -> the series' value at each
Course = Callable[[Ints], Floats]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of the exporter. Its samples are (suffix, labels, course)."""

    name: str
    kind: str
    text: str
    samples: Sequence[tuple[str, Labels, Course]]


def families(world: World) -> Iterator[Family]:
    """Every metric of the world as it is known now. Call again after `World.extend`."""
    yield from _signal_families(world)
    yield from _order_families(world)
    yield from _instance_families(world)
    yield from _sync_families(world)
    yield from _host_families(world)


def _count_until(when_ms: Ints) -> Course:
    ordered = np.sort(when_ms)
    return lambda at_ms: np.searchsorted(ordered, at_ms, side="right").astype(np.float64)


def _counter_family(name: str, text: str, samples: Sequence[tuple[Labels, Course]]) -> Family:
    return Family(name, "counter", text, [("_total", labels, course) for labels, course in samples])


def _gauge_family(name: str, text: str, samples: Sequence[tuple[Labels, Course]]) -> Family:
    return Family(name, "gauge", text, [("", labels, course) for labels, course in samples])


def _histogram_family(name: str, text: str, bounds: Sequence[float], series: Sequence[tuple[Labels, Ints, Floats]]) -> Family:
    """Cumulative buckets, sum and count of the observations (instant, duration in s) of each label set."""
    samples: list[tuple[str, Labels, Course]] = []
    for labels, when_ms, lasted_s in series:
        samples += [("_bucket", {**labels, "le": f"{bound:g}"}, _count_until(when_ms[lasted_s <= bound])) for bound in bounds]
        samples.append(("_bucket", {**labels, "le": "+Inf"}, _count_until(when_ms)))
        samples.append(("_sum", labels, _sum_until(when_ms, lasted_s)))
        samples.append(("_count", labels, _count_until(when_ms)))
    return Family(name, "histogram", text, samples)


def _sum_until(when_ms: Ints, amounts: Floats) -> Course:
    order = np.argsort(when_ms, kind="stable")
    ordered, sums = when_ms[order], np.concatenate(([0.0], np.cumsum(amounts[order])))
    rounded = np.asarray(np.round(sums, 6), dtype=np.float64)
    return lambda at_ms: rounded[np.searchsorted(ordered, at_ms, side="right")]


def signal_times(trades: Trades) -> tuple[Ints, Ints, Ints]:
    """Each signal's number, instant and action (an index into ACTIONS). Closing a trade has its own signal."""
    first = np.unique(trades.signal, return_index=True)[1]
    closed = trades.where(trades.closed_ms > 0)
    numbers = np.concatenate((trades.signal[first], closed.number + 500_000))
    times = np.concatenate((trades.signal_ms[first], closed.closed_ms))
    actions = np.concatenate((np.where(trades.side[first] > 0, 0, 1), np.full(len(closed.number), 2)))
    order = np.argsort(times, kind="stable")
    return numbers[order], times[order], actions[order]


def backlog(world: World, space: int, most: int) -> Course:
    """The number of unfinished entries of a stream: mostly few, rarely many."""
    return lambda at_ms: np.floor(most * hashed(world.seed, at_ms // 1000, np.full_like(at_ms, space)) ** 6)


def _signal_families(world: World) -> Iterator[Family]:
    numbers, times, actions = signal_times(world.trades)
    lost = hashed(world.seed, numbers, np.full_like(numbers, 5)) < 0.004
    lasted_s = 0.001 + 0.02 * hashed(world.seed, numbers, np.full_like(numbers, 6)) ** 3
    each = list(enumerate(ACTIONS))
    yield _counter_family(
        "redis_tss_signals_received",
        "Trade signals taken in",
        [({"action": name}, _count_until(times[actions == place])) for place, name in each],
    )
    yield _counter_family(
        "redis_tss_signals_failed",
        "Trade signals that could not be processed",
        [({"action": name}, _count_until(times[(actions == place) & lost])) for place, name in each],
    )
    yield _histogram_family("redis_tss_signal_processing_seconds", "Arrival to hand-over", _SIGNAL_S, [({}, times, lasted_s)])
    yield _gauge_family("redis_tss_pending_signals", "Signals not finished", [({"group": "executors"}, backlog(world, 21, 9))])
    yield _gauge_family("redis_trs_pending_results", "Results not synced", [({"group": "sync"}, backlog(world, 22, 14))])
    yield _counter_family(
        "redis_tss_connection_errors", "Failed connections to the signal stream", [({}, _count_until(times[lost] + 130))]
    )


def _order_families(world: World) -> Iterator[Family]:
    trades = world.trades
    updates = np.concatenate((trades.signal_ms, trades.executed_ms, trades.closed_ms[trades.closed_ms > 0]))
    yield _counter_family("redis_rts_state_updates", "Updates of the trade state", [({}, _count_until(updates))])
    brokers = np.array([world.broker_of(account) for account in range(world.accounts)])[trades.account]
    responses = [
        (
            {"broker": str(broker), "retcode": str(code)},
            _count_until(trades.executed_ms[(brokers == broker) & (trades.retcode == code)]),
        )
        for broker in np.unique(brokers)
        for code in np.unique(trades.retcode)
    ]
    yield _counter_family("tds_order_responses", "Final responses of the brokers", responses)
    filled = ~trades.failed
    lasted = [
        (
            {"broker": str(broker)},
            trades.executed_ms[filled & (brokers == broker)],
            trades.latency_ms[filled & (brokers == broker)] / 1000,
        )
        for broker in np.unique(brokers)
    ]
    yield _histogram_family("tds_order_execution_seconds", "Order sent to result", _EXECUTION_S, lasted)


def _instance_families(world: World) -> Iterator[Family]:
    def each(course: Callable[[World, int, Ints], Floats]) -> list[tuple[Labels, Course]]:
        return [({"instance": name}, partial(course, world, place)) for place, name in enumerate(world.instance_names)]

    yield _gauge_family(
        "tds_instance_cpu_ratio", "CPU of the terminal", each(lambda *where: np.round(cpu_percent(*where) / 100, 6))
    )
    yield _gauge_family("tds_instance_memory_bytes", "Resident memory", each(lambda *where: memory_mb(*where) * 1048576))
    yield _counter_family("tds_instance_socket_failures", "Failed socket connections", each(socket_failures))
    yield _gauge_family(HEARTBEAT, "The last heartbeat", each(lambda *where: heartbeat_ms(*where) / 1000))
    yield _gauge_family(
        "tds_instances",
        "Terminals in each state",
        [({"state": state}, partial(states_at, world, state)) for state in ("running", "stopped", "crashed")],
    )


def _sync_families(world: World) -> Iterator[Family]:
    runs = {pair: sync_runs(world, pair) for pair in SYNCS}
    labels = {pair: {"source": pair[0], "sink": pair[1]} for pair in SYNCS}
    yield _counter_family(
        "tds_sync_success",
        "Syncs that went through",
        [(labels[pair], _count_until(run.at_ms[run.ok])) for pair, run in runs.items()],
    )
    yield _counter_family(
        "tds_sync_failure", "Syncs that failed", [(labels[pair], _count_until(run.at_ms[~run.ok])) for pair, run in runs.items()]
    )
    lasted = [(labels[pair], run.at_ms[run.ok], run.lasted_s[run.ok]) for pair, run in runs.items()]
    yield _histogram_family("tds_sync_duration_seconds", "Time of a sync", _SYNC_S, lasted)


def _host_families(world: World) -> Iterator[Family]:
    def each(figure: str, scale: float) -> list[tuple[Labels, Course]]:
        return [
            ({"host": name}, partial(_host_figure, world, place, figure, scale)) for place, name in enumerate(world.host_names)
        ]

    yield _gauge_family("tds_host_cpu_load_ratio", "CPU of the host", each("cpu_load", 0.01))
    yield _gauge_family("tds_host_network_latency_seconds", "Round trip to the brokers", each("network_latency_ms", 0.001))
    yield _gauge_family("tds_host_memory_used_bytes", "Memory in use", each("memory_used", 1048576))
    yield _gauge_family("tds_host_disk_used_bytes", "Disk space in use", each("disk_used", 1048576))
    yield _gauge_family(
        "tds_host_disk_used_ratio",
        "Used share of a disk's capacity",
        [({"host": name, "disk": "/"}, partial(_fullness, world, place)) for place, name in enumerate(world.host_names)],
    )
    directions = [
        ({**labels, "direction": direction}, partial(_share_of, course, share))
        for labels, course in each("network_bytes_total", 1)
        for direction, share in (("receive", 0.75), ("transmit", 0.25))
    ]
    yield _counter_family("tds_host_network_bytes", "Bytes over the network", directions)


def _host_figure(world: World, host: int, figure: str, scale: float, at_ms: Ints) -> Floats:
    return np.round(host_figures(world, host, at_ms)[figure] * scale, 6)


def _fullness(world: World, host: int, at_ms: Ints) -> Floats:
    """Every disk is twice as large as what was on it at the start."""
    begins = host_figures(world, host, np.array([world.start_ms], dtype=np.int64))["disk_used"]
    return np.round(host_figures(world, host, at_ms)["disk_used"] / (2 * begins), 6)


def _share_of(course: Course, share: float, at_ms: Ints) -> Floats:
    return np.floor(course(at_ms) * share)


SYNCS = (("rtrs", "duckdb"), ("duckdb", "clickhouse"))


def exposition(known: Iterable[Family], at_ms: int) -> str:
    """The exporter's page at one instant, in Prometheus' text format."""
    now, lines = np.array([at_ms], dtype=np.int64), []
    for family in known:
        name = family.name + ("_total" if family.kind == "counter" else "")
        lines += [f"# HELP {name} {family.text}", f"# TYPE {name} {family.kind}"]
        lines += [
            f"{family.name}{suffix}{_label_text(labels)} {course(now)[0]:.15g}" for suffix, labels, course in family.samples
        ]
    return "\n".join(lines) + "\n"


def openmetrics(known: Iterable[Family], at_ms: Ints) -> Iterator[str]:
    """The same at many instants, as OpenMetrics text for promtool. `instance` and `job` are set as by a scrape."""
    seconds = (at_ms // 1000).tolist()
    for family in known:
        yield f"# TYPE {family.name} {family.kind}\n# HELP {family.name} {family.text}\n"
        for suffix, labels, course in family.samples:
            name = f"{family.name}{suffix}{_label_text({'instance': 'tds', **labels, 'job': 'tds'})}"
            yield "".join(
                f"{name} {value:.15g} {second}\n" for value, second in zip(course(at_ms).tolist(), seconds, strict=True)
            )
    yield "# EOF\n"


def _label_text(labels: Labels) -> str:
    inside = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{{{inside}}}" if inside else ""
