"""Whether every name that a folder of Grafana dashboards asks the bridge for is in the catalogue; nothing is asked or started."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.catalog import Catalogue
from app.contracts import grammar
from app.contracts.grafana_json import payload_of, refuse_unknown_keys
from app.contracts.grafana_json_discovery import wanted_values
from app.errors import BadQuery, BridgeError, ConfigError, Problem

_JSON = ("simpod-json-datasource", "grafana-simple-json-datasource")
_ROWS = "yesoreyeram-infinity-datasource"
_DATA = ("/v1/rows", "/alert/v1/rows", "/v1/frames")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at."""

    dashboards: int
    targets: int


def check_folder(folder: Path, catalogue: Catalogue) -> Checked:
    """Every `*.json` of the folder. Raises ConfigError with all problems."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ConfigError([Problem(str(folder), "", "no dashboards: expected at least one *.json file here")])
    problems: list[Problem] = []
    targets = sum(_check_file(file, catalogue, problems) for file in files)
    if problems:
        raise ConfigError(problems)
    return Checked(len(files), targets)


def _check_file(file: Path, catalogue: Catalogue, problems: list[Problem]) -> int:
    try:
        dashboard = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as wrong:
        problems.append(Problem(file.name, "", f"not JSON: {wrong}"))
        return 0
    if not isinstance(dashboard, dict) or not isinstance(dashboard.get("panels"), list):
        problems.append(Problem(file.name, "panels", "is missing; allowed: a dashboard as Grafana exports it"))
        return 0
    count = 0
    for place, check in _asked(dashboard, catalogue):
        count += 1
        try:
            check()
        except BridgeError as wrong:
            problems.append(Problem(file.name, place, wrong.message))
    return count


def _asked(dashboard: Mapping[str, Any], catalogue: Catalogue) -> Iterator[tuple[str, Callable[[], None]]]:
    """Everything that asks the bridge: where it stands, and its check."""
    for panel in _panels(dashboard["panels"]):
        for target in panel.get("targets") or ():
            place = f"panel {panel.get('id')} {panel.get('title', '')!r}, target {target.get('refId')}"
            yield from _target(place, target, target.get("datasource") or panel.get("datasource"), catalogue)
    for one in dashboard.get("annotations", {}).get("list") or ():
        yield from _target(f"annotation {one.get('name')!r}", one.get("target") or {}, one.get("datasource"), catalogue)
    for variable in dashboard.get("templating", {}).get("list") or ():
        query = variable.get("query")
        if _kind(variable.get("datasource")) in _JSON and isinstance(query, dict):
            yield f"variable {variable.get('name')!r}", _bound(_check_variable, query, catalogue)


def _panels(panels: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for panel in panels:
        yield panel
        yield from panel.get("panels") or ()


def _target(place: str, target: Mapping[str, Any], source: Any, catalogue: Catalogue) -> Iterator[tuple[str, Callable[[], None]]]:
    kind = _kind(source)
    if kind in _JSON:
        yield place, _bound(_check_json, target, catalogue)
    elif kind == _ROWS:
        yield place, _bound(_check_rows, target, catalogue)


def _kind(source: Any) -> Any:
    return source.get("type") if isinstance(source, dict) else source


def _bound(
    check: Callable[[Mapping[str, Any], Catalogue], None], found: Mapping[str, Any], catalogue: Catalogue
) -> Callable[[], None]:
    return lambda: check(found, catalogue)


def _check_json(target: Mapping[str, Any], catalogue: Catalogue) -> None:
    names, payload = _names([target.get("target")]), payload_of(target)
    if not names:
        raise BadQuery("target: is missing; allowed: a metric's or an event's name")
    if len(names) == 1 and names[0] in catalogue.events:
        return
    for name in names:
        metric = catalogue.metric(name, "target")
        refuse_unknown_keys(payload, metric)
        by = payload.get("by")
        metric.known(_names(by if isinstance(by, list) else [by]), "payload.by")


def _check_rows(target: Mapping[str, Any], catalogue: Catalogue) -> None:
    url = str(target.get("url", ""))
    params: dict[str, list[Any]] = {}
    for param in (target.get("url_options") or {}).get("params") or ():
        params.setdefault(str(param.get("key")), []).append(param.get("value"))
    if url == "/v1/events":
        for name in _names(params.get("name", ())):
            catalogue.event(name, "name")
    elif url == "/v1/values":
        for name in _names(params.get("label", ())):
            catalogue.label(name, "label")
    elif url in _DATA:
        _check_data(params, catalogue)
    else:
        raise BadQuery(f"url: {url[:60]!r} is not known; allowed: {', '.join((*_DATA, '/v1/events', '/v1/values'))}")


def _check_data(params: Mapping[str, list[Any]], catalogue: Catalogue) -> None:
    names = _names(params.get("metric", ()))
    if not names and not params.get("metric"):
        raise BadQuery("metric: is missing; allowed: one or several names of the catalogue")
    for name in names:
        catalogue.metric(name).known(_names(params.get("by", ())), "by")


def _check_variable(query: Mapping[str, Any], catalogue: Catalogue) -> None:
    label, where = wanted_values(query.get("query"))
    if label not in ("", "metrics"):
        catalogue.label(label, "query")
    for one in where if isinstance(where, dict) else ():
        catalogue.label(one, "query.where")


def _names(values: Iterable[Any]) -> list[str]:
    """The names in a list; one that a variable gives is not known before it is chosen."""
    return [name for name in grammar.words(value for value in values if isinstance(value, str)) if "$" not in name]
