"""Balances, margins and equity of each account at any instant, computed from its trades."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from demo.market import USD_PER_UNIT, Floats, Ints, prices
from demo.world import COARSE_MS, TICK_MS, Trades, World

LEVERAGE = 100
_CHUNK_CELLS = 500_000


@dataclass(frozen=True, slots=True)
class AccountStates:
    """One row per instant, one column per account; amounts in USD, rounded to 4 decimals.

    equity = balance + credit + floating_pnl; free_margin = equity - margin; peak_equity is the highest equity of any tick so far.
    """

    at_ms: Ints
    balance: Floats
    credit: Floats
    equity: Floats
    margin: Floats
    free_margin: Floats
    floating_pnl: Floats
    peak_equity: Floats
    open_positions: Ints
    pending_orders: Ints


def commission(trades: Trades) -> Floats:
    """The broker's commission for a trade, as a negative amount."""
    return np.round(-3.5 * trades.lots, 4)


def swap(trades: Trades) -> Floats:
    """The swap, charged at the close of positions that were open for more than half an hour."""
    return np.where(trades.closed_ms - trades.executed_ms > 1_800_000, np.round(-0.8 * trades.lots, 4), 0.0)


def fees(trades: Trades) -> Floats:
    """The exchange's fees, as a positive amount."""
    return np.round(0.2 * trades.lots, 4)


def realised_profit(world: World, trades: Trades) -> Floats:
    """The amount that a closed trade adds to its account's balance."""
    profit = trades.profit(world.seed, trades.closed_ms)
    return np.round(profit + commission(trades) + swap(trades) - fees(trades), 4)


@dataclass(frozen=True, slots=True)
class Opening:
    """The accounts at an instant: enough to continue without the trades that were closed by then."""

    at_ms: int
    balance: Floats
    peak_equity: Floats


def opening(world: World) -> Opening:
    """The accounts at the world's start."""
    return Opening(world.start_ms, world.deposits, world.deposits + world.credits)


def closing(states: AccountStates) -> Opening:
    """The accounts at the last instant of the states."""
    return Opening(int(states.at_ms[-1]), states.balance[-1], states.peak_equity[-1])


def states(world: World, at_ms: Ints, before: Opening) -> AccountStates:
    """The accounts at ascending instants after `before`."""
    trades = world.trades
    trades = trades.where((np.maximum(trades.executed_ms, trades.closed_ms) > before.at_ms) & (trades.signal_ms <= at_ms[-1]))
    grid = _Grid(at_ms, world.accounts)
    executed = trades.where(~trades.failed)
    gained = grid.sum_until(executed.account, executed.closed_ms, realised_profit(world, executed))
    opened = np.round(grid.open_sum(executed, np.ones(len(executed.number))))
    floating, margin = _floating_and_margin(world, executed, grid)
    balance = np.round(before.balance + gained, 4)
    credit = np.broadcast_to(world.credits, balance.shape)
    floating = np.where(opened == 0, 0.0, np.round(floating, 4))
    margin = np.where(opened == 0, 0.0, np.round(margin, 4))
    equity = np.round(balance + credit + floating, 4)
    highest = np.maximum(np.maximum.accumulate(equity, axis=0), before.peak_equity)
    ones = np.ones(len(trades.number))
    pending = grid.sum_until(trades.account, trades.signal_ms, ones) - grid.sum_until(trades.account, trades.executed_ms, ones)
    counts = (opened.astype(np.int64), np.round(pending).astype(np.int64))
    return AccountStates(at_ms, balance, credit, equity, margin, np.round(equity - margin, 4), floating, highest, *counts)


def chunks(world: World, at_ms: Ints, before: Opening) -> Iterator[AccountStates]:
    """The same as `states`, some instants at a time: about a million cells of each column."""
    each = max(1, _CHUNK_CELLS // world.accounts)
    for first in range(0, len(at_ms), each):
        found = states(world, at_ms[first : first + each], before)
        yield found
        before = closing(found)


def opening_at(world: World, at_ms: Ints) -> Opening:
    """The accounts at the last of these instants (the world's start if there are none)."""
    before = opening(world)
    for found in chunks(world, at_ms, before):
        before = closing(found)
    return before


@dataclass(frozen=True, slots=True)
class _Grid:
    """Sums at each instant (rows) for each account (columns)."""

    at_ms: Ints
    accounts: int

    def sum_until(self, account: Ints, when_ms: Ints, amounts: Floats) -> Floats:
        """The sum of the amounts whose time has come."""
        rows = np.searchsorted(self.at_ms, when_ms, side="left")
        inside = rows < len(self.at_ms)
        cells = rows[inside] * self.accounts + account[inside]
        added = np.bincount(cells, amounts[inside], len(self.at_ms) * self.accounts)
        return np.cumsum(added.reshape(len(self.at_ms), self.accounts), axis=0)

    def open_sum(self, trades: Trades, amounts: Floats) -> Floats:
        """The sum over open positions: executed at or before the instant, closed after it."""
        account = np.concatenate((trades.account, trades.account))
        when_ms = np.concatenate((trades.executed_ms, trades.closed_ms))
        return self.sum_until(account, when_ms, np.concatenate((amounts, -amounts)))


def _floating_and_margin(world: World, executed: Trades, grid: _Grid) -> tuple[Floats, Floats]:
    shape = (len(grid.at_ms), grid.accounts)
    floating, notional = np.zeros(shape), np.zeros(shape)
    for symbol in np.unique(executed.symbol):
        held = executed.where(executed.symbol == symbol)
        signed = held.side * held.lots
        now = prices(world.seed, np.full(len(grid.at_ms), symbol), grid.at_ms)
        net, cost = grid.open_sum(held, signed), grid.open_sum(held, signed * held.filled)
        floating += USD_PER_UNIT[symbol] * (net * now[:, np.newaxis] - cost)
        # The margin depends on the fill price, for hedged positions too.
        notional += USD_PER_UNIT[symbol] * grid.open_sum(held, held.lots * held.filled)
    return floating, notional / LEVERAGE


def ticks(from_ms: int, to_ms: int) -> Ints:
    """The 10 s grid in [from_ms, to_ms]."""
    return np.arange(-(-from_ms // TICK_MS) * TICK_MS, to_ms + 1, TICK_MS)


def instants(world: World, until_ms: int) -> Ints:
    """When the world is sampled, from its start to `until_ms`: every 10 s, and every 10 minutes before `fine_from_ms`."""
    coarse = np.arange(-(-world.start_ms // COARSE_MS) * COARSE_MS, min(world.fine_from_ms, until_ms + 1), COARSE_MS)
    return np.concatenate((coarse, ticks(world.fine_from_ms, until_ms)))
