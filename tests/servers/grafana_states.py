"""The states of a Grafana alert rule and the messages that they make: `for`, no data, errors, series that go away.

As Grafana 11.5 does it (`pkg/services/ngalert/state`). A series that is missing for two evaluations is resolved. An error and,
with `noDataState: NoData`, no data are alerts of their own without the rule's labels. With `OK` and `Alerting` no data moves
every series that is known, and with `Alerting` it is an alert of its own where none is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.servers.alerting import Json, Labels, Verdict
from tests.servers.go_templates import AlertData, expand

Status = Literal["firing", "resolved"]
_GONE_AFTER = 2
_NO_LABELS: Labels = frozenset()


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent when an alert begins and when it ends."""

    at_s: int
    rule: str
    #: the rule's title, DatasourceError or DatasourceNoData
    alert: str
    status: Status
    labels: Labels
    severity: str
    summary: str
    link: tuple[str, str]


@dataclass(slots=True)
class _Series:
    pending_since_s: int | None = None
    fires: bool = False
    missing: int = 0
    value: float | None = None


@dataclass(slots=True)
class RuleStates:
    """One rule as it is evaluated again and again."""

    rule: Json
    held_s: int
    messages: list[Message] = field(default_factory=list)
    _series: dict[Labels, _Series] = field(default_factory=dict)
    _failing: str = ""

    def evaluate(self, at_s: int, found: Verdict | None) -> None:
        """One evaluation; None is an error."""
        if found is None:
            self._fail(at_s, "DatasourceError")
        elif found.newest:
            self._fail(at_s, "")
            self._take(at_s, found.newest, found.firing)
        elif self.rule["noDataState"] == "NoData":
            self._fail(at_s, "DatasourceNoData")
        else:
            self._fail(at_s, "")
            self._without_data(at_s)

    def _take(self, at_s: int, newest: Mapping[Labels, float], firing: Iterable[Labels]) -> None:
        over = frozenset(firing)
        for labels, value in newest.items():
            one = self._series.setdefault(labels, _Series())
            one.missing, one.value = 0, value
            self._move(at_s, labels, one, labels in over)
        for labels in [labels for labels in self._series if labels not in newest]:
            one = self._series[labels]
            one.missing += 1
            if one.missing >= _GONE_AFTER:
                self._move(at_s, labels, one, over=False)
                del self._series[labels]

    def _without_data(self, at_s: int) -> None:
        fires = self.rule["noDataState"] == "Alerting"
        if fires and not self._series:
            self._series[_NO_LABELS] = _Series()
        for labels, one in self._series.items():
            one.value = None
            self._move(at_s, labels, one, fires)

    def _move(self, at_s: int, labels: Labels, one: _Series, over: bool) -> None:
        if not over:
            if one.fires:
                self._send(at_s, self.rule["title"], "resolved", labels, one.value)
            one.pending_since_s, one.fires = None, False
            return
        if one.pending_since_s is None:
            one.pending_since_s = at_s
        if not one.fires and at_s - one.pending_since_s >= self.held_s:
            one.fires = True
            self._send(at_s, self.rule["title"], "firing", labels, one.value)

    def _fail(self, at_s: int, how: str) -> None:
        if how == self._failing:
            return
        if self._failing:
            self._send(at_s, self._failing, "resolved", _NO_LABELS, None)
        if how:
            self._send(at_s, how, "firing", _NO_LABELS, None)
        self._failing = how

    def _send(self, at_s: int, alert: str, status: Status, labels: Labels, value: float | None) -> None:
        annotations = self.rule["annotations"]
        values = {} if value is None else {"A": value, "B": value, "C": float(status == "firing")}
        summary = expand(annotations["summary"], AlertData(dict(labels), values))
        link = annotations["__dashboardUid__"], annotations["__panelId__"]
        severity = self.rule["labels"]["severity"]
        self.messages.append(Message(at_s, self.rule["uid"], alert, status, labels, severity, summary, link))


def seconds_of(span: str) -> int:
    """A span of Grafana's or Prometheus' in seconds."""
    return int(span[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[span[-1]]


def states_of(rule: Json) -> RuleStates:
    """The states of a provisioned rule, before its first evaluation."""
    return RuleStates(rule, seconds_of(rule["for"]))
