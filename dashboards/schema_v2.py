"""The same dashboards in Grafana's schema v2 (`dashboard.grafana.app/v2beta1`), for Grafana 13 and what is kept in Git."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

API_VERSION = "dashboard.grafana.app/v2beta1"
#: The version of the query's own schema; no plugin here has another one.
_QUERY_VERSION = "v0"
_REFRESH = {0: "never", 1: "onDashboardLoad", 2: "onTimeRangeChanged"}
_SORT = {0: "disabled", 1: "alphabeticalAsc", 2: "alphabeticalDesc", 3: "numericalAsc", 4: "numericalDesc"}
_CURSOR = {0: "Off", 1: "Crosshair", 2: "Tooltip"}
_SHOWN = {"hide": "dontHide", "skipUrlSync": False}


def as_v2(classic: Mapping[str, Any]) -> Json:
    """The resource for a dashboard in the classic schema."""
    panels = [panel for panel in classic["panels"] if panel["type"] != "row"]
    spec = {
        "title": classic["title"],
        "description": classic["description"],
        "tags": classic["tags"],
        "editable": classic["editable"],
        "cursorSync": _CURSOR[classic["graphTooltip"]],
        "preload": False,
        "annotations": [_annotation(one) for one in classic["annotations"].get("list", [])],
        "links": [_link(one) for one in classic["links"]],
        "timeSettings": _time_settings(classic),
        "variables": [_variable(one) for one in classic["templating"].get("list", [])],
        "elements": {_element_name(panel): _element(panel) for panel in panels},
        "layout": {"kind": "RowsLayout", "spec": {"rows": [_row(*one) for one in _rows(classic["panels"])]}},
    }
    return {"apiVersion": API_VERSION, "kind": "Dashboard", "metadata": {"name": classic["uid"]}, "spec": spec}


def _time_settings(classic: Mapping[str, Any]) -> Json:
    return {
        "timezone": classic["timezone"],
        "from": classic["time"]["from"],
        "to": classic["time"]["to"],
        "autoRefresh": classic["refresh"],
        "autoRefreshIntervals": classic["timepicker"]["refresh_intervals"],
        "hideTimepicker": False,
        "fiscalYearStartMonth": classic.get("fiscalYearStartMonth", 0),
    }


def _query(datasource: Mapping[str, str], spec: Mapping[str, Any]) -> Json:
    kept = {key: value for key, value in spec.items() if key not in ("refId", "datasource")}
    return {
        "kind": "DataQuery",
        "group": datasource["type"],
        "version": _QUERY_VERSION,
        "datasource": {"name": datasource["uid"]},
        "spec": kept,
    }


def _annotation(one: Mapping[str, Any]) -> Json:
    spec = {
        "name": one["name"],
        "enable": one["enable"],
        "hide": one.get("hide", False),
        "iconColor": one["iconColor"],
        "builtIn": False,
        "query": _query(one["datasource"], one["target"]),
    }
    return {"kind": "AnnotationQuery", "spec": spec}


def _link(one: Mapping[str, Any]) -> Json:
    keys = ("title", "type", "icon", "tooltip", "tags", "asDropdown", "targetBlank", "includeVars", "keepTime")
    return {key: one[key] for key in keys}


def _variable(one: Mapping[str, Any]) -> Json:
    named = {"name": one["name"], "label": one["label"], **_SHOWN, "allowCustomValue": True}
    if one["type"] == "adhoc":
        spec = named | {"description": one["description"], "baseFilters": [], "filters": [], "defaultKeys": []}
        source = one["datasource"]
        return {"kind": "AdhocVariable", "group": source["type"], "datasource": {"name": source["uid"]}, "spec": spec}
    current = {"text": one["current"]["text"], "value": one["current"]["value"]}
    if one["type"] == "custom":
        spec = named | {"description": one["description"], "query": one["query"], "current": current, "options": []}
        return {"kind": "CustomVariable", "spec": spec | {"multi": False, "includeAll": False}}
    spec = named | {
        "current": current,
        "refresh": _REFRESH[one["refresh"]],
        "query": _query(one["datasource"], one["query"]),
        "regex": "",
        "sort": _SORT[one["sort"]],
        "options": [],
        "multi": one["multi"],
        "includeAll": one["includeAll"],
        "allValue": one["allValue"],
    }
    return {"kind": "QueryVariable", "spec": spec}


def _element_name(panel: Mapping[str, Any]) -> str:
    return f"panel-{panel['id']}"


def _element(panel: Mapping[str, Any]) -> Json:
    asked = [
        {"refId": one["refId"], "hidden": False, "query": _query(one.get("datasource") or panel["datasource"], one)}
        for one in panel["targets"]
    ]
    data = {
        "queries": [{"kind": "PanelQuery", "spec": one} for one in asked],
        "transformations": [
            {"kind": one["id"], "spec": {"id": one["id"], "options": one["options"]}} for one in panel.get("transformations", [])
        ],
        "queryOptions": {key: panel[key] for key in ("maxDataPoints", "interval", "timeFrom") if key in panel},
    }
    shown = {"options": panel["options"], "fieldConfig": panel["fieldConfig"]}
    spec = {
        "id": panel["id"],
        "title": panel["title"],
        "description": panel["description"],
        "links": [],
        "data": {"kind": "QueryGroup", "spec": data},
        "vizConfig": {"kind": "VizConfig", "group": panel["type"], "version": "", "spec": shown},
        "transparent": panel.get("transparent", False),
    }
    return {"kind": "Panel", "spec": spec}


def _rows(panels: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The panels below each heading; those above the first heading have no title."""
    title, below = "", list[Mapping[str, Any]]()
    for panel in panels:
        if panel["type"] != "row":
            below.append(panel)
            continue
        if below:
            yield title, below
        title, below = panel["title"], []
    yield title, below


def _row(title: str, panels: Sequence[Mapping[str, Any]]) -> Json:
    top = min(panel["gridPos"]["y"] for panel in panels)
    layout = {"kind": "GridLayout", "spec": {"items": [_item(panel, top) for panel in panels]}}
    return {"kind": "RowsLayoutRow", "spec": {"title": title, "collapse": False, "hideHeader": not title, "layout": layout}}


def _item(panel: Mapping[str, Any], top: int) -> Json:
    at = panel["gridPos"]
    element = {"kind": "ElementReference", "name": _element_name(panel)}
    place = {"x": at["x"], "y": at["y"] - top, "width": at["w"], "height": at["h"]}
    return {"kind": "GridLayoutItem", "spec": place | {"element": element}}
