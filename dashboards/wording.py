"""The words of an alert rule: written once, with `{account}`, `{value}`, `{limit}`, and rendered for Grafana and for Prometheus.

Both fill in a text with Go's templates, but by other names. Grafana fills it in for every state, also where there is neither a
label nor a value (no data, an error). A template that fails there is sent as it stands, so each text says what holds without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

Unit = Literal["percent", "ratio", "seconds", "count"]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
#: how a template writes a value of a unit; `at` is where the value is
_VALUES: Mapping[Unit, Callable[[str], str]] = {
    "percent": lambda at: f'{{{{ printf "%.1f" {at} }}}} %',
    "ratio": lambda at: f"{{{{ humanizePercentage {at} }}}}",
    "seconds": lambda at: f"{{{{ humanizeDuration {at} }}}}",
    "count": lambda at: f"{{{{ humanize {at} }}}}",
}
_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def span_words(seconds: float) -> str:
    """A span in words: 5 minutes, 1 hour, 200 ms."""
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    size, name = next((size, name) for size, name in _SPANS if seconds >= size and seconds % size == 0)
    count = seconds / size
    return f"{count:g} {name}" if count == 1 else f"{count:g} {name}s"


def limit_words(limit: float, unit: Unit) -> str:
    """A limit in words, as it stands in a title."""
    if unit == "seconds":
        return span_words(limit)
    return {"percent": f"{limit:g} %", "ratio": f"{limit * 100:g} %", "count": f"{limit:g}"}[unit]


def placeholders(text: str) -> set[str]:
    """The names that a text wants to be filled in."""
    return set(_PLACEHOLDER.findall(text))


def filled(text: str, known: Mapping[str, str]) -> str:
    """The text with every known placeholder filled in."""
    return _PLACEHOLDER.sub(lambda found: known.get(found[1], found[0]), text)


def for_prometheus(text: str, unit: Unit) -> str:
    """The text as a template of Prometheus, which fills it in for a series only: labels and value are there."""
    return _PLACEHOLDER.sub(lambda found: _prometheus_part(found[1], unit), text)


def _prometheus_part(name: str, unit: Unit) -> str:
    return _VALUES[unit]("$value") if name == "value" else f"{{{{ $labels.{name} }}}}"


def for_grafana(text: str, without: str, unit: Unit) -> str:
    """The text as a template of Grafana, and `without` where a label or the value is missing.

    There is no dollar sign in it: Grafana takes `$name` in a provisioned file from its environment. A value that is not a number
    does not equal itself.
    """
    names = sorted(placeholders(text) - {"value"})
    conditions = [f".Labels.{name}" for name in names]
    if "value" in placeholders(text):
        conditions += [".Values.B", "eq .Values.B.Value .Values.B.Value"]
    made = _PLACEHOLDER.sub(lambda found: _grafana_part(found[1], unit), text)
    for condition in reversed(conditions):
        made = f"{{{{ if {condition} }}}}{made}{{{{ else }}}}{without}{{{{ end }}}}"
    return made


def _grafana_part(name: str, unit: Unit) -> str:
    return _VALUES[unit](".Values.B.Value") if name == "value" else f"{{{{ .Labels.{name} }}}}"
