"""`python -m tests.provisioning.expander`: lines of JSON with the rules' own texts, and with each function and many values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from app.cli.output import print_lines
from tests.provisioning.alerting import RULES

_LABELS = {
    "account": "ACC1",
    "instance": "mt5-001",
    "source": "rtrs",
    "sink": "duckdb",
    "group": "executors",
    "broker": "alpha",
    "host": "host-1",
    "disk": "/",
}
_NUMBERS = (
    *(0, 1, -1, 0.5, 0.2345678, 12.5, 60, 61.5, 90, 3600, 3661, 86400, 90061.7, 999.9, 1000, 1234, 12345.678, 1e6, 1.5e9),
    *(1234567.5, 2.5e-5, -0.003, -75.25, -90000, 150, 199.96, 0.05, 100, 5.04, None),
)
_FORMS = (
    *("{{ humanize .Values.B.Value }}", "{{ humanizeDuration .Values.B.Value }}", "{{ humanizePercentage .Values.B.Value }}"),
    *('{{ printf "%.1f" .Values.B.Value }}', "{{ .Values.B.Value }}", "{{ .Values.B.Value | humanize }}"),
)
_OTHERS = (
    *("{{ humanize .Values.B.Value }}", "{{ .Values.B.Value }}", "{{ .Labels.account }}", "a {{- .Labels.account -}} b"),
    *("{{ if .Values.B }}x{{ end }}y", "{{ if .Labels.a }}{{ if .Labels.b }}1{{ else }}2{{ end }}{{ else }}3{{ end }}"),
    *('{{ printf "%.1f" .Values.B.Value }}', "{{ .Foo }}", "{{ nofunc 1 }}", "{{ if .Values.B }}", "{{ end }}"),
    *("{{ .Values.B.Nope }}", '{{ humanize "x" }}', '{{ humanize "12.5" }}', "plain text 5 % done"),
    *("{{ if eq .Values.B.Value .Values.B.Value }}n{{ else }}nan{{ end }}", "{{ humanizeDuration .Labels.account }}"),
    "{{ .Labels.account.x }}",
)

Case = Mapping[str, object]


def _case(template: str, labels: Mapping[str, str], values: Mapping[str, float | None]) -> Case:
    return {"template": template, "labels": labels, "values": values}


def cases() -> Iterator[Case]:
    """Every text of the rules in each state, every function with many values, and what is wrong or missing."""
    for text in dict.fromkeys(rule["annotations"]["summary"] for rule in RULES.values()):
        yield _case(text, _LABELS, {"B": 12.345})
        yield _case(text, _LABELS, {})
        yield _case(text, {"datasource_uid": "x", "ref_id": "A"}, {})
        yield _case(text, _LABELS, {"B": None})
        yield _case(text, {}, {"B": 3.0})
    yield from (_case(form, {}, {"B": number}) for number in _NUMBERS for form in _FORMS)
    for text in _OTHERS:
        yield _case(text, {}, {})
        yield _case(text, {"account": "ACC1", "a": "1"}, {"B": 2.0})
        yield _case(text, {"a": "1", "b": "2"}, {"B": None})


print_lines(*map(json.dumps, cases()))
