"""The bridge's own dashboard: Prometheus understands each expression, and each names only metrics and labels that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.telemetry import Telemetry
from tests.provisioning.test_dashboards import DASHBOARDS
from tests.servers.plugins import panels_of
from tests.servers.world import Stores

RULES = Path(__file__).parents[2] / "provisioning" / "prometheus" / "rules"
TARGETS = [
    pytest.param(target, id=f"{panel['id']}-{panel['title']}-{target['refId']}")
    for panel in panels_of(DASHBOARDS["bridge"])
    for target in panel["targets"]
]
#: What the daily backups show (`app/backup`), in a registry of their own or the bridge's.
_BACKUP = {"bridge_backup_age_seconds": {"kind"}, "bridge_backup_size_bytes": {"kind"}}
#: What a scrape adds.
_SCRAPED = {"job", "instance", "le"}


def known_metrics() -> dict[str, set[str]]:
    """Every name that the bridge shows to Prometheus or that a recording rule makes, with its labels."""
    registry = Telemetry().registry
    known = dict(_BACKUP)
    for collector, names in registry._collector_to_names.items():  # noqa: SLF001  the client library has no public listing
        known |= {name: set(getattr(collector, "_labelnames", ())) for name in names}
    for file in RULES.glob("*.yml"):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            known |= {rule["record"]: set() for rule in group["rules"] if "record" in rule}
    return known


def named(expression: str) -> set[str]:
    """The metrics that an expression names: words that stand before a range, a selector or nothing of a call."""
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    return {word for word in re.findall(r"[A-Za-z_:][\w:]*(?!\w*\s*\()", bare) if word not in ("or", "and", "unless")}


def labels(target: Any) -> set[str]:
    """The labels that an expression keeps or selects by, and those of its legend."""
    kept = [label.strip() for group in re.findall(r"\bby\s*\(([^)]*)\)", target["expr"]) for label in group.split(",")]
    chosen = [label for group in re.findall(r"\{([^}]*)\}", target["expr"]) for label in re.findall(r"(\w+)\s*[=!]", group)]
    return {*kept, *chosen, *re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}


def unknown(target: Any) -> set[str]:
    """The names in a target that nobody shows."""
    known = known_metrics()
    metrics = named(target["expr"])
    allowed = _SCRAPED.union(*(known.get(metric, set()) for metric in metrics))
    return (metrics - known.keys()) | (labels(target) - allowed)


@pytest.mark.parametrize("target", TARGETS)
def test_an_expression_names_only_what_the_bridge_shows(target: Any) -> None:
    assert named(target["expr"])
    assert unknown(target) == set()


@pytest.mark.parametrize(
    ("expression", "legend", "wrong"),
    [
        ("sum(rate(bridge_querys_total[5m]))", "", {"bridge_querys_total"}),
        ("sum by (root) (rate(bridge_http_requests_total[5m]))", "", {"root"}),
        ('bridge_source_up{sauce="rts"}', "", {"sauce"}),
        ("max by (source) (bridge_source_up)", "{{kind}}", {"kind"}),
        ("bridge_inflight or vector(0) + bridge_inflght", "", {"bridge_inflght"}),
    ],
)
def test_a_wrong_name_is_found(expression: str, legend: str, wrong: set[str]) -> None:
    assert unknown({"expr": expression, "legendFormat": legend}) == wrong


@pytest.mark.parametrize("target", TARGETS)
def test_prometheus_understands_an_expression(target: Any, stores: Stores) -> None:
    expression = target["expr"].replace("$__rate_interval", "1m")
    url = f"http://127.0.0.1:{stores.prometheus_port}/api/v1/query"
    reply = httpx.get(url, params={"query": expression, "time": stores.until_ms / 1000})
    assert reply.json()["status"] == "success", reply.text
