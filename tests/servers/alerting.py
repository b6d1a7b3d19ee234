"""What Grafana's server does with a provisioned alert rule: reads the file, asks, makes figures, compares.

The parts are Grafana's and the Infinity plugin's documented behaviour for what our rules use, and refuse everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

Json = Mapping[str, Any]
Labels = frozenset[tuple[str, str]]
#: One figure, or the values of a series in order of time.
Values = Mapping[Labels, Sequence[float | None]]

_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|(\w+))")


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """Grafana's interpolation of a provisioned file: `$NAME`, `${NAME}`; `$$` is a dollar sign; what is not set is empty."""
    parts = (_VARIABLE.sub(lambda found: environment.get(found[1] or found[2] or "", ""), part) for part in text.split("$$"))
    return "$".join(parts)


def infinity_request(source: Json, model: Json, environment: Mapping[str, str]) -> httpx.Request:
    """The request that Infinity's server side sends: parameters sorted by key, the data source's key, its own Accept."""
    assert (model["type"], model["source"], model["parser"]) == ("json", "url", "backend"), "alerting needs the backend parser"
    assert (model["url_options"]["method"], source["jsonData"]["auth_method"]) == ("GET", "bearerToken")
    url = expanded(source["url"], environment) + model["url"]
    assert any(url.startswith(expanded(host, environment)) for host in source["jsonData"]["allowedHosts"])
    params = sorted((param["key"], param["value"]) for param in model["url_options"]["params"])
    headers = {
        "User-Agent": "Go-http-client/1.1",
        "Accept": "application/json;q=0.9,text/plain",
        "Authorization": f"Bearer {expanded(source['secureJsonData']['bearerToken'], environment)}",
    }
    return httpx.Request("GET", url, params=params, headers=headers)


def _cell(value: object, kind: str) -> Any:
    """A JSON value as the column's type; what does not fit is null, as the plugin has it."""
    if kind == "string":
        return None if value is None else str(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def figures(model: Json, body: Json) -> Values:
    """What the plugin and Grafana make of an answer. Raises AssertionError where a rule would be an error in Grafana."""
    columns = {column["text"]: (column["selector"], column["type"]) for column in model["columns"]}
    rows = [{text: _cell(row[name], kind) for text, (name, kind) in columns.items()} for row in body[model["root_selector"]]]
    kinds = {text: kind for text, (_, kind) in columns.items()}
    [time] = [text for text, kind in kinds.items() if kind == "timestamp_epoch"] or [""]
    if model["format"] == "table":
        assert not time, "a table with a time is no set of figures in every Grafana"
        return _one_each(rows, kinds)
    assert model["format"] == "timeseries"
    assert time, "a series needs its time"
    return _lined_up(rows, kinds, time)


def _one_each(rows: Sequence[Json], kinds: Mapping[str, str]) -> Values:
    found = [(_labels(row, kinds), [_number(row, kinds)]) for row in rows]
    assert len(dict(found)) == len(found), "duplicate results: two rows have the same labels"
    return dict(found)


def _lined_up(rows: Sequence[Json], kinds: Mapping[str, str], time: str) -> Values:
    """Long rows as a wide frame: one series a label set, null where it has no row at a time."""
    times = [row[time] for row in rows]
    assert times == sorted(times), "times must ascend, or the rows stay long"
    assert None not in times
    given = {(_labels(row, kinds), row[time]): _number(row, kinds) for row in rows}
    every = sorted(set(times))
    return {labels: [given.get((labels, at)) for at in every] for labels, _ in given}


def _labels(row: Json, kinds: Mapping[str, str]) -> Labels:
    return frozenset((text, row[text]) for text, kind in kinds.items() if kind == "string")


def _number(row: Json, kinds: Mapping[str, str]) -> float | None:
    [value] = [row[text] for text, kind in kinds.items() if kind == "number"]
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of its data: the figure of every label set, and which of them are over the limit."""

    newest: Mapping[Labels, float]
    firing: frozenset[Labels]


def judged(rule: Json, answers: Values) -> Verdict:
    """The rule's expressions over what its query brought, by their refIds."""
    steps = {step["refId"]: step["model"] for step in rule["data"]}
    compared = steps[rule["condition"]]
    assert compared["type"] == "threshold", "the condition of a rule must be a comparison"
    reduced = steps[compared["expression"]]
    assert (reduced["type"], reduced["settings"]["mode"]) == ("reduce", "dropNN")
    asked = next(step for step in rule["data"] if step["refId"] == reduced["expression"])
    assert asked["datasourceUid"] != "__expr__"
    kept = {labels: [value for value in values if value is not None] for labels, values in answers.items()}
    newest = {labels: _reduced(reduced["reducer"], values) for labels, values in kept.items() if values}
    [condition] = compared["conditions"]
    return Verdict(newest, frozenset(labels for labels, value in newest.items() if _crossed(condition["evaluator"], value)))


def _reduced(reducer: str, values: Sequence[float]) -> float:
    return {"last": values[-1], "mean": sum(values) / len(values)}[reducer]


def _crossed(evaluator: Json, value: float) -> bool:
    [limit] = evaluator["params"]
    return bool({"gt": value > limit, "lt": value < limit}[evaluator["type"]])


def named(firing: Iterable[Labels], label: str) -> set[str]:
    """The values of one label."""
    return {dict(labels)[label] for labels in firing}
