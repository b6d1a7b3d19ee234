"""The SDK's models are those of Grafana 10.1: what they write that today's schema does not know any more is left out."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

#: Grafana lifts a dashboard from this to its own version when it reads it.
SCHEMA_VERSION = 39


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana reads it from a file."""
    made: dict[str, Any] = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    _without(made, "style")
    _without(made["timepicker"], "collapse", "enable", "time_options")
    for variable in made.get("templating", {}).get("list", []):
        _without(variable, "id", "auto", "auto_min", "auto_count")
    for panel in made["panels"]:
        _without(panel.get("options") or {}, "footer")
        if panel["type"] != "row" and "repeat" not in panel:
            _without(panel, "repeatDirection")
    return made | {"schemaVersion": SCHEMA_VERSION}


def _without(found: dict[str, Any], *keys: str) -> None:
    for key in keys:
        found.pop(key, None)
