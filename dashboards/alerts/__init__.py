"""The alert rules, one table for Grafana and for Prometheus: what each watches, its limit, for how long, and its words.

`dashboards/rule.py` says how a rule works.
"""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.alerts.bridge import BRIDGE, KEPT, WATCHED
from dashboards.alerts.desk import DESK
from dashboards.alerts.hosts import TRADING
from dashboards.alerts.stack import STACK
from dashboards.rule import Json, Rule

#: New data comes every 10 s, and Grafana does not evaluate more often.
_EVERY = "10s"

#: Grafana's groups. The rules of a group link to the dashboard of the same name.
RULES: Mapping[str, tuple[Rule, ...]] = {**DESK, "bridge": WATCHED}

#: Prometheus' files, by the name of their one group.
TWINS: Mapping[str, tuple[Rule, ...]] = {
    "bridge": (*WATCHED, *BRIDGE, *KEPT),
    "stack": STACK,
    "trading": (*(rule for rules in DESK.values() for rule in rules if rule.alert), *TRADING),
}


def problems() -> list[str]:
    """What is missing in the table for its texts to hold."""
    return [problem for rules in (*RULES.values(), *TWINS.values()) for rule in rules for problem in rule.problems()]


def as_grafana(dashboards: Mapping[str, Json]) -> Json:
    """Grafana's provisioning file."""
    groups = [
        {
            "orgId": 1,
            "name": group,
            "folder": "Trade Distribution System",
            "interval": _EVERY,
            "rules": [rule.as_grafana(group, dashboards[group]) for rule in rules],
        }
        for group, rules in RULES.items()
    ]
    return {"apiVersion": 1, "groups": groups}


def as_prometheus(name: str) -> Json:
    """One of Prometheus' rule files."""
    return {"groups": [{"name": name, "rules": [rule.as_prometheus() for rule in TWINS[name]]}]}
