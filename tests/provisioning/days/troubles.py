"""A bad day: what is planted, when, and which rules are to tell of it."""

from __future__ import annotations

from dataclasses import dataclass

from app.model import Labels
from demo.world import HOUR_MS
from tests.provisioning.days.desk import Desk, Failing, Rejecting, Trouble

ERROR, NO_DATA = "DatasourceError", "DatasourceNoData"


@dataclass(frozen=True, slots=True)
class Planted:
    """A trouble, the rules that tell of it once each, and what their summary says."""

    trouble: Trouble | Rejecting | Failing
    rules: tuple[str, ...]
    says: str
    labels: Labels = ()
    #: the rule's own title where it is empty
    alert: str = ""


def _one(metric: str, label: str, value: str, from_s: int, to_s: int, figure: float, grows: bool = False) -> Trouble:
    return Trouble(metric, ((label, value),), from_s, to_s, figure, grows)


def _sync(metric: str, source: str, sink: str, from_s: int, to_s: int, figure: float) -> Trouble:
    return Trouble(metric, (("sink", sink), ("source", source)), from_s, to_s, figure)


_RTS = ("tds-margin-level-low", "tds-margin-level-critical", "tds-drawdown-high", "tds-drawdown-critical", "tds-account-silent")

#: Where a limit has a milder one below it, the trouble is short enough for the milder rule to stay silent, or both are named.
PLANTED = (
    Planted(
        _one("margin_level", "account", "ACC1001", 600, 900, 180), ("tds-margin-level-low",), "ACC1001: margin level 180.0 %"
    ),
    Planted(
        _one("margin_level", "account", "ACC1002", 700, 760, 140), ("tds-margin-level-critical",), "ACC1002: margin level 140.0 %"
    ),
    Planted(_one("drawdown", "account", "ACC1003", 1000, 1300, 12), ("tds-drawdown-high",), "ACC1003: drawdown 12.0 %"),
    Planted(_one("drawdown", "account", "ACC1004", 1400, 1450, 25), ("tds-drawdown-critical",), "ACC1004: drawdown 25.0 %"),
    Planted(
        _one("account_age", "account", "ACC1005", 1500, 1640, 0, True),
        ("tds-account-silent",),
        "ACC1005: last written 1m 10s ago",
    ),
    Planted(
        _one("heartbeat_age", "instance", "mt5-001", 1700, 1740, 0, True),
        ("tds-heartbeat-late",),
        "mt5-001: last heartbeat 30s ago",
    ),
    Planted(
        _one("heartbeat_age", "instance", "mt5-002", 1800, 1900, 0, True),
        ("tds-heartbeat-late", "tds-heartbeat-lost"),
        "mt5-002: last heartbeat",
    ),
    Planted(
        _sync("sync_latency", "rtrs", "duckdb", 2000, 2300, 0.5),
        ("tds-sync-slow",),
        "rtrs to duckdb: one sync in twenty takes longer than 500ms",
    ),
    Planted(
        _sync("sync_failure", "duckdb", "clickhouse", 2400, 2700, 6),
        ("tds-sync-fails",),
        "duckdb to clickhouse: 6 syncs a minute fail",
    ),
    Planted(_one("result_backlog", "group", "sync", 2800, 2950, 150), ("tds-results-wait",), "sync: 150 results wait"),
    Planted(_one("signal_backlog", "group", "executors", 3000, 3100, 150), ("tds-signals-wait",), "executors: 150 signals wait"),
    Planted(
        _one("signal_backlog", "group", "executors", 3200, 3230, 250), ("tds-signals-pile-up",), "executors: 250 signals wait"
    ),
    Planted(
        Trouble("disk_fullness", (("disk", "/"), ("host", "host-1")), 600, 1300, 90),
        ("tds-disk-fills",),
        "Host host-1: 90.0 % of / is used",
    ),
    Planted(
        Trouble("disk_fullness", (("disk", "/"), ("host", "host-2")), 1400, 1900, 97),
        ("tds-disk-full",),
        "Host host-2: 97.0 % of / is used",
    ),
    Planted(
        Rejecting("alpha", 3600, 4320, 1),
        ("tds-rejects-many", "tds-rejects-most", "tds-rejects-half"),
        "Broker alpha rejected",
        (("broker", "alpha"),),
    ),
    Planted(Rejecting("bravo", 3600, 3750, 3), ("tds-rejects-most",), "Broker bravo rejected", (("broker", "bravo"),)),
    Planted(Rejecting("charlie", 3600, 9000, 30), ("tds-rejects-many",), "Broker charlie rejected", (("broker", "charlie"),)),
    Planted(Failing("rts", 5000, 5120), _RTS, "not known|can be read", alert=ERROR),
    Planted(
        Failing("rtrs", 5300, 5400, "result_backlog"), ("tds-results-wait",), "How many results wait is not known", alert=NO_DATA
    ),
)


def bad_day() -> Desk:
    """A day of three and a half hours in which everything that is planted goes wrong, and is over at the end."""
    noon_ms = Desk.start_ms + 12 * HOUR_MS  # when orders are many
    return Desk(5, 3.5, instances=24, troubles=tuple(one.trouble for one in PLANTED), start_ms=noon_ms)
