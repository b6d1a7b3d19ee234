"""The six dashboards of the trade system: first the important figures, then curves, then tables."""

from __future__ import annotations

from app.catalog import Catalogue
from dashboards.board import Board, uid
from dashboards.limits import BAD, GOOD, thresholds
from dashboards.panels import HOUR, Panels, logarithmic

SLIPPAGE = (
    "**Sign: positive is worse for the account**, for buys and sells alike. Some platforms show the opposite (negative = loss), "
    "and brokers report it as seen by the house. One pip is 10 points on symbols of 3 or 5 digits."
)
THIS_HOUR = "Of the clock hour that is running (the one before where this one has none yet)."
_CALCULATED = "The bridge computes it from all chosen accounts, never from averages."


def trade_execution(catalogue: Catalogue) -> Board:
    """Open trades, pending orders, failed trades and slippage."""
    panels = Panels(catalogue, ("broker", "account", "symbol"))
    board = Board(
        catalogue,
        "trade_execution",
        "TDS / Trade execution",
        'Open trades, active orders, failed trades, slippage. In the design\'s first sketch "Open Trades" showed '
        "`trade_state_updates_per_sec`, which is a rate: here the positions are counted, and the rate has a panel of its own.",
    )
    board.variables("broker", "account", "symbol").events("trade_failures", "system_events")
    corrected = 'The design\'s sketch plotted `trade_state_updates_per_sec` here; that rate is the panel "Trade state updates".'
    stats = [
        panels.value("open_trades", note=corrected),
        panels.value("active_orders"),
        panels.total("failed_trades", "Failed trades in range", "No data: none failed in the range."),
        panels.value("slippage", title="Slippage this hour (points)", note=f"{THIS_HOUR} {SLIPPAGE}", step=HOUR),
        panels.worst("slippage", "symbol", "max", "Slippage this hour, worst symbol (points)", f"{THIS_HOUR} {SLIPPAGE}", True),
        panels.value("state_updates", note="A rate of updates, not a number of trades."),
    ]
    board.head(8, stats, (panels.state("open_trades", "active_orders", "failed_trades", "slippage", "state_updates"), 6))
    board.row("Over time")
    board.line(9, (panels.lines("open_trades", "broker"), 12), (panels.lines("active_orders", "broker"), 12))
    board.line(
        9,
        (panels.lines("slippage", "symbol", title="Slippage by symbol (points)", note=SLIPPAGE).interval("1m"), 12),
        (panels.bars("failed_trades", "broker"), 12),
    )
    board.row("In detail")
    board.line(
        10,
        (panels.matrix("By account, now", "account", "open_trades", "active_orders", link=uid("account")), 10),
        (panels.events("trade_failures"), 14),
    )
    return board


def account(catalogue: Catalogue) -> Board:
    """The equity of each account, and how near it is to a margin call."""
    panels = Panels(catalogue, ("broker", "account"))
    board = Board(
        catalogue,
        "account",
        "TDS / Accounts",
        "Equity, margin and drawdown, in deposit currency. Live from Redis, history from DuckDB's snapshots: one curve.",
        "now-2h",
    )
    board.variables("broker", "account").events("system_events")
    stats = [
        panels.value("equity"),
        panels.value("floating_pnl"),
        panels.worst("free_margin", "account", "min", "Free margin, lowest account"),
        panels.worst("margin_level", "account", "min", "Margin level, lowest account", "Below 150 % a margin call is near."),
        panels.worst("drawdown", "account", "max", "Drawdown, worst account"),
        panels.value("margin_level", title="Margin level, all together", note=_CALCULATED),
    ]
    metrics = ("equity", "balance", "margin", "free_margin", "margin_level", "floating_pnl", "drawdown", "account_age")
    board.head(8, stats, (panels.state(*metrics), 6))
    board.row("Over time")
    board.line(
        9,
        (panels.several("Equity and balance", "equity", "balance", note="The gap between the two is the floating result."), 12),
        (panels.lines("floating_pnl", "broker"), 12),
    )
    board.line(
        9,
        (logarithmic(panels.lines("margin_level", "account", note="A gap means that no margin is used.")), 12),
        (panels.lines("drawdown", "account"), 12),
    )
    board.line(
        8,
        (panels.lines("equity", "account"), 8),
        (panels.several("Margin", "margin", "free_margin"), 8),
        (panels.lines("account_age", "account", note="The present only: nobody keeps its history."), 8),
    )
    board.row("In detail")
    board.line(10, (panels.matrix("By account, now", "account", *metrics, link=uid("trade_execution")), 24))
    return board


def instance(catalogue: Catalogue) -> Board:
    """The MT5 terminals."""
    panels = Panels(catalogue, ("instance",))
    board = Board(
        catalogue,
        "instance",
        "TDS / MT5 instances",
        "State, heartbeat, resources and sockets of the terminals. Live from Redis, history from Prometheus.",
    )
    board.variables("instance").events("system_events")
    everywhere = "Always over all terminals: the state has no instance."
    crashed = panels.value("instances_by_state", title="Crashed", note=everywhere, where={"state": "crashed"})
    crashed = crashed.thresholds(thresholds(((None, GOOD), (1, BAD))))
    stats = [
        panels.value("instances_by_state", title="Running", note=everywhere, where={"state": "running"}),
        crashed,
        panels.worst("heartbeat_age", "instance", "max", "Oldest heartbeat"),
        panels.worst("cpu_usage", "instance", "max", "CPU, busiest terminal"),
        panels.value("memory_usage"),
        panels.value("socket_failures"),
    ]
    metrics = ("instances_by_state", "heartbeat_age", "cpu_usage", "memory_usage", "socket_failures")
    board.head(8, stats, (panels.state(*metrics), 6))
    board.row("Over time")
    board.line(9, (panels.lines("heartbeat_age", "instance"), 12), (panels.lines("instances_by_state", "state"), 12))
    board.line(
        9,
        (panels.lines("cpu_usage", "instance", title="CPU usage by instance"), 12),
        (panels.lines("memory_usage", "instance", title="Memory by instance"), 12),
    )
    board.line(7, (panels.lines("socket_failures", "instance"), 24))
    board.row("In detail")
    shown = ("heartbeat_age", "cpu_usage", "memory_usage", "socket_failures")
    board.line(10, (panels.matrix("By instance, now", "instance", *shown), 12), (panels.events("system_events"), 12))
    return board


def backend_sync(catalogue: Catalogue) -> Board:
    """Signals in, results out, and the syncs between the stores."""
    panels = Panels(catalogue, ("source", "sink"))
    board = Board(
        catalogue,
        "backend_sync",
        "TDS / Backend sync",
        "Signals in, results out, and whether the stores keep up. In the design's first sketch a gauge showed "
        "`redis_tss_signals_received_total`, a counter that grows for ever: here it is a rate.",
    )
    board.variables("source", "sink").events("system_events")
    corrected = "The design's sketch had the counter itself in a gauge, which shows nothing but the time since its last restart."
    stats = [
        panels.value("sync_failure", "max", "Failed syncs, most in range"),
        panels.value("sync_latency"),
        panels.value("sync_success"),
        panels.value("signal_backlog"),
        panels.value("result_backlog"),
        panels.value("signals_received", note=corrected),
    ]
    metrics = ("sync_success", "sync_failure", "sync_latency", "signal_backlog", "result_backlog", "signals_received")
    board.head(8, stats, (panels.state(*metrics), 6))
    board.row("Syncs")
    ways, named = ("source", "sink"), "A curve is named by its sink, then its source."
    board.line(
        9,
        (panels.lines("sync_success", *ways, title="Successful syncs, each way", note=named), 8),
        (panels.lines("sync_failure", *ways, title="Failed syncs, each way", note=named), 8),
        (panels.lines("sync_latency", *ways, title="Sync latency (95 %), each way", note=named), 8),
    )
    board.row("Signals and results")
    board.line(
        9,
        (panels.lines("signals_received", "action", note=corrected), 8),
        (panels.lines("signal_backlog", "group"), 8),
        (panels.lines("result_backlog", "group"), 8),
    )
    board.line(
        8,
        (panels.lines("signal_latency"), 8),
        (panels.lines("signals_failed", "action"), 8),
        (panels.lines("connection_errors"), 8),
    )
    board.row("In detail")
    board.line(8, (panels.events("system_events"), 24))
    return board


def performance(catalogue: Catalogue) -> Board:
    """Profit and loss, and the speed and cost of execution."""
    panels = Panels(catalogue, ("broker", "account", "symbol"), "15m")
    board = Board(
        catalogue,
        "performance",
        "TDS / Performance",
        "Realised profit and loss, execution rate and time, fills, rejects, slippage by broker.",
        "now-24h",
    )
    board.variables("broker", "account", "symbol").events("trade_failures", "system_events")
    stats = [
        panels.total("total_pnl", "Realised P&L in range"),
        panels.value("order_execution_rate"),
        panels.value("execution_latency", title="Execution latency this hour (95 %)", note=THIS_HOUR, step=HOUR),
        panels.value("fill_rate", title="Fill rate this hour", note=THIS_HOUR, step=HOUR),
        panels.value("reject_rate", title="Reject rate this hour", note=THIS_HOUR, step=HOUR),
        panels.value("broker_slippage", title="Slippage this hour (points)", note=f"{THIS_HOUR} {SLIPPAGE}", step=HOUR),
    ]
    metrics = ("total_pnl", "order_execution_rate", "execution_latency", "broker_slippage", "fill_rate", "reject_rate")
    board.head(8, stats, (panels.state(*metrics), 6))
    board.row("Result")
    board.line(
        9, (panels.bars("total_pnl", "broker", interval="15m"), 12), (panels.bars("total_pnl", "symbol", interval="15m"), 12)
    )
    board.row("Execution")
    board.line(
        9,
        (panels.lines("execution_latency", "broker").interval("15m"), 12),
        (panels.lines("broker_slippage", "broker", title="Slippage by broker (points)", note=SLIPPAGE).interval("15m"), 12),
    )
    board.line(
        8,
        (panels.lines("reject_rate", "broker").interval("15m"), 8),
        (panels.lines("fill_rate", "broker").interval("15m"), 8),
        (panels.lines("order_execution_rate", "broker"), 8),
    )
    board.row("In detail")
    by_broker = ("order_execution_rate", "fill_rate", "reject_rate", "execution_latency", "broker_slippage", "total_pnl")
    board.line(8, (panels.matrix("By broker, this hour", "broker", *by_broker, note=f"{THIS_HOUR} {SLIPPAGE}", hourly=True), 24))
    board.line(8, (panels.events("trade_failures", "Failed trades, with the broker's return code"), 24))
    return board


def system_health(catalogue: Catalogue) -> Board:
    """The hosts."""
    panels = Panels(catalogue, ("host",))
    board = Board(
        catalogue,
        "system_health",
        "TDS / System health",
        "Processor, memory, disk and network of the hosts. From Prometheus; from Redis, then ClickHouse, when that is down.",
    )
    board.variables("host").events("system_events")
    stats = [
        panels.worst("cpu_load", "host", "max", "CPU, busiest host"),
        panels.worst("network_latency", "host", "max", "Network latency, worst host"),
        panels.value("cpu_load", title="CPU, average"),
        panels.value("memory_used"),
        panels.value("disk_used"),
        panels.value("network_throughput"),
    ]
    metrics = ("cpu_load", "network_latency", "memory_used", "disk_used", "network_throughput")
    board.head(8, stats, (panels.state(*metrics), 6))
    board.row("Over time")
    board.line(9, (panels.lines("cpu_load", "host"), 12), (panels.lines("network_latency", "host"), 12))
    board.line(
        9,
        (panels.lines("memory_used", "host"), 8),
        (panels.lines("disk_used", "host"), 8),
        (panels.lines("network_throughput", "host"), 8),
    )
    board.row("In detail")
    board.line(8, (panels.matrix("By host, now", "host", *metrics), 12), (panels.events("system_events"), 12))
    return board
