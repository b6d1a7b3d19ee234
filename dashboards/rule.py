"""An alert rule as data: A queries the alert path of the bridge (or Prometheus about the bridge), B reduces every series to one
figure, C compares it with the limit.

- The newest value is one row per label set, without a time (`instant`). Every Grafana from 9 on reads such a row as a figure and
  aligns nothing by time. An account without a figure (no margin level, as it uses no margin) drops out at once.
- Nothing here has a `$`. A rule has neither dashboard variables nor an interval, and Grafana replaces `$name` in a provisioned
  file from its environment (most versions from 9 to 13 do so in the texts of rules). So the range is relative, and texts say
  `.Labels.account` for `$labels.account`.
- An error of the path (a store is down, the answer would be old or partial) becomes Grafana's alert DatasourceError, never a
  false "all is well": `execErrState` is Error everywhere. Alerting would be a margin call for every account. OK and KeepLast
  would hide that the rule cannot watch.
- Missing data is reported once, by one rule per metric: `no_data` says whether no row is normal or is itself the problem.
- Every rule links to the dashboard of its group, and there to the first curve of what it watches: from Grafana's list, from each
  message, and back from the panel. Grafana keeps the link in two annotations and in two keys of its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]

#: The range that the editor shows. The queried range is in the parameters.
_WINDOW_S = 300
_RUNBOOK = 'docs/operate.md, "What to do when"'


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
    #: The newest value of each series, or the mean of the last five minutes, one value a minute.
    reducer: Literal["last", "mean"] = "last"
    #: What no data means: it is fine, or it is itself the problem.
    no_data: Literal["OK", "NoData", "Alerting"] = "NoData"

    def queries(self) -> list[Json]:
        """A queries, B reduces every series to one figure, C compares."""
        return [
            _query_object("A", *(self._rows_query() if self.metric else _prometheus_query(self.expression))),
            _query_object("B", "__expr__", _reduce_model(self.reducer)),
            _query_object("C", "__expr__", _threshold_model(self.than, self.limit)),
        ]

    def panel(self, dashboard: Json) -> Json:
        """The first panel with curves, else with figures, that shows what the rule watches. Raises LookupError."""
        for kind in ("timeseries", "stat"):
            for panel in dashboard["panels"]:
                if panel["type"] == kind and any(map(self._target_matches, panel["targets"])):
                    return dict(panel)
        raise LookupError(f"{self.name}: no panel of {dashboard['uid']} shows what it watches")

    def _target_matches(self, target: Json) -> bool:
        if self.metric:
            return bool(self.metric in target.get("target", "").split(","))
        series = _series_in(self.expression)
        return bool(series) and series <= _series_in(target.get("expr", ""))

    def _rows_query(self) -> tuple[str, Json]:
        params = {"metric": self.metric, "by": ",".join(self.by)}
        columns = [*((label, "string") for label in self.by), ("value", "number")]
        if self.reducer == "last":
            return _bridge_query(params | {"from": "now-1m", "instant": "true"}, columns, "table")
        return _bridge_query(params | {"from": "now-5m", "step": "60s"}, [("time", "timestamp_epoch"), *columns], "timeseries")

    def as_grafana(self, group: str, dashboard: Json) -> Json:
        """The rule in the form of Grafana's provisioning file."""
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


def _series_in(expression: str) -> set[str]:
    """The series of the bridge itself that an expression reads."""
    return set(re.findall(r"bridge_\w+", expression))


def _query_object(ref_id: str, source: str, model: Mapping[str, Any]) -> Json:
    window = {"from": _WINDOW_S, "to": 0} if source != "__expr__" else {"from": 0, "to": 0}
    return {"refId": ref_id, "relativeTimeRange": window, "datasourceUid": source, "model": {"refId": ref_id, **model}}


def _bridge_query(params: Mapping[str, str], columns: Sequence[tuple[str, str]], form: str) -> tuple[str, Json]:
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


def _prometheus_query(expression: str) -> tuple[str, Json]:
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


def _reduce_model(reducer: str) -> Json:
    return {**_EXPRESSION, "type": "reduce", "expression": "A", "reducer": reducer, "settings": {"mode": "dropNN"}}


def _threshold_model(than: str, limit: float) -> Json:
    conditions = [{"evaluator": {"type": than, "params": [limit]}}]
    return {**_EXPRESSION, "type": "threshold", "expression": "B", "conditions": conditions}
