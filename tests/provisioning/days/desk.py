"""A desk's day as the alert rules see it: every figure at every evaluation, computed from the simulated world in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from app.model import Labels, Values
from demo.accounts import opening, states
from demo.gauges import backlog
from demo.health import heartbeat_ms, sync_runs
from demo.world import HOUR_MS, Outage, World

EVERY_MS = 10_000
#: before the day begins, so that the first windows are full
_BEFORE_MS = HOUR_MS
_FINE = (0, 10008, 10009, 10010, 10025)
_SYNCS = (("rtrs", "duckdb"), ("duckdb", "clickhouse"))


class QuietWorld(World):
    """The simulated world on a day on which no terminal crashes."""

    def _outages_of_hour(self, from_ms: int) -> list[Outage]:
        return []


@dataclass(frozen=True, slots=True)
class Trouble:
    """From one second of the day to another a figure of one label set is `value`, or with `grows` one more each second."""

    metric: str
    labels: Labels
    from_s: int
    to_s: int
    value: float
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Rejecting:
    """A broker rejects every nth order for a while."""

    broker: str
    from_s: int
    to_s: int
    every: int


@dataclass(frozen=True, slots=True)
class Failing:
    """A store does not answer (`down`), or has nothing of a metric."""

    source: str
    from_s: int
    to_s: int
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """A figure of several label sets: one row an evaluation, NaN where there is none."""

    labels: Sequence[Labels]
    values: Values


@dataclass(frozen=True)
class Desk:
    """A day of `hours` hours, with what goes wrong in it."""

    seed: int
    hours: float
    instances: int = 12
    troubles: tuple[Trouble | Rejecting | Failing, ...] = ()
    start_ms: int = 1_795_910_400_000
    figures: dict[str, Figures] = field(default_factory=dict)

    @cached_property
    def world(self) -> World:
        """The world, from an hour before the day on."""
        made = QuietWorld(self.seed, self.instances, self.start_ms - _BEFORE_MS)
        made.extend(self.start_ms + round(self.hours * HOUR_MS) + HOUR_MS)
        return made

    @cached_property
    def at_ms(self) -> np.ndarray:
        """The instants of evaluation."""
        return np.arange(self.start_ms, self.start_ms + round(self.hours * HOUR_MS), EVERY_MS)

    def place(self, now_ms: int) -> int:
        """The number of the evaluation at that instant."""
        return (now_ms - self.start_ms) // EVERY_MS

    def figure(self, metric: str) -> Figures:
        """Every value of a metric that is not a share of orders."""
        if metric not in self.figures:
            made = _FIGURES[metric](self)
            for trouble in self.troubles:
                if isinstance(trouble, Trouble) and trouble.metric == metric:
                    self._spoil(made, trouble)
            self.figures[metric] = made
        return self.figures[metric]

    def _spoil(self, made: Figures, trouble: Trouble) -> None:
        seconds = (self.at_ms - self.start_ms) // 1000
        inside = (seconds >= trouble.from_s) & (seconds < trouble.to_s)
        value = trouble.value + (seconds - trouble.from_s) * trouble.grows
        made.values[inside, made.labels.index(trouble.labels)] = value[inside]

    def failure(self, source: str, now_ms: int, metric: str) -> Failing | None:
        """What is wrong with a store now, as to this metric."""
        now_s = (now_ms - self.start_ms) // 1000
        for trouble in self.troubles:
            known = isinstance(trouble, Failing) and trouble.source == source and trouble.metric in ("", metric)
            if known and trouble.from_s <= now_s < trouble.to_s:
                assert isinstance(trouble, Failing)
                return trouble
        return None

    @cached_property
    def orders(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Broker -> when each of its orders was answered, ascending, and how many were rejected up to each."""
        trades = self.world.trades
        brokers = np.array([self.world.broker_of(account) for account in range(self.world.accounts)])[trades.account]
        found = {}
        for broker in np.unique(brokers):
            mine = np.flatnonzero(brokers == broker)
            mine = mine[np.argsort(trades.executed_ms[mine], kind="stable")]
            at_ms, rejected = trades.executed_ms[mine], ~np.isin(trades.retcode[mine], _FINE)
            found[str(broker)] = at_ms, np.concatenate(([0], np.cumsum(self._with_rejects(str(broker), at_ms, rejected))))
        return found

    def _with_rejects(self, broker: str, at_ms: np.ndarray, rejected: np.ndarray) -> np.ndarray:
        for trouble in self.troubles:
            if isinstance(trouble, Rejecting) and trouble.broker == broker:
                since, until = (self.start_ms + second * 1000 for second in (trouble.from_s, trouble.to_s))
                hit = np.flatnonzero((at_ms >= since) & (at_ms < until))
                rejected = rejected.copy()
                rejected[hit[:: trouble.every]] = True
        return rejected

    def shares(self, from_ms: np.ndarray, to_ms: np.ndarray) -> Mapping[str, tuple[Values, Values]]:
        """Broker -> the share of rejected orders in percent in each window, and the number of orders."""
        found = {}
        for broker, (at_ms, rejected) in self.orders.items():
            first, last = (np.searchsorted(at_ms, edge, side="left") for edge in (from_ms, to_ms))
            orders = (last - first).astype(np.float64)
            with np.errstate(invalid="ignore"):
                found[broker] = 100 * (rejected[last] - rejected[first]) / np.where(orders > 0, orders, np.nan), orders
        return found


def _accounts(desk: Desk) -> Mapping[str, Values]:
    found = states(desk.world, desk.at_ms, opening(desk.world))
    used = np.where(found.margin < 0.00005, np.nan, found.margin)
    peak = np.maximum(found.peak_equity, 0.01)
    return {"margin_level": found.equity / used * 100, "drawdown": (found.peak_equity - found.equity) / peak * 100}


def _of_accounts(metric: str) -> Callable[[Desk], Figures]:
    labels = [(("account", f"ACC{1001 + place}"),) for place in range(1000)]

    def made(desk: Desk) -> Figures:
        for name, values in _accounts(desk).items() if not desk.figures.keys() & {"margin_level", "drawdown"} else ():
            desk.figures[f"accounts:{name}"] = Figures(labels[: desk.world.accounts], values)
        return desk.figures[f"accounts:{metric}"]

    return made


def _ages(desk: Desk) -> Figures:
    """The world writes every account every second."""
    labels = [(("account", name),) for name in desk.world.account_names]
    return Figures(labels, np.zeros((len(desk.at_ms), len(labels))))


def _beats(desk: Desk) -> Figures:
    labels = [(("instance", name),) for name in desk.world.instance_names]
    ages = [(desk.at_ms - heartbeat_ms(desk.world, place, desk.at_ms)) / 1000 for place in range(len(labels))]
    return Figures(labels, np.stack(ages, axis=1))


def _pairs() -> list[Labels]:
    return [(("sink", sink), ("source", source)) for source, sink in _SYNCS]


def _failures(desk: Desk) -> Figures:
    """Failed syncs a minute, over the five minutes before."""
    columns = []
    for pair in _SYNCS:
        runs = sync_runs(desk.world, pair)
        failed = runs.at_ms[~runs.ok]
        last, first = (np.searchsorted(failed, desk.at_ms - back, side="right") for back in (0, 300_000))
        columns.append((last - first) / 5.0)
    return Figures(_pairs(), np.stack(columns, axis=1))


def _latencies(desk: Desk) -> Figures:
    """The 95th percentile over the five minutes before."""
    columns = []
    for pair in _SYNCS:
        runs = sync_runs(desk.world, pair)
        at_ms, lasted = runs.at_ms[runs.ok], runs.lasted_s[runs.ok]
        last, first = (np.searchsorted(at_ms, desk.at_ms - back, side="right") for back in (0, 300_000))
        columns.append(np.array([np.quantile(lasted[a:b], 0.95) for a, b in zip(first, last, strict=True)]))
    return Figures(_pairs(), np.stack(columns, axis=1))


def _disks(desk: Desk) -> Figures:
    """Every disk is half full."""
    labels = [(("disk", "/"), ("host", name)) for name in desk.world.host_names]
    return Figures(labels, np.full((len(desk.at_ms), len(labels)), 50.0))


def _waiting(group: str, space: int, most: int) -> Callable[[Desk], Figures]:
    return lambda desk: Figures([(("group", group),)], backlog(desk.world, space, most)(desk.at_ms)[:, None])


_FIGURES: Mapping[str, Callable[[Desk], Figures]] = {
    "margin_level": _of_accounts("margin_level"),
    "drawdown": _of_accounts("drawdown"),
    "account_age": _ages,
    "heartbeat_age": _beats,
    "sync_failure": _failures,
    "sync_latency": _latencies,
    "disk_fullness": _disks,
    "signal_backlog": _waiting("executors", 21, 9),
    "result_backlog": _waiting("sync", 22, 14),
}
