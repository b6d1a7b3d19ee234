"""The simulated world: the same for a seed, consistent with itself, and seamless where the history becomes the live feed."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np
import pytest

from demo.accounts import closing, opening, realised_profit, states, ticks
from demo.gauges import exposition, families, openmetrics
from demo.rows import snapshot_columns, trade_columns
from demo.world import HOUR_MS, TICK_MS, World

START = 1_763_899_200_000
END = START + 3 * HOUR_MS


def world(seed: int = 7, until_ms: int = END) -> World:
    made = World(seed, 6, START)
    made.extend(until_ms)
    return made


def digest(made: World) -> str:
    columns = b"".join(np.ascontiguousarray(getattr(made.trades, name)).tobytes() for name in made.trades.__slots__)
    return hashlib.sha256(columns + repr(made.outages).encode()).hexdigest()


def test_a_seed_makes_the_same_world_every_time_and_another_seed_another() -> None:
    assert digest(world()) == digest(world())
    assert digest(world()) != digest(world(seed=8))


def test_the_world_is_the_same_whether_known_at_once_or_hour_by_hour() -> None:
    stepped = World(7, 6, START)
    for hour in range(1, 4):
        stepped.extend(START + hour * HOUR_MS)
    assert digest(stepped) == digest(world())


def test_equity_is_balance_and_credit_and_floating_profit_and_margin_is_zero_without_positions() -> None:
    found = states(made := world(), ticks(START, END), opening(made))
    np.testing.assert_allclose(found.equity, found.balance + found.credit + found.floating_pnl, atol=1e-6)
    np.testing.assert_allclose(found.free_margin, found.equity - found.margin, atol=1e-6)
    np.testing.assert_array_equal(found.margin == 0, found.open_positions == 0)
    assert (np.diff(found.peak_equity, axis=0) >= 0).all()
    assert (found.peak_equity >= found.equity).all()
    assert (found.margin == 0).any()


def test_balances_are_deposits_and_what_trades_have_realised() -> None:
    made = world()
    found = states(made, np.array([END]), opening(made))
    trades = made.trades.where((made.trades.closed_ms > 0) & (made.trades.closed_ms <= END))
    earned = np.bincount(trades.account, realised_profit(made, trades), made.accounts)
    np.testing.assert_allclose(found.balance[0], made.deposits + earned, atol=1e-6)


def test_positions_are_the_trades_that_are_executed_and_not_closed() -> None:
    made = world()
    found = states(made, np.array([END]), opening(made))
    trades = made.trades
    opened = ~trades.failed & (trades.executed_ms <= END) & (trades.closed_ms > END)
    waiting = (trades.signal_ms <= END) & (trades.executed_ms > END)
    assert found.open_positions[0].tolist() == np.bincount(trades.account[opened], minlength=made.accounts).tolist()
    assert found.pending_orders[0].tolist() == np.bincount(trades.account[waiting], minlength=made.accounts).tolist()


def test_no_trade_is_executed_before_its_signal_or_closed_before_it_is_executed() -> None:
    trades = world().trades
    done = trades.where(~trades.failed)
    assert (trades.executed_ms > trades.signal_ms).all()
    assert (done.closed_ms > done.executed_ms).all()
    assert (trades.where(trades.failed).closed_ms == 0).all()


@pytest.mark.parametrize("at_ms", [START + HOUR_MS, START + 2 * HOUR_MS + 5 * TICK_MS])
def test_going_on_from_an_instant_gives_what_computing_it_all_gives(at_ms: int) -> None:
    made = world()
    whole = states(made, ticks(START, END), opening(made))
    later = states(made, ticks(at_ms + 1, END), closing(states(made, ticks(START, at_ms), opening(made))))
    kept = whole.at_ms > at_ms
    for one in fields(whole):
        np.testing.assert_allclose(getattr(whole, one.name)[kept], getattr(later, one.name), atol=1e-4, err_msg=one.name)


def test_rows_have_columns_of_one_length() -> None:
    made = world()
    for columns in (
        trade_columns(made, made.trades, closed=False),
        snapshot_columns(made, states(made, ticks(START, END), opening(made))),
    ):
        assert len({len(cells) for cells in columns.values()}) == 1


def test_the_exporter_and_the_backfill_agree() -> None:
    made = world()
    page = exposition(list(families(made)), END)
    history = "".join(openmetrics(families(made), np.array([END])))
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    for line in lines[:: len(lines) // 20]:
        value = line.rsplit(" ", 1)[1]
        name = line.split("{")[0].split(" ")[0]
        assert any(one.startswith(name) and one.endswith(f" {value} {END // 1000}") for one in history.splitlines()), line
