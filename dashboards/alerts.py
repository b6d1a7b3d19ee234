"""The alert rules as data. Each asks the alert path of the bridge (or Prometheus of the bridge itself), takes the newest value of
every series, and compares it.

A query's range and parameters name nothing that only a browser fills in: `${__timeFrom}` and `${__timeTo}` are filled in by the
plugin's server side, also for rules. An error of the path (a store is down, an answer would be old or partial) is Grafana's own
alert DatasourceError, never a false "all is well".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]

#: the newest value may be this old
_WINDOW_S = 300
_EVERY = "30s"
_RUNBOOK = 'provisioning/README.md, "What to do when"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: `metric` by `by` on the alert path, or a PromQL `expression`, against `limit`."""

    name: str
    title: str
    limit: float
    than: Literal["gt", "lt"]
    lasts: str
    severity: Literal["warning", "critical"]
    says: str
    does: str
    metric: str = ""
    by: tuple[str, ...] = ()
    expression: str = ""
    #: what no data means: nothing to look at is fine, or is itself the trouble
    no_data: Literal["OK", "NoData", "Alerting"] = "NoData"

    def queries(self) -> list[Json]:
        """A asks, B takes the newest value that is not null, C compares."""
        return [
            _query("A", *(_bridge(self.metric, self.by) if self.metric else _prometheus(self.expression))),
            _query("B", "__expr__", _reduced()),
            _query("C", "__expr__", _compared(self.than, self.limit)),
        ]

    def as_grafana(self, group: str) -> Json:
        """As Grafana's provisioning file has it."""
        return {
            "uid": self.name,
            "title": self.title,
            "condition": "C",
            "data": self.queries(),
            "noDataState": self.no_data,
            "execErrState": "Error",
            "for": self.lasts,
            "labels": {"severity": self.severity, "group": group},
            "annotations": {"summary": self.says, "description": self.does, "runbook": _RUNBOOK},
            "isPaused": False,
        }


def _query(ref_id: str, source: str, model: Mapping[str, Any]) -> Json:
    window = {"from": _WINDOW_S, "to": 0} if source != "__expr__" else {"from": 0, "to": 0}
    return {"refId": ref_id, "relativeTimeRange": window, "datasourceUid": source, "model": {"refId": ref_id, **model}}


def _bridge(metric: str, by: Sequence[str]) -> tuple[str, Json]:
    params = {"metric": metric, "by": ",".join(by), "from": "${__timeFrom}", "to": "${__timeTo}"}
    columns = [("time", "timestamp_epoch"), *((label, "string") for label in by), ("value", "number")]
    return "bridge-infinity-alerts", {
        "datasource": {"type": "yesoreyeram-infinity-datasource", "uid": "bridge-infinity-alerts"},
        "type": "json",
        "source": "url",
        "parser": "backend",
        "format": "timeseries",
        "url": "/v1/rows",
        "url_options": {
            "method": "GET",
            "data": "",
            "headers": [],
            "params": [{"key": key, "value": value} for key, value in params.items()],
        },
        "root_selector": "rows",
        "columns": [{"selector": name, "text": name, "type": kind} for name, kind in columns],
        "computed_columns": [],
        "filters": [],
        "filterExpression": "",
        "pagination_mode": "none",
        "intervalMs": 1000,
        "maxDataPoints": 1000,
    }


def _prometheus(expression: str) -> tuple[str, Json]:
    return "prometheus", {
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "editorMode": "code",
        "expr": expression,
        "instant": True,
        "range": False,
        "intervalMs": 1000,
        "maxDataPoints": 1000,
    }


_EXPRESSION = {"datasource": {"type": "__expr__", "uid": "__expr__"}}


def _reduced() -> Json:
    return {**_EXPRESSION, "type": "reduce", "expression": "A", "reducer": "last", "settings": {"mode": "dropNN"}}


def _compared(than: str, limit: float) -> Json:
    conditions = [{"evaluator": {"type": than, "params": [limit]}}]
    return {**_EXPRESSION, "type": "threshold", "expression": "B", "conditions": conditions}


_VALUE = "{{ humanize $values.B.Value }}"

#: Limits and times: operations.md 6.4, each of the field or of the system's own design.
RULES: Mapping[str, tuple[Rule, ...]] = {
    "account": (
        Rule(
            name="tds-margin-level-low",
            title="Margin level is low",
            metric="margin_level",
            by=("account",),
            than="lt",
            limit=200,
            lasts="1m",
            severity="warning",
            says=f"Account {{{{ $labels.account }}}}: margin level {_VALUE} %",
            does="Below 200 %. Margin call and stop-out are set per account at the broker; look at its open trades.",
        ),
        Rule(
            name="tds-margin-level-critical",
            title="Margin level is critical",
            metric="margin_level",
            by=("account",),
            than="lt",
            limit=150,
            lasts="0s",
            severity="critical",
            says=f"Account {{{{ $labels.account }}}}: margin level {_VALUE} %",
            does="Below 150 %: positions may be closed by the broker. Act on the account now.",
        ),
        Rule(
            name="tds-drawdown-high",
            title="Drawdown is high",
            metric="drawdown",
            by=("account",),
            than="gt",
            limit=10,
            lasts="1m",
            severity="warning",
            says=f"Account {{{{ $labels.account }}}}: drawdown {_VALUE} %",
            does="Over 10 % from the account's peak equity, the usual limit of a funding firm.",
        ),
        Rule(
            name="tds-drawdown-critical",
            title="Drawdown is critical",
            metric="drawdown",
            by=("account",),
            than="gt",
            limit=20,
            lasts="0s",
            severity="critical",
            says=f"Account {{{{ $labels.account }}}}: drawdown {_VALUE} %",
            does="Over 20 %: the trade system throttles this account.",
        ),
    ),
    "instance": (
        Rule(
            name="tds-heartbeat-late",
            title="An instance's heartbeat is late",
            metric="heartbeat_age",
            by=("instance",),
            than="gt",
            limit=20,
            lasts="10s",
            severity="warning",
            no_data="Alerting",
            says=f"Instance {{{{ $labels.instance }}}}: last heartbeat {_VALUE} s ago",
            does="Two beats were missed (one comes every 10 s). No instance at all is this alert, too.",
        ),
        Rule(
            name="tds-heartbeat-lost",
            title="An instance's heartbeat is lost",
            metric="heartbeat_age",
            by=("instance",),
            than="gt",
            limit=30,
            lasts="10s",
            severity="critical",
            no_data="Alerting",
            says=f"Instance {{{{ $labels.instance }}}}: last heartbeat {_VALUE} s ago",
            does="Three beats were missed: the terminal hangs, is closed, or is cut off. Its copies are not traded.",
        ),
    ),
    "backend_sync": (
        Rule(
            name="tds-sync-slow",
            title="Results are synchronised slowly",
            metric="sync_latency",
            by=("source", "sink"),
            than="gt",
            limit=0.2,
            lasts="5m",
            severity="warning",
            says=f"{{{{ $labels.source }}}} to {{{{ $labels.sink }}}}: {_VALUE} s (95th percentile)",
            does="Over 200 ms a sync for five minutes: history lags behind the live state.",
        ),
        Rule(
            name="tds-signals-wait",
            title="Signals wait",
            metric="signal_backlog",
            by=("group",),
            than="gt",
            limit=100,
            lasts="30s",
            severity="warning",
            no_data="OK",
            says=f"{{{{ $labels.group }}}}: {_VALUE} signals wait",
            does="A signal is dropped after 30 s. Look at the consumers of the group.",
        ),
        Rule(
            name="tds-signals-pile-up",
            title="Signals pile up",
            metric="signal_backlog",
            by=("group",),
            than="gt",
            limit=200,
            lasts="10s",
            severity="critical",
            no_data="OK",
            says=f"{{{{ $labels.group }}}}: {_VALUE} signals wait",
            does="Trades are being missed. Look at the consumers of the group.",
        ),
    ),
    "performance": (
        Rule(
            name="tds-rejects-many",
            title="Many orders are rejected",
            metric="reject_rate",
            by=("broker",),
            than="gt",
            limit=2,
            lasts="5m",
            severity="warning",
            no_data="OK",
            says=f"Broker {{{{ $labels.broker }}}} rejects {_VALUE} % of orders",
            does="Over 2 % for five minutes. The dashboard Performance has the return codes. No order is no alert.",
        ),
        Rule(
            name="tds-rejects-most",
            title="Orders are rejected",
            metric="reject_rate",
            by=("broker",),
            than="gt",
            limit=5,
            lasts="1m",
            severity="critical",
            no_data="OK",
            says=f"Broker {{{{ $labels.broker }}}} rejects {_VALUE} % of orders",
            does="Over 5 %: market closed, no money, trading disabled or a broken connection; the return codes tell.",
        ),
    ),
    "bridge": (
        Rule(
            name="tds-source-down",
            title="A store is down",
            expression="max by (source) (bridge_source_up)",
            than="lt",
            limit=1,
            lasts="1m",
            severity="critical",
            no_data="Alerting",
            says="{{ $labels.source }} answers no bridge",
            does="Panels show what was last known, marked. /health/sources tells the last error. No bridge is this alert, too.",
        ),
        Rule(
            name="tds-stale-served",
            title="Older values are shown",
            expression="sum by (source) (rate(bridge_stale_responses_total[5m]))",
            than="gt",
            limit=0,
            lasts="5m",
            severity="warning",
            no_data="OK",
            says="Older values of {{ $labels.source }} have been shown for five minutes",
            does="Each is marked with its age in the panel. The source fails or is too slow.",
        ),
    ),
}


def as_grafana() -> Json:
    """The provisioning file."""
    groups = [
        {
            "orgId": 1,
            "name": group,
            "folder": "Trade Distribution System",
            "interval": _EVERY,
            "rules": [rule.as_grafana(group) for rule in rules],
        }
        for group, rules in RULES.items()
    ]
    return {"apiVersion": 1, "groups": groups}
