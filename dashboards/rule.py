"""An alert rule as data: A queries the alert path of the bridge (or Prometheus about the bridge), B reduces every series to one
figure, C compares it with the limit. Its twin in Prometheus has the same limit, window, time and words.

- Either the newest value is asked for (`instant`), or one figure over a whole window (`step=range`): a ratio is then one ratio of
  sums, never a mean of ratios. The answer is one row per label set, without a time. Every Grafana from 9 on reads such a row as a
  figure and aligns nothing by time. An account without a figure (no margin level, as it uses no margin) drops out at once.
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

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dashboards.wording import Unit, filled, for_grafana, for_prometheus, limit_words, placeholders, span_words

Json = dict[str, Any]

#: The range that the editor shows. The queried range is in the parameters.
_WINDOW_S = 300
_RUNBOOK = 'docs/operate.md, "What to do when"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: a figure against a limit, for Grafana (`uid`), for Prometheus (`alert`) or for both.

    Grafana asks the bridge for `metric` by `by`, or Prometheus for `promql`; Prometheus evaluates `promql`. In texts `{limit}`,
    `{window}`, `{lasts}` and `{least}` are the rule's own, `{value}` and labels are filled in when it speaks.
    """

    uid: str = ""
    alert: str = ""
    #: says the limit; the severity is added
    title: str
    severity: Literal["warning", "critical"]
    than: Literal["gt", "lt"]
    limit: float
    unit: Unit
    #: for how long the figure must be over the limit before anybody is told
    lasts_s: int = 0
    #: how long the figure stays over the limit when its cause has ended: so much longer it must last
    lingers_s: int = 0
    #: the stretch of time that the figure is made of; 0 is the newest value
    window_s: int = 0
    #: a ratio of fewer answers than these is no figure
    least: int = 0
    metric: str = ""
    by: tuple[str, ...] = ()
    promql: str = ""
    #: What no data means to Grafana: it is fine, or it is itself the problem.
    no_data: Literal["OK", "NoData", "Alerting"] = "NoData"
    says: str
    #: what is said where there is neither a label nor a value
    without: str = ""
    does: str

    @property
    def full_title(self) -> str:
        """The title with the limit in it, and how bad it is."""
        return f"{filled(self.title, self._own)} ({self.severity})"

    @property
    def held_s(self) -> int:
        """Grafana's and Prometheus' `for`."""
        return self.lasts_s + self.lingers_s

    @property
    def _own(self) -> Mapping[str, str]:
        own = {"limit": limit_words(self.limit, self.unit), "least": f"{self.least}"}
        if self.window_s:
            own["window"] = span_words(self.window_s).removeprefix("1 ")
        return own | {"lasts": span_words(self.lasts_s)} if self.lasts_s else own

    @property
    def expression(self) -> str:
        """The figure in PromQL, without the limit."""
        window = promql_span(self.window_s) if self.window_s else ""
        return self.promql.replace("<window>", window).replace("<least>", f"{self.least}")

    def queries(self) -> list[Json]:
        """A queries, B reduces every series to one figure, C compares."""
        return [
            _query_object("A", *(self._rows_query() if self.metric else _prometheus_query(self.expression))),
            _query_object("B", "__expr__", _REDUCE),
            _query_object("C", "__expr__", _threshold_model(self.than, self.limit)),
        ]

    def panel(self, dashboard: Json) -> Json:
        """The first panel with curves, else with figures, that shows what the rule watches, by its labels. Raises LookupError."""
        for kind in ("timeseries", "stat"):
            for panel in dashboard["panels"]:
                if panel["type"] == kind and any(map(self._target_matches, panel["targets"])):
                    return dict(panel)
        raise LookupError(f"{self.uid}: no panel of {dashboard['uid']} shows what it watches")

    def _target_matches(self, target: Json) -> bool:
        if self.metric:
            by = json.loads(target.get("payload") or "{}").get("by", [])
            return self.metric in target.get("target", "").split(",") and by == [*self.by]
        series = _series_in(self.expression)
        return bool(series) and series <= _series_in(target.get("expr", ""))

    def _rows_query(self) -> tuple[str, Json]:
        span = {"from": f"now-{self.window_s}s", "step": "range"} if self.window_s else {"from": "now-1m", "instant": "true"}
        span |= {"least": f"{self.least}"} if self.least else {}
        columns = [*((label, "string") for label in self.by), ("value", "number")]
        return _bridge_query({"metric": self.metric, "by": ",".join(self.by)} | span, columns)

    def as_grafana(self, group: str, dashboard: Json) -> Json:
        """The rule in the form of Grafana's provisioning file."""
        shown, panel = dashboard["uid"], self.panel(dashboard)["id"]
        link = {"__dashboardUid__": shown, "__panelId__": str(panel)}
        return {
            "uid": self.uid,
            "title": self.full_title,
            "condition": "C",
            "data": self.queries(),
            "noDataState": self.no_data,
            "execErrState": "Error",
            "dashboardUid": shown,
            "panelId": panel,
            "for": promql_span(self.held_s),
            "labels": {"severity": self.severity, "group": group},
            "annotations": {
                "summary": for_grafana(filled(self.says, self._own), filled(self.without, self._own), self.unit),
                "description": filled(self.does, self._own),
                "runbook": _RUNBOOK,
            }
            | link,
            "isPaused": False,
        }

    def as_prometheus(self) -> Json:
        """The rule in the form of Prometheus' rule file."""
        sign = {"gt": ">", "lt": "<"}[self.than]
        held = {"for": promql_span(self.held_s)} if self.held_s else {}
        return {
            "alert": self.alert,
            "expr": f"{self.expression} {sign} {self.limit:g}",
            **held,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": for_prometheus(filled(self.says, self._own), self.unit),
                "description": for_prometheus(filled(self.does, self._own), self.unit),
            },
        }

    def problems(self) -> list[str]:
        """What is missing for the texts to hold."""
        unknown = placeholders(self.title + (self.does if self.uid else "")) - self._own.keys()
        found = [f"{self.full_title}: nothing fills in {name}" for name in sorted(unknown)]
        if self.uid and not self.without:
            found.append(f"{self.full_title}: no text without values")
        return found


def promql_span(seconds: int) -> str:
    """A span as Prometheus and Grafana write it."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{name}"
    return f"{seconds}s"


def _series_in(expression: str) -> set[str]:
    """The series of the bridge itself that an expression reads."""
    return set(re.findall(r"bridge_\w+", expression))


def _query_object(ref_id: str, source: str, model: Mapping[str, Any]) -> Json:
    window = {"from": _WINDOW_S, "to": 0} if source != "__expr__" else {"from": 0, "to": 0}
    return {"refId": ref_id, "relativeTimeRange": window, "datasourceUid": source, "model": {"refId": ref_id, **model}}


def _bridge_query(params: Mapping[str, str], columns: Sequence[tuple[str, str]]) -> tuple[str, Json]:
    return "bridge-infinity-alerts", {
        "datasource": {"type": "yesoreyeram-infinity-datasource", "uid": "bridge-infinity-alerts"},
        "type": "json",
        "source": "url",
        "parser": "backend",
        "format": "table",
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


#: dropNN takes nulls out: a figure that is not known is no figure
_REDUCE = {**_EXPRESSION, "type": "reduce", "expression": "A", "reducer": "last", "settings": {"mode": "dropNN"}}


def _threshold_model(than: str, limit: float) -> Json:
    conditions = [{"evaluator": {"type": than, "params": [limit]}}]
    return {**_EXPRESSION, "type": "threshold", "expression": "B", "conditions": conditions}
