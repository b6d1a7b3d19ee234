"""Balances, margins and equity of each account at any instant, computed from its trades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.market import USD_PER_UNIT, Floats, Ints, prices
from demo.world import TICK_MS, Trades, World

LEVERAGE = 100


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
    trades = trades.where(np.maximum(trades.executed_ms, trades.closed_ms) > before.at_ms)
    # Account by account: the columns stay small whatever the number of accounts.
    columns = [_account_columns(world, trades.where(trades.account == account), at_ms) for account in range(world.accounts)]
    gained, floating, margin, opened, pending = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    balance = np.round(before.balance + gained, 4)
    credit = np.broadcast_to(world.credits, balance.shape)
    equity = np.round(balance + credit + floating, 4)
    highest = np.maximum(np.maximum.accumulate(equity, axis=0), before.peak_equity)
    free = np.round(equity - margin, 4)
    counts = (opened.astype(np.int64), pending.astype(np.int64))
    return AccountStates(at_ms, balance, credit, equity, margin, free, floating, highest, *counts)


def _account_columns(world: World, trades: Trades, at_ms: Ints) -> tuple[Floats, ...]:
    """At each instant: gain since the opening, floating profit and loss, margin, open positions, pending orders."""
    executed = trades.where(~trades.failed)
    gained = _sum_until(executed.closed_ms, realised_profit(world, executed), at_ms)
    floating, notional = np.zeros(len(at_ms)), np.zeros(len(at_ms))
    for symbol in np.unique(executed.symbol):
        held = executed.where(executed.symbol == symbol)
        signed = held.side * held.lots
        now = prices(world.seed, np.full(len(at_ms), symbol), at_ms)
        net, cost = _open_sum(held, signed, at_ms), _open_sum(held, signed * held.filled, at_ms)
        floating += USD_PER_UNIT[symbol] * (net * now - cost)
        # The margin depends on the fill price, for hedged positions too.
        notional += USD_PER_UNIT[symbol] * _open_sum(held, held.lots * held.filled, at_ms)
    opened = np.round(_open_sum(executed, np.ones(len(executed.number)), at_ms))
    margin = np.where(opened == 0, 0.0, np.round(notional / LEVERAGE, 4))
    ones = np.ones(len(trades.number))
    pending = np.round(_sum_until(trades.signal_ms, ones, at_ms) - _sum_until(trades.executed_ms, ones, at_ms))
    return gained, np.where(opened == 0, 0.0, np.round(floating, 4)), margin, opened, pending


def _open_sum(trades: Trades, amounts: Floats, at_ms: Ints) -> Floats:
    """At each instant, the sum over open positions: executed at or before it, closed after it."""
    return _sum_until(trades.executed_ms, amounts, at_ms) - _sum_until(trades.closed_ms, amounts, at_ms)


def _sum_until(when_ms: Ints, amounts: Floats, at_ms: Ints) -> Floats:
    order = np.argsort(when_ms, kind="stable")
    sums = np.concatenate(([0.0], np.cumsum(amounts[order])))
    found: Floats = sums[np.searchsorted(when_ms[order], at_ms, side="right")]
    return found


def ticks(from_ms: int, to_ms: int) -> Ints:
    """The 10 s grid in [from_ms, to_ms]."""
    return np.arange(-(-from_ms // TICK_MS) * TICK_MS, to_ms + 1, TICK_MS)
