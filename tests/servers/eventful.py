"""A world in which all that is rare has happened lately and is over: what a test finds does not hang on the hour it runs in.

A simulated night has stretches without a trade, and most hours pass without a crash; others end in the middle of one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from demo.market import POINTS, SYMBOLS, prices
from demo.world import HOUR_MS, Outage, Trades, World

MINUTE_MS = 60_000
#: Minutes before the end: a crash, a refused trade, and from when on nothing goes wrong.
CRASH, REFUSED, CALM = 40, 12, 10
_FILLED, _REFUSED = 10009, 10006
_OPEN_MS = 20 * MINUTE_MS


def make_eventful(world: World, until_ms: int) -> None:
    """In the hour before `until_ms` every terminal fills an order a minute, one is refused and one terminal crashes.

    Accounts are ten times as rich, so that no run of losses brings one near an alert rule's limit.
    """
    world.deposits = 10 * world.deposits
    ends_ms = until_ms // MINUTE_MS * MINUTE_MS
    calm_ms = ends_ms - CALM * MINUTE_MS
    crash = Outage(0, ends_ms - CRASH * MINUTE_MS, ends_ms - (CRASH - 2) * MINUTE_MS)
    world.outages = [crash, *(one for one in world.outages if one.to_ms < calm_ms or one.from_ms > until_ms)]
    world.trades = _with(_calmed(world.trades, calm_ms, until_ms), _planted(world, ends_ms))


def _calmed(trades: Trades, from_ms: int, to_ms: int) -> Trades:
    """What was refused in between is filled."""
    mended = trades.failed & (trades.executed_ms >= from_ms) & (trades.executed_ms <= to_ms)
    return replace(
        trades,
        retcode=np.where(mended, _FILLED, trades.retcode),
        closed_ms=np.where(mended, trades.executed_ms + _OPEN_MS, trades.closed_ms),
    )


def _planted(world: World, ends_ms: int) -> Trades:
    minutes = np.repeat(np.arange(60), world.instances)
    place = np.arange(len(minutes))
    # By turns the terminal's two accounts, but for those that hardly ever trade (every sixth).
    account = 2 * (place % world.instances) + minutes % 2
    account = np.where(account % 6 == 5, account - 1, account)
    symbol, side = place % len(SYMBOLS), np.where(minutes % 3, 1, -1)
    signal_ms = ends_ms - minutes * MINUTE_MS - MINUTE_MS // 2
    number = (signal_ms // HOUR_MS - world.start_ms // HOUR_MS) * 1_000_000 + 900_000 + place
    refused = (minutes == REFUSED) & (account == 0)
    latency_ms = 50 + place % 50
    requested = prices(world.seed, symbol, signal_ms)
    return Trades(
        number=number,
        signal=number,
        account=account,
        symbol=symbol,
        side=side,
        limit=np.zeros(len(place), dtype=np.bool_),
        lots=np.full(len(place), 0.1),
        signal_ms=signal_ms,
        executed_ms=signal_ms + latency_ms,
        closed_ms=np.where(refused, 0, signal_ms + latency_ms + _OPEN_MS),
        requested=requested,
        filled=np.where(refused, requested, requested + side * POINTS[symbol]),
        retcode=np.where(refused, _REFUSED, _FILLED),
        latency_ms=latency_ms,
    )


def _with(trades: Trades, more: Trades) -> Trades:
    """Both, by the time of their signal."""
    both = Trades(*(np.concatenate([getattr(trades, name), getattr(more, name)]) for name in Trades.__slots__))
    return both.where(np.argsort(both.signal_ms, kind="stable"))
