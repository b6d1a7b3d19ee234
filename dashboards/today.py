"""Dashboards in today's schema. The SDK writes that of Grafana 10.1, so keys that no longer exist are removed."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

#: Grafana migrates a dashboard from this version to its own when it reads it.
SCHEMA_VERSION = 39


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana reads it from a file."""
    made: dict[str, Any] = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    _remove_keys(made, "style")
    for key in ("templating", "annotations"):  # a dashboard without any has an empty list, not nothing
        made[key] = {"list": []} | made.get(key, {})
    _remove_keys(made["timepicker"], "collapse", "enable", "time_options")
    for variable in made["templating"]["list"]:
        _remove_keys(variable, "id", "auto", "auto_min", "auto_count")
    for panel in made["panels"]:
        _remove_keys(panel.get("options") or {}, "footer")
        if panel["type"] != "row" and "repeat" not in panel:
            _remove_keys(panel, "repeatDirection")
    return made | {"schemaVersion": SCHEMA_VERSION}


def _remove_keys(found: dict[str, Any], *keys: str) -> None:
    for key in keys:
        found.pop(key, None)
