"""An alert rule as data: A asks the alert path of the bridge (or Prometheus of the bridge itself), B makes one figure of every
series, C compares it with the limit.

- The newest value is asked for as one row a label set, without a time (`instant`). Such a row is a figure in every Grafana from 9
  on, nothing is lined up by time, and an account without a figure (no margin is used: no margin level) is left out, at once.
- Nothing here has a `$`: a rule has neither the dashboards' variables nor an interval, and Grafana takes `$name` in a provisioned
  file for its environment (in most versions from 9 to 13 that is so for a rule's texts). So the range is relative, and texts say
  `.Labels.account` for `$labels.account`.
- An error of the path (a store is down, an answer would be old or partial) is Grafana's own alert DatasourceError, never a false
  "all is well": `execErrState` is Error everywhere. Alerting would be a margin call for every account; OK and KeepLast would hide
  that nobody is watching.
- No data is told once, by one rule of a metric: `no_data` says where no row is normal, and where it is the trouble itself.
- Every rule leads to the dashboard of its group and there to the first curve of what it watches: from Grafana's list, from
  each message, and from the panel back. Grafana keeps that in two annotations; its file has two keys for it, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]

#: as far back as the editor shows; what is asked for is in the parameters
_WINDOW_S = 300
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
    #: the newest value of each series, or what is made of the last five minutes' values, one a minute
    reducer: Literal["last", "mean"] = "last"
    #: what no data means: nothing to look at is fine, or is itself the trouble
    no_data: Literal["OK", "NoData", "Alerting"] = "NoData"

    def queries(self) -> list[Json]:
        """A asks, B makes one figure of every series, C compares."""
        return [
            _query("A", *(self._rows() if self.metric else _prometheus(self.expression))),
            _query("B", "__expr__", _reduced(self.reducer)),
            _query("C", "__expr__", _compared(self.than, self.limit)),
        ]

    def panel(self, dashboard: Json) -> Json:
        """The first of the dashboard's curves, else of its figures, that shows what the rule watches. Raises LookupError."""
        for kind in ("timeseries", "stat"):
            for panel in dashboard["panels"]:
                if panel["type"] == kind and any(map(self._asks, panel["targets"])):
                    return dict(panel)
        raise LookupError(f"{self.name}: no panel of {dashboard['uid']} shows what it watches")

    def _asks(self, target: Json) -> bool:
        if self.metric:
            return bool(self.metric in target.get("target", "").split(","))
        return _series(self.expression) == _series(target.get("expr", ""))

    def _rows(self) -> tuple[str, Json]:
        params = {"metric": self.metric, "by": ",".join(self.by)}
        columns = [*((label, "string") for label in self.by), ("value", "number")]
        if self.reducer == "last":
            return _bridge(params | {"from": "now-1m", "instant": "true"}, columns, "table")
        return _bridge(params | {"from": "now-5m", "step": "60s"}, [("time", "timestamp_epoch"), *columns], "timeseries")

    def as_grafana(self, group: str, dashboard: Json) -> Json:
        """As Grafana's provisioning file has it."""
        shown, panel = dashboard["uid"], self.panel(dashboard)["id"]
        link = {"__dashboardUid__": shown, "__panelId__": str(panel)}
        return {
            "uid": self.name,
            "title": self.title,
            "condition": "C",
            "data": self.queries(),
            "noDataState": self.no_data,
            "execErrState": "Error",
            "dashboardUid": shown,
            "panelId": panel,
            "for": self.lasts,
            "labels": {"severity": self.severity, "group": group},
            "annotations": {"summary": self.says, "description": self.does, "runbook": _RUNBOOK} | link,
            "isPaused": False,
        }


def _series(expression: str) -> set[str]:
    """The bridge's own series that an expression reads."""
    return set(re.findall(r"bridge_\w+", expression))


def _query(ref_id: str, source: str, model: Mapping[str, Any]) -> Json:
    window = {"from": _WINDOW_S, "to": 0} if source != "__expr__" else {"from": 0, "to": 0}
    return {"refId": ref_id, "relativeTimeRange": window, "datasourceUid": source, "model": {"refId": ref_id, **model}}


def _bridge(params: Mapping[str, str], columns: Sequence[tuple[str, str]], form: str) -> tuple[str, Json]:
    return "bridge-infinity-alerts", {
        "datasource": {"type": "yesoreyeram-infinity-datasource", "uid": "bridge-infinity-alerts"},
        "type": "json",
        "source": "url",
        "parser": "backend",
        "format": form,
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


def _reduced(reducer: str) -> Json:
    return {**_EXPRESSION, "type": "reduce", "expression": "A", "reducer": reducer, "settings": {"mode": "dropNN"}}


def _compared(than: str, limit: float) -> Json:
    conditions = [{"evaluator": {"type": than, "params": [limit]}}]
    return {**_EXPRESSION, "type": "threshold", "expression": "B", "conditions": conditions}
