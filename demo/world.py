"""The simulated trade distribution: terminals, accounts and every trade, as a function of seed, size and start.

There are no simulation steps. Each hour's signals come from their own random generator, and each trade has the instants of its
signal, execution and closing. Everything else (balances, counters, states) is computed from them for any instant. So history and
live feed are the same world, without a gap or an overlap between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from demo.market import POINTS, SYMBOLS, USD_PER_UNIT, Floats, Ints, hashed, prices

HOUR_MS = 3_600_000
TICK_MS = 10_000
#: the distance of samples before a world's `fine_from_ms`
COARSE_MS = 600_000
#: as many terminals trade before a world's `fine_from_ms`
QUIET_INSTANCES = 50
ACTIONS = ("buy", "sell", "close")
_SIGNALS_AN_HOUR = 420
_BROKERS = ("alpha", "bravo", "charlie")
_REJECTS = np.array([10004, 10006, 10019, 10021])
_CONNECTION_LOST = 10031
#: A healthy broker rejects about two orders in a thousand.
_REJECTED = 0.002

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades as columns of equal length, ordered by the time of their signal. Times are in ms; a failed trade is closed at 0."""

    number: Ints
    signal: Ints
    account: Ints
    symbol: Ints
    side: Ints
    limit: Flags
    lots: Floats
    signal_ms: Ints
    executed_ms: Ints
    closed_ms: Ints
    requested: Floats
    filled: Floats
    retcode: Ints
    latency_ms: Ints

    def where(self, keep: Flags | Ints) -> Trades:
        """Only these rows."""
        return Trades(*(getattr(self, name)[keep] for name in self.__slots__))

    @property
    def failed(self) -> Flags:
        """The trades that the broker refused."""
        return ~np.isin(self.retcode, (10009, 10010))

    def profit(self, seed: int, at_ms: Ints) -> Floats:
        """Each trade's gain in USD at each instant, without commission and swap."""
        now = prices(seed, self.symbol, at_ms)
        gained: Floats = np.round(self.side * self.lots * USD_PER_UNIT[self.symbol] * (now - self.filled), 4)
        return gained


@dataclass(frozen=True, slots=True)
class Outage:
    """A terminal's outage: it crashed at `from_ms` and ran again at `to_ms`; in the last 20 s its state was "stopped"."""

    instance: int
    from_ms: int
    to_ms: int


class World:
    """Everything that happens from `start_ms` (a full hour) on. `extend` computes further hours.

    What is before `fine_from_ms` is kept coarser, for long histories: samples are further apart, and many terminals have no more
    trades than `QUIET_INSTANCES` of them.
    """

    def __init__(self, seed: int, instances: int, start_ms: int, fine_from_ms: int = 0) -> None:
        self.seed = seed
        self.start_ms = start_ms // HOUR_MS * HOUR_MS
        self.fine_from_ms = max(self.start_ms, fine_from_ms // HOUR_MS * HOUR_MS)
        self.instances = instances
        self.accounts = 2 * instances
        self.hosts = max(1, -(-instances // 4))
        self.until_ms = self.start_ms
        self.trades = _concatenate_trades([])
        self.outages: list[Outage] = []
        self._grouped: tuple[list[Outage], dict[int, list[Outage]]] = (self.outages, {})

    def extend(self, until_ms: int) -> None:
        """Compute every hour that begins before `until_ms`."""
        hours = [self.trades]
        while self.until_ms < until_ms:
            self.outages = [*self.outages, *self._outages_of_hour(self.until_ms)]
            hours.append(self._trades_of_hour(self.until_ms))
            self.until_ms += HOUR_MS
        if len(hours) > 1:
            self.trades = _concatenate_trades(hours)

    @cached_property
    def account_names(self) -> tuple[str, ...]:
        """The accounts, two for each terminal."""
        return tuple(f"ACC{1001 + place}" for place in range(self.accounts))

    @cached_property
    def instance_names(self) -> tuple[str, ...]:
        """The terminals."""
        return tuple(f"mt5-{place + 1:03d}" for place in range(self.instances))

    @cached_property
    def host_names(self) -> tuple[str, ...]:
        """The hosts, with four terminals each."""
        return tuple(f"host-{place + 1}" for place in range(self.hosts))

    def instance_of(self, account: int) -> int:
        """The terminal of an account."""
        return account // 2

    def broker_of(self, account: int) -> str:
        """The broker of an account."""
        return _BROKERS[self.instance_of(account) % len(_BROKERS)]

    def broker_of_instance(self, instance: int) -> str:
        """The broker of a terminal."""
        return _BROKERS[instance % len(_BROKERS)]

    @cached_property
    def deposits(self) -> Floats:
        """Each account's first deposit: enough for its trades, so that no account comes near a margin call by itself."""
        return np.round(30_000 + 45_000 * hashed(self.seed, np.arange(self.accounts), np.full(self.accounts, 77)), -2)

    @cached_property
    def credits(self) -> Floats:
        """The credit that a few accounts have."""
        return np.where(np.arange(self.accounts) % 8 == 3, 500.0, 0.0)

    def states(self, at_ms: int) -> list[str]:
        """Each terminal's state at an instant."""
        found = ["running"] * self.instances
        for outage in self.outages:
            if outage.from_ms <= at_ms < outage.to_ms:
                found[outage.instance] = "stopped" if at_ms >= outage.to_ms - 20_000 else "crashed"
        return found

    def down(self, instance: int, at_ms: Ints) -> Flags:
        """Whether a terminal is not running at each instant."""
        found = np.zeros(at_ms.shape, dtype=np.bool_)
        for outage in self.outages_of(instance):
            found |= (at_ms >= outage.from_ms) & (at_ms < outage.to_ms)
        return found

    def outages_of(self, instance: int) -> Sequence[Outage]:
        """The outages of a terminal, in the order of their time."""
        known, grouped = self._grouped
        if known is not self.outages:
            grouped = {}
            for outage in self.outages:
                grouped.setdefault(outage.instance, []).append(outage)
            self._grouped = (self.outages, grouped)
        return grouped.get(instance, ())

    def uuid(self, number: int, space: int) -> str:
        """A stable id: the same number in the same world gives the same id."""
        return f"{self.seed & 0xFFFF:04x}{space:04x}-0000-4000-8000-{number:012x}"

    def _outages_of_hour(self, from_ms: int) -> list[Outage]:
        rng = np.random.default_rng([self.seed, 1, from_ms // HOUR_MS])
        begins = rng.integers(0, HOUR_MS - 420_000, self.instances)
        lasts = rng.integers(60_000, 300_000, self.instances)
        crashed = np.flatnonzero(rng.random(self.instances) < 0.02)
        return [
            Outage(
                int(place),
                from_ms + int(begins[place]) // 1000 * 1000,
                from_ms + int(begins[place] + lasts[place]) // 1000 * 1000,
            )
            for place in crashed
        ]

    def _trades_of_hour(self, from_ms: int) -> Trades:
        hour = from_ms // HOUR_MS
        rng = np.random.default_rng([self.seed, 2, hour])
        # There are more trades in the day of London and New York than at night.
        busy = 0.6 + 0.4 * np.sin((hour % 24 - 7) / 24 * 2 * np.pi)
        trading = self.instances if from_ms >= self.fine_from_ms else min(self.instances, QUIET_INSTANCES)
        signals = int(_SIGNALS_AN_HOUR * busy * trading / 12)
        copies = rng.integers(1, 4, signals)
        signal = np.repeat(np.arange(signals), copies)
        count = len(signal)
        at_ms = np.sort(rng.integers(from_ms, from_ms + HOUR_MS, signals))[signal]
        symbol = rng.integers(0, len(SYMBOLS), signals)[signal]
        side = rng.choice(np.array([1, -1]), signals)[signal]
        limit = (rng.random(signals) < 0.15)[signal]
        account = self._chosen_accounts(rng, count)
        latency_ms = np.clip(rng.lognormal(4.2, 0.6, count), 8, 4000).astype(np.int64)
        waits_ms = np.where(limit, rng.integers(30_000, 600_000, count), 0)
        executed_ms = at_ms + waits_ms + latency_ms
        requested = prices(self.seed, symbol, at_ms + waits_ms)
        slip = np.round(rng.normal(1.2, 4.0, count))
        trades = Trades(
            number=(hour - self.start_ms // HOUR_MS) * 1_000_000 + np.arange(count),
            signal=(hour - self.start_ms // HOUR_MS) * 1_000_000 + signal,
            account=account,
            symbol=symbol,
            side=side,
            limit=limit,
            lots=np.round(rng.choice(np.array([0.01, 0.02, 0.05, 0.1, 0.2]), count), 2),
            signal_ms=at_ms,
            executed_ms=executed_ms,
            closed_ms=executed_ms + rng.integers(60_000, 2_700_000, count),
            requested=requested,
            filled=np.round((requested + side * slip * POINTS[symbol]) / POINTS[symbol]) * POINTS[symbol],
            retcode=self._draw_retcodes(rng, account, executed_ms),
            latency_ms=latency_ms,
        )
        return self._settle_failed(trades)

    def _chosen_accounts(self, rng: np.random.Generator, count: int) -> Ints:
        # Every sixth account trades so rarely that it often has no position (and no margin).
        weights = np.where(np.arange(self.accounts) % 6 == 5, 0.03, 1.0)
        return rng.choice(self.accounts, count, p=weights / weights.sum())

    def _draw_retcodes(self, rng: np.random.Generator, account: Ints, executed_ms: Ints) -> Ints:
        chance = rng.random(len(account))
        codes = np.where(chance < 0.03, 10010, 10009)
        codes = np.where(chance > 1 - _REJECTED, rng.choice(_REJECTS, len(account)), codes)
        for outage in self.outages:
            if outage.to_ms < executed_ms.min():
                continue
            cut_off = (account // 2 == outage.instance) & (executed_ms >= outage.from_ms) & (executed_ms < outage.to_ms)
            codes = np.where(cut_off, _CONNECTION_LOST, codes)
        return codes

    def _settle_failed(self, trades: Trades) -> Trades:
        failed = trades.failed
        return replace(
            trades,
            closed_ms=np.where(failed, 0, trades.closed_ms),
            filled=np.where(failed, trades.requested, trades.filled),
        )


def _concatenate_trades(parts: Iterable[Trades]) -> Trades:
    given = list(parts) or [_NONE]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in given]) for name in Trades.__slots__}
    return Trades(**columns)


_REALS = ("lots", "requested", "filled")
_EMPTY: dict[str, Any] = {
    name: np.array([], dtype=np.bool_ if name == "limit" else np.float64 if name in _REALS else np.int64)
    for name in Trades.__slots__
}
_NONE = Trades(**_EMPTY)
