"""Which roll-ups a dashboard's questions are answered from."""

from __future__ import annotations

import re

import pytest

from app.clock import wall_ms
from app.model import Query, Statement, TimeRange
from app.query.limits import Limits
from app.query.plan import plan_query
from app.query.sizes import Room
from app.sources.base import Ask
from app.sources.sql.rollups import send_statement, wanted_tables
from tests.rollups.drawing import HOUR_MS, catalogue, rolled_reads

NOW_MS = 1_795_000_123_456
DAY_MS = 24 * HOUR_MS


def sent(
    metric: str, length_ms: int, by: str = "", step_ms: int | None = None, points: int = 1000, exact: bool = False
) -> Statement:
    """The history's statement for a window up to now, as it is sent where all roll-ups are there."""
    query = Query(
        metric, NOW_MS - length_ms, NOW_MS, by=tuple(filter(None, by.split(","))), step_ms=step_ms, max_points=points, exact=exact
    )
    asked = plan_query(catalogue(), query, NOW_MS, Limits()).history
    assert asked is not None
    return send_statement(asked, wanted_tables(asked))


def tables(statement: Statement) -> list[str]:
    """The tables that are read, in order, the raw one among them; gaps aside."""
    parts = [part for part in statement.text.split(" UNION ALL ") if not re.search(r"(?<!NOT) IN \(SELECT hour", part)]
    read = re.sub(r"NOT IN \(SELECT[^)]*\)", "", " ".join(parts))
    return list(dict.fromkeys(re.findall(r"FROM (\w+)", read)))


def sampled_ms(statement: Statement) -> int:
    """How much time is read from the samples, gaps aside."""
    part = r"FROM account_snapshots WHERE ts >= \w+\((\d+)\) AND ts < \w+\((\d+)\)(?! AND toStartOfHour\(ts\) IN)"
    return sum(int(to) - int(begin) for begin, to in re.findall(part, statement.text))


@pytest.mark.parametrize("points", [1000, 200, 40])
@pytest.mark.parametrize("metric", ["equity", "margin_level", "drawdown", "open_trades"])
def test_a_curve_of_thirty_days_by_account_is_read_from_the_extremes_of_each_hour(metric: str, points: int) -> None:
    statement = sent(metric, 30 * DAY_MS, "account", points=points)
    found = tables(statement)
    assert "account_extremes_1h" in found
    assert statement.thin_ms % HOUR_MS == 0
    # Samples are read beside the whole hours only: at both ends less than an hour, and what the live edge may replace.
    assert 0 < sampled_ms(statement) < 2.2 * HOUR_MS


def test_a_curve_of_a_day_by_account_is_read_from_the_samples() -> None:
    assert tables(sent("equity", DAY_MS, "account")) == ["account_snapshots"]


def test_a_total_of_thirty_days_is_read_from_minutes_or_hours() -> None:
    assert "account_snapshots_1m" in tables(sent("equity", 30 * DAY_MS))
    assert "account_snapshots_1h" in tables(sent("equity", 30 * DAY_MS, step_ms=HOUR_MS))
    assert tables(sent("equity", DAY_MS)) == ["account_snapshots"]


def test_a_total_of_very_many_accounts_has_the_step_of_the_hours_where_that_is_next() -> None:
    query = Query("equity", NOW_MS - 30 * DAY_MS, NOW_MS, max_points=1000)
    steps = [plan_query(catalogue(), query, NOW_MS, Limits(), room=Room(behind=behind)).range.step_ms for behind in (1, 1000)]
    assert steps == [300_000, HOUR_MS]


def test_figures_of_orders_are_read_from_roll_ups_except_by_account() -> None:
    assert "orders_1h" in tables(sent("reject_rate", 30 * DAY_MS, "broker", step_ms=6 * HOUR_MS))
    assert "orders_1m" in tables(sent("slippage", DAY_MS, "broker,symbol", step_ms=600_000))
    assert tables(sent("slippage", 30 * DAY_MS, "account", step_ms=6 * HOUR_MS)) == ["orders"]
    assert "orders_1h" in tables(sent("execution_latency", 30 * DAY_MS, step_ms=DAY_MS))
    assert tables(sent("execution_latency", 30 * DAY_MS, "account", step_ms=DAY_MS)) == ["trades"]
    assert tables(sent("total_pnl", 30 * DAY_MS, step_ms=DAY_MS)) == ["trades"]


def test_an_exact_window_has_whole_hours_from_the_roll_up_and_its_edges_from_finer_tables() -> None:
    assert tables(sent("failed_trades", DAY_MS, exact=True)) == ["orders", "orders_1m", "orders_1h"]


def test_what_is_older_than_a_table_keeps_its_rows_comes_from_the_next_coarser_one() -> None:
    now_ms = wall_ms() // HOUR_MS * HOUR_MS
    read = rolled_reads("clickhouse")["open_trades"]
    found = {}
    for days in (80, 90, 100, 365, 400):
        span = TimeRange(now_ms - days * DAY_MS - 3 * HOUR_MS, now_ms - days * DAY_MS + 3 * HOUR_MS, 10_000)
        statement = read.statement(Ask("open_trades", span, ("account",)))
        found[days] = tables(send_statement(statement, ("account_snapshots_1m", "account_snapshots_1h")))
    raw, minutes, hours = "account_snapshots", "account_snapshots_1m", "account_snapshots_1h"
    assert found == {80: [raw], 90: [minutes, raw], 100: [minutes], 365: [hours, minutes], 400: [hours]}
