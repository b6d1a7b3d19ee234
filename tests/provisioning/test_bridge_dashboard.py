"""The bridge's own dashboard: each expression names only metrics and labels that there are, and Prometheus answers it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry import Telemetry
from demo.stores import backfill, free_port, prometheus_store
from tests.e2e.conftest import client_of
from tests.provisioning.test_dashboards import DASHBOARDS
from tests.servers.plugins import panels_of
from tests.servers.world import Stores

RULES = Path(__file__).parents[2] / "provisioning" / "prometheus" / "rules"
TARGETS = [
    pytest.param(target, id=f"{panel['id']}-{panel['title']}-{target['refId']}")
    for panel in panels_of(DASHBOARDS["bridge"])
    for target in panel["targets"]
]
#: What a scrape adds.
_SCRAPED = {"job", "instance", "le"}
#: Grafana's own metrics, and the labels of what is recorded of the hosts.
_ELSEWHERE: dict[str, set[str]] = {"alertmanager_cluster_members": set(), "tds_host_disk_used_ratio": {"host", "disk"}}


def known_metrics() -> dict[str, set[str]]:
    """Every name that the bridge shows to Prometheus or that a recording rule makes, with its labels."""
    telemetry = Telemetry()
    known: dict[str, set[str]] = {}
    for collector, names in telemetry.registry._collector_to_names.items():  # noqa: SLF001  the client library has no public listing
        known |= {name: set(getattr(collector, "_labelnames", ())) for name in names}
    # A collector of our own has no list of label names: its samples show them.
    telemetry.requests.record("/livez", "200", 0.001)
    for sample in (sample for family in telemetry.requests.collect() for sample in family.samples):
        known[sample.name] |= sample.labels.keys()
    for file in RULES.glob("*.yml"):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            known |= {rule["record"]: set() for rule in group["rules"] if "record" in rule}
    return known | _ELSEWHERE


def named(expression: str) -> set[str]:
    """The metrics that an expression names: words that stand before a range, a selector or nothing of a call."""
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", re.sub(r'"[^"]*"', " ", expression))
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


#: What has no series until there is a backup, a watched endpoint, a key with an end; the panel then says that there is none.
_ONLY_WHEN = {
    "bridge_backup_age_seconds",
    "bridge_backup_size_bytes",
    "bridge_certificate_end_timestamp_seconds",
    "bridge_key_end_timestamp_seconds",
    *_ELSEWHERE,
}
_EVERY_MS = 15_000


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["all is well", "no Redis", "nobody asks"])
async def scraped(request: pytest.FixtureRequest, stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """A Prometheus that has what a bridge showed over two minutes: its port."""
    series: dict[tuple[str, str], list[str]] = {}
    async with client_of(stores.app(**({"redis": free_port()} if request.param == "no Redis" else {}))) as client:
        for ago_ms in range(120_000, -1, -_EVERY_MS):
            if request.param != "nobody asks":
                await client.get("/v1/rows", params={"metric": "equity,cpu_load,slippage,sync_success", "from": "now-10m"})
            shown = (await client.get("/metrics")).text
            for sample in (sample for family in text_string_to_metric_families(shown) for sample in family.samples):
                pairs = sorted((sample.labels | {"job": "bridge", "instance": "b1"}).items())
                key = (sample.name, ",".join(f'{name}="{value}"' for name, value in pairs))
                line = f"{sample.name}{{{key[1]}}} {sample.value} {(stores.until_ms - ago_ms) / 1000}"
                series.setdefault(key, []).append(line)
    folder = tmp_path_factory.mktemp("scraped")
    text = "\n".join([*(line for _, lines in sorted(series.items()) for line in lines), "# EOF", ""])
    (folder / "shown.txt").write_text(text, encoding="utf-8")
    backfill(folder / "shown.txt", folder / "data")
    with prometheus_store(folder, free_port()) as port:
        yield port


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("target", TARGETS)
async def test_an_expression_has_an_answer_while_all_is_well_and_while_it_is_not(
    target: Any, scraped: int, stores: Stores
) -> None:
    expression = target["expr"].replace("$__rate_interval", "1m")
    params = {"query": expression, "time": stores.until_ms / 1000}
    async with httpx.AsyncClient() as client:
        reply = await client.get(f"http://127.0.0.1:{scraped}/api/v1/query", params=params)
    assert reply.json()["status"] == "success", reply.text
    found = reply.json()["data"]["result"]
    assert found or named(expression) & _ONLY_WHEN
    for one in found:
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= one["metric"].keys()
