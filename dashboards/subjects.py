"""The six dashboards of the trade system: first the important figures, then curves, then tables."""

from __future__ import annotations

from app.catalog import Catalogue
from dashboards.board import Board, uid
from dashboards.limits import BAD, GOOD, thresholds
from dashboards.look import directed, logarithmic
from dashboards.panels import HOUR, Panels, Scope
from dashboards.tables import Tables

SLIPPAGE = (
    "**Sign: positive is worse for the account**, for buys and sells alike. Some platforms show the opposite (negative = loss), "
    "and brokers report it as seen by the house. One pip is 10 points on symbols of 3 or 5 digits."
)
THIS_HOUR = "Of the clock hour that is running (the one before where this one has none yet)."


def trade_execution(catalogue: Catalogue) -> Board:
    """Open trades, pending orders, failed trades and slippage."""
    scope = Scope(catalogue, ("broker", "account", "symbol"))
    panels, tables = Panels(scope), Tables(scope)
    board = Board(
        catalogue,
        "trade_execution",
        "TDS / Trade execution",
        'Open trades, active orders, failed trades, slippage. In the design\'s first sketch "Open Trades" showed '
        "`trade_state_updates_per_sec`, which is a rate: here the positions are counted, and the rate has a panel of its own.",
    )
    board.variables(*scope.variables, top=True).events("system_events", "trade_failures", hidden=("trade_failures",))
    corrected = 'The design\'s sketch plotted `trade_state_updates_per_sec` here; that rate is the panel "State updates".'
    metrics = ("open_trades", "active_orders", "failed_trades", "slippage", "state_updates")
    figures = [
        panels.value("open_trades", note=corrected),
        panels.value("active_orders"),
        panels.total("failed_trades", "Failed in range"),
        panels.value("slippage", title="Slippage this hour", note=f"In points. {THIS_HOUR} {SLIPPAGE}", step=HOUR),
        panels.worst("slippage", "symbol", "Worst slippage", f"The worst symbol. In points. {THIS_HOUR} {SLIPPAGE}", True),
        panels.value("state_updates", title="State updates", note="A rate of updates, not a number of trades."),
    ]
    board.head(tables.state_line(*metrics), figures)
    board.row("Over time")
    board.line(9, (panels.lines("open_trades", "broker"), 12), (panels.lines("active_orders", "broker"), 12))
    board.line(
        9,
        (panels.lines("slippage", "symbol", title="Slippage by symbol (points)", note=SLIPPAGE).interval("1m"), 12),
        (panels.bars("failed_trades", "broker"), 12),
    )
    board.row("In detail")
    now = tables.matrix("By account, now", "account", "open_trades", "active_orders", link=uid("account"))
    board.line(12, (now, 10), (tables.events("trade_failures"), 14))
    board.line(8, (tables.state(*metrics), 24))
    return board


def account(catalogue: Catalogue) -> Board:
    """The equity of each account, and how near it is to a margin call."""
    scope = Scope(catalogue, ("broker", "account"))
    panels, tables = Panels(scope), Tables(scope)
    board = Board(
        catalogue,
        "account",
        "TDS / Accounts",
        "Equity, margin and drawdown, in deposit currency. Live from Redis, history from DuckDB's snapshots: one curve.",
        "now-2h",
    )
    board.variables(*scope.variables, top=True).events("system_events")
    figures = [
        panels.value("equity"),
        panels.value("floating_pnl"),
        panels.worst("free_margin", "account", "Least free margin", "The account that has least."),
        panels.worst("margin_level", "account", "Lowest level", "The account nearest to a margin call."),
        panels.worst("drawdown", "account", "Worst drawdown", "The account that has lost most of its peak."),
        panels.worst("account_age", "account", "Longest silent", "The account whose figures are oldest."),
    ]
    metrics = ("margin_level", "free_margin", "equity", "balance", "margin", "floating_pnl", "drawdown", "account_age")
    board.head(tables.state_line(*metrics), figures)
    board.row("Nearest to trouble")
    board.line(
        9,
        (logarithmic(panels.lines("margin_level", "account", note="A gap means that no margin is used.")), 12),
        (panels.lines("drawdown", "account"), 12),
    )
    board.line(12, (tables.matrix("By account, now", "account", *metrics, link=uid("trade_execution")), 24))
    board.row("Over time")
    board.line(
        9,
        (panels.several("Equity and balance", "equity", "balance", note="The gap between the two is the floating result."), 12),
        (panels.lines("floating_pnl", "broker"), 12),
    )
    board.line(9, (panels.lines("free_margin", "account"), 12), (panels.several("Margin", "margin", "free_margin"), 12))
    board.row("In detail")
    board.line(8, (tables.state(*metrics), 24))
    return board


def instance(catalogue: Catalogue) -> Board:
    """The MT5 terminals."""
    scope = Scope(catalogue, ("instance",))
    panels, tables = Panels(scope), Tables(scope)
    board = Board(
        catalogue,
        "instance",
        "TDS / MT5 instances",
        "State, heartbeat, resources and sockets of the terminals. Live from Redis, history from Prometheus.",
    )
    board.variables(*scope.variables, top=True).events("system_events")
    everywhere = "Always over all terminals: the state has no instance."
    crashed = panels.value("instances_by_state", title="Crashed, of all", note=everywhere, where={"state": "crashed"})
    figures = [
        crashed.thresholds(thresholds(((None, GOOD), (1, BAD)))),
        panels.value("instances_by_state", title="Running, of all", note=everywhere, where={"state": "running"}),
        panels.worst("heartbeat_age", "instance", "Oldest heartbeat"),
        panels.worst("cpu_usage", "instance", "Busiest terminal"),
        panels.value("memory_usage", title="Memory"),
        panels.value("socket_failures"),
    ]
    metrics = ("heartbeat_age", "instances_by_state", "cpu_usage", "memory_usage", "socket_failures")
    board.head(tables.state_line(*metrics), figures)
    board.row("Over time")
    by_state = panels.lines("instances_by_state", "state", title="Instances by state, of all")
    board.line(9, (panels.lines("heartbeat_age", "instance"), 12), (by_state, 12))
    board.line(
        9,
        (panels.lines("cpu_usage", "instance", title="CPU usage by instance"), 12),
        (panels.lines("memory_usage", "instance", title="Memory by instance"), 12),
    )
    board.line(7, (panels.lines("socket_failures", "instance"), 24))
    board.row("In detail")
    shown = ("heartbeat_age", "cpu_usage", "memory_usage", "socket_failures")
    board.line(12, (tables.matrix("By instance, now", "instance", *shown), 14), (tables.events("system_events"), 10))
    board.line(8, (tables.state(*metrics), 24))
    return board


def backend_sync(catalogue: Catalogue) -> Board:
    """Signals in, results out, and the syncs between the stores."""
    scope = Scope(catalogue, ("source", "sink"))
    panels, tables = Panels(scope), Tables(scope)
    board = Board(
        catalogue,
        "backend_sync",
        "TDS / Backend sync",
        "Signals in, results out, and whether the stores keep up. In the design's first sketch a gauge showed "
        "`redis_tss_signals_received_total`, a counter that grows for ever: here it is a rate.",
    )
    board.variables(*scope.variables).events("system_events")
    corrected = "The design's sketch had the counter itself in a gauge, which shows nothing but the time since its last restart."
    figures = [
        panels.value("sync_failure", "max", "Failed syncs, peak", "The most in the range."),
        panels.value("sync_latency"),
        panels.value("sync_success"),
        panels.value("signal_backlog"),
        panels.value("result_backlog"),
        panels.value("signals_received", note=corrected),
    ]
    metrics = ("sync_success", "sync_failure", "sync_latency", "signal_backlog", "result_backlog", "signals_received")
    board.head(tables.state_line(*metrics), figures)
    board.row("Syncs")
    ways = ("source", "sink")
    board.line(
        9,
        (directed(panels.lines("sync_failure", *ways, title="Failed syncs, each way")), 8),
        (directed(panels.lines("sync_latency", *ways, title="Sync latency (95 %), each way")), 8),
        (directed(panels.lines("sync_success", *ways, title="Successful syncs, each way")), 8),
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
    board.line(8, (tables.state(*metrics), 12), (tables.events("system_events"), 12))
    return board


def performance(catalogue: Catalogue) -> Board:
    """Profit and loss, and the speed and cost of execution."""
    scope = Scope(catalogue, ("broker", "account", "symbol"))
    panels, tables = Panels(scope, "15m"), Tables(scope)
    board = Board(
        catalogue,
        "performance",
        "TDS / Performance",
        "Realised profit and loss, execution rate and time, fills, rejects, slippage by broker.",
        "now-24h",
    )
    board.variables(*scope.variables, top=True)
    board.events("system_events", "trade_failures", hidden=("system_events", "trade_failures"))
    figures = [
        panels.total("total_pnl", "P&L in range"),
        panels.value("order_execution_rate", title="Orders a minute"),
        panels.value("execution_latency", title="Latency this hour", note=f"95 % are faster. {THIS_HOUR}", step=HOUR),
        panels.value("fill_rate", title="Fills this hour", note=THIS_HOUR, step=HOUR),
        panels.value("reject_rate", title="Rejects this hour", note=THIS_HOUR, step=HOUR),
        panels.value("broker_slippage", title="Slippage this hour", note=f"In points. {THIS_HOUR} {SLIPPAGE}", step=HOUR),
    ]
    metrics = ("total_pnl", "order_execution_rate", "execution_latency", "broker_slippage", "fill_rate", "reject_rate")
    board.head(tables.state_line(*metrics), figures)
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
    by_broker = ("reject_rate", "fill_rate", "order_execution_rate", "execution_latency", "broker_slippage", "total_pnl")
    this_hour = f"{THIS_HOUR} {SLIPPAGE}"
    board.line(8, (tables.matrix("By broker, this hour", "broker", *by_broker, note=this_hour, hourly=True), 24))
    board.line(8, (tables.events("trade_failures", "Failed trades, with the broker's return code"), 24))
    board.line(8, (tables.state(*metrics), 24))
    return board


def system_health(catalogue: Catalogue) -> Board:
    """The hosts."""
    scope = Scope(catalogue, ("host",))
    panels, tables = Panels(scope), Tables(scope)
    board = Board(
        catalogue,
        "system_health",
        "TDS / System health",
        "Processor, memory, disk and network of the hosts. From Prometheus; from Redis, then ClickHouse, when that is down.",
    )
    board.variables(*scope.variables, top=True).events("system_events")
    figures = [
        panels.worst("cpu_load", "host", "Busiest host"),
        panels.worst("network_latency", "host", "Slowest network", "The host with the highest latency."),
        panels.value("cpu_load", title="CPU, average"),
        panels.value("memory_used"),
        panels.worst("disk_fullness", "host", "Fullest disk", "The host with the fullest disk, each disk by itself."),
        panels.value("network_throughput", title="Network"),
    ]
    metrics = ("cpu_load", "network_latency", "memory_used", "disk_used", "disk_fullness", "network_throughput")
    board.head(tables.state_line(*metrics), figures)
    board.row("Over time")
    board.line(9, (panels.lines("cpu_load", "host"), 12), (panels.lines("network_latency", "host"), 12))
    board.line(9, (panels.lines("memory_used", "host"), 12), (panels.lines("disk_fullness", "host", "disk"), 12))
    board.line(9, (panels.lines("disk_used", "host"), 12), (panels.lines("network_throughput", "host"), 12))
    board.row("In detail")
    board.line(9, (tables.matrix("By host, now", "host", *metrics), 24))
    board.line(9, (tables.events("system_events"), 12), (tables.state(*metrics), 12))
    return board
