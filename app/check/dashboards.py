"""Checks that Grafana dashboards and alert rules ask the bridge only for what it can answer. No store is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.catalog import Catalogue
from app.catalog.units import is_unit, nearest_units
from app.check.dry_run import DryRun
from app.check.panels import count_variables, lost_marks, rangeless_dashboard_links, rangeless_links, unheard_variables
from app.check.refusals import VARIABLE, refusals_of_rows, refusals_of_target, refusals_of_variable
from app.documents.nearest import name_hint, printable_text
from app.documents.yaml_text import parse_yaml, read_bytes, text_of
from app.errors import BridgeError, ConfigError, Problem

_JSON = ("simpod-json-datasource", "grafana-simple-json-datasource")
_ROWS = "yesoreyeram-infinity-datasource"
_OF_BRIDGE = (*_JSON, _ROWS)
#: `hide` of a variable that nobody sees
_HIDDEN = 2

#: A place in a dashboard, and what is wrong there.
_Finding = tuple[str, str]


@dataclass(slots=True)
class CheckedFiles:
    """How many files and targets were checked, and what is wrong with them."""

    files: int = 0
    targets: int = 0
    problems: list[Problem] = field(default_factory=list)


async def check_dashboards(folder: Path, bridge: DryRun, unread: frozenset[str]) -> CheckedFiles:
    """Check every `*.json` file of the folder. Names in `unread` count as known."""
    files, checked = _files_in(folder, "*.json"), CheckedFiles()
    if not files:
        checked.problems.append(Problem(str(folder), "", "no dashboards: expected at least one *.json file here"))
    for file in files:
        checked.files += 1
        try:
            dashboard = _load_dashboard(file)
        except ConfigError as wrong:
            checked.problems += wrong.problems
            continue
        async for place, message in _DashboardCheck(dashboard, bridge, unread, checked).find_problems():
            checked.problems.append(Problem(file.name, place, message))
    return checked


async def check_alerts(folder: Path, bridge: DryRun, unread: frozenset[str]) -> CheckedFiles:
    """Check the alert rules in every `*.yaml` file of the folder."""
    checked = CheckedFiles()
    for file in _files_in(folder, "*.yaml"):
        try:
            raw = parse_yaml(read_bytes(file, file.name), file.name)
        except ConfigError as wrong:
            checked.problems += wrong.problems
            continue
        checked.files += 1
        for rule in (rule for group in _mappings_at(raw, "groups") for rule in _mappings_at(group, "rules")):
            # A rule is checked as a dashboard without variables and with one panel, which has the queries of the rule.
            targets = [one["model"] for one in _mappings_at(rule, "data") if isinstance(one.get("model"), dict)]
            panel = {"panels": [{"id": rule.get("uid"), "title": rule.get("title"), "targets": targets}]}
            async for place, message in _DashboardCheck(panel, bridge, unread, checked, has_readers=False).find_problems():
                checked.problems.append(Problem(file.name, place.replace("panel", "rule", 1), message))
    return checked


def _files_in(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def _load_dashboard(file: Path) -> dict[str, Any]:
    """The dashboard in a file. Raises ConfigError."""
    text = text_of(read_bytes(file, file.name), file.name)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise ConfigError([Problem(file.name, "", f"not JSON: {printable_text(wrong, 200)}")]) from wrong
    if not isinstance(found, dict) or not isinstance(found.get("panels"), list):
        raise ConfigError([Problem(file.name, "panels", "is missing; allowed: a dashboard as Grafana exports it")])
    return found


def _mappings_at(found: Any, *keys: str) -> list[dict[str, Any]]:
    """The mappings in the list at a place. Grafana itself refuses anything else."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


class _DashboardCheck:
    """Checks one dashboard. An alert rule has no readers who could miss a mark: its route never sends an old figure."""

    def __init__(
        self, dashboard: dict[str, Any], bridge: DryRun, unread: frozenset[str], checked: CheckedFiles, has_readers: bool = True
    ) -> None:
        self._dashboard = dashboard
        self._bridge = bridge
        self._unread = unread
        self._checked = checked
        self._has_readers = has_readers
        self._variables = {str(one.get("name")) for one in _mappings_at(dashboard, "templating", "list")}

    async def find_problems(self) -> AsyncIterator[_Finding]:
        """Everything that is wrong with the requests of the dashboard to the bridge."""
        for place, target, kind in self._bridge_targets():
            self._checked.targets += 1
            for message in [*self._undefined_variables(target), *await self._refusals_of(target, kind)]:
                yield place, message
        for one in (*self._unit_problems(), *(self._reader_problems() if self._has_readers else ())):
            yield one
        for variable in _mappings_at(self._dashboard, "templating", "list"):
            if _datasource_type(variable.get("datasource")) in _OF_BRIDGE:
                self._checked.targets += 1
                for message in await self._variable_problems(variable):
                    yield f"variable {variable.get('name')!r}", message

    def _bridge_targets(self) -> Iterator[tuple[str, dict[str, Any], Any]]:
        for panel in _with_nested_panels(_mappings_at(self._dashboard, "panels")):
            for target in _mappings_at(panel, "targets"):
                kind = _datasource_type(target.get("datasource") or panel.get("datasource"))
                if kind in _OF_BRIDGE:
                    yield f"panel {panel.get('id')} {panel.get('title', '')!r}, target {target.get('refId')}", target, kind
        for one in _mappings_at(self._dashboard, "annotations", "list"):
            kind = _datasource_type(one.get("datasource"))
            if kind in _OF_BRIDGE:
                yield f"annotation {one.get('name')!r}", dict(_as_mapping(one.get("target"))), kind

    async def _refusals_of(self, target: dict[str, Any], kind: Any) -> list[str]:
        if kind == _ROWS:
            return await refusals_of_rows(target, self._bridge, self._unread)
        return await refusals_of_target(target, self._bridge, self._unread)

    def _undefined_variables(self, value: Any) -> Iterator[str]:
        """Variables that the dashboard does not define. Those of Grafana itself begin with two underscores."""
        names = dict.fromkeys(next(filter(None, found)) for found in VARIABLE.findall(json.dumps(value)))
        for name in names:
            if not name.startswith("__") and name not in self._variables and not name.isdigit():
                yield f"variable ${printable_text(name)} is not defined; {name_hint(name, self._variables)}"

    def _unit_problems(self) -> Iterator[_Finding]:
        """Unknown units in panels that ask the bridge."""
        for panel in self._bridge_panels():
            config = panel.get("fieldConfig")
            own = _as_mapping(_as_mapping(config).get("defaults")).get("unit")
            overrides = [one for rule in _mappings_at(config, "overrides") for one in _mappings_at(rule, "properties")]
            for unit in (own, *(one.get("value") for one in overrides if one.get("id") == "unit")):
                if isinstance(unit, str) and unit and "$" not in unit and not is_unit(unit):
                    place = f"panel {panel.get('id')} {panel.get('title', '')!r}, unit"
                    yield place, f"{printable_text(unit)!r} is no unit of Grafana's; {nearest_units(unit)}"

    def _bridge_panels(self) -> Iterator[dict[str, Any]]:
        """The panels that have a target of the bridge."""
        panels = _with_nested_panels(_mappings_at(self._dashboard, "panels"))
        return (panel for panel in panels if _targets_of(panel, _OF_BRIDGE))

    def _reader_problems(self) -> Iterator[_Finding]:
        """What panels hide from their readers: lost marks, lists that change nothing, links without the range."""
        counts = {name for panel in self._bridge_panels() for name in count_variables(_targets_of(panel, _OF_BRIDGE))}
        for panel in self._bridge_panels():
            place = f"panel {panel.get('id')} {panel.get('title', '')!r}"
            asked, rows = _targets_of(panel, _JSON), _targets_of(panel, (_ROWS,))
            shown = [one for one in self._shown_lists() if one[0] not in counts]
            lists = {name: label for name, label, is_adhoc in shown if not (is_adhoc and asked)}
            found = (*lost_marks(panel, asked, rows), *unheard_variables(panel, [*asked, *rows], lists), *rangeless_links(panel))
            yield from ((place, message) for message in found)
        yield from (("links", message) for message in rangeless_dashboard_links(self._dashboard))

    def _shown_lists(self) -> Iterator[tuple[str, str, bool]]:
        """Name, label and whether it is one of ad-hoc filters, of each variable that people see."""
        for one in _mappings_at(self._dashboard, "templating", "list"):
            if one.get("hide") != _HIDDEN:
                yield str(one.get("name")), str(one.get("label") or ""), one.get("type") == "adhoc"

    async def _variable_problems(self, variable: dict[str, Any]) -> list[str]:
        """Problems of a variable whose values come from the bridge, and of the labels of ad-hoc filters."""
        found, query = list[str](), variable.get("query")
        if _datasource_type(variable.get("datasource")) in _JSON and isinstance(query, dict):
            found += self._undefined_variables(query)
            found += await refusals_of_variable(query.get("query"), self._bridge, self._unread)
        if variable.get("type") == "adhoc":
            found += self._unknown_labels((str(one.get("key")) for one in _mappings_at(variable, "filters")), "filters")
        return found

    def _unknown_labels(self, labels: Iterable[str], what: str) -> Iterator[str]:
        for label in labels:
            if label not in self._unread:
                yield from _label_refusal(self._bridge.catalogue, label, what)


def _label_refusal(catalogue: Catalogue, label: str, what: str) -> Iterator[str]:
    try:
        catalogue.label(label, what)
    except BridgeError as wrong:
        yield wrong.message


def _with_nested_panels(panels: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _mappings_at(panel, "panels")


def _targets_of(panel: dict[str, Any], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """The targets of a panel that ask a data source of these types."""
    found = _mappings_at(panel, "targets")
    return [one for one in found if _datasource_type(one.get("datasource") or panel.get("datasource")) in kinds]


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _datasource_type(source: Any) -> Any:
    kind = source.get("type") if isinstance(source, dict) else source
    return kind if isinstance(kind, str) else None
