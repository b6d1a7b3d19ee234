"""One test for all: the time ladder, and every port, path and name that two provisioned files have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import Settings, read_settings
from tests.provisioning.agreements import (
    MERGED,
    NOT_MERGED,
    ROOT,
    Said,
    disagreements,
    lonely,
    missing,
    out_of_order,
    statements,
)
from tests.provisioning.readers import READERS, environment

#: Every port that a provisioned file may name, and whose it is.
LOOPBACK = {
    8080: "bridge 1",
    8081: "its agent",
    8082: "bridge 2",
    8083: "its agent",
    8443: "HAProxy, bridge",
    3000: "HAProxy, Grafana",
    9090: "HAProxy, Prometheus",
    8404: "HAProxy, metrics",
    8405: "HAProxy, peers",
    3001: "Grafana 1",
    3002: "Grafana 2",
    9091: "Prometheus 1",
    9092: "Prometheus 2",
    9093: "Alertmanager",
    9094: "Grafana 1, gossip",
    9095: "Grafana 2, gossip",
    6379: "rts",
    6380: "ris",
    6381: "rtss",
    6382: "rtrs",
    6389: "tier",
    9121: "redis_exporter",
    8123: "ClickHouse, HTTP",
    9000: "ClickHouse, native",
    9363: "ClickHouse, metrics",
    5432: "PostgreSQL",
    9100: "node_exporter",
    9182: "windows_exporter",
    9464: "the trading system's exporter",
    10901: "Thanos sidecar",
    10902: "Thanos sidecar",
    10903: "second Thanos sidecar",
    10904: "second Thanos sidecar",
    10911: "Thanos querier",
    10912: "Thanos querier",
    10921: "Thanos store",
    10922: "Thanos store",
    10932: "Thanos compactor",
}
SERVICES: Mapping[str, set[int]] = {
    "bridge": {8080, 8081},
    "haproxy": {8443, 3000, 9090, 8404},
    "grafana": {3000, 9094},
    "prometheus": {9090},
    "clickhouse": {8123, 9000, 9363},
    **{f"redis-{name}": {port} for name, port in {"rts": 6379, "ris": 6380, "rtss": 6381, "rtrs": 6382, "tier": 6389}.items()},
    "redis-exporter": {9121},
    "postgres": {5432},
    "feed": {9464},
    "node-exporter": {9100},
    "thanos-sidecar": {10901, 10902},
    "thanos-querier": {10901, 10902},
}


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def compose() -> dict[str, Any]:
    services: dict[str, Any] = (
        yaml.safe_load(text("docker-compose.yml"))["services"] if (ROOT / "docker-compose.yml").exists() else {}
    )
    return services


def test_every_expected_file_is_there_and_what_is_merged_is_expected() -> None:
    assert missing(ROOT, MERGED) == []
    there = {group for group in NOT_MERGED if len(missing(ROOT, [group])) < len(READERS[group])}
    assert there == set(), "merged: take it out of NOT_MERGED"


def test_every_port_path_and_name_in_two_files_is_one() -> None:
    said = statements(ROOT)
    assert disagreements(said) == []
    if not NOT_MERGED:
        assert lonely(said) == []


def test_a_planted_disagreement_is_told_with_both_files(tmp_path: Path) -> None:
    for file in ("provisioning/haproxy/haproxy.cfg", "provisioning/prometheus/targets/bridge.yml", "provisioning/bridge.yaml"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text(file), encoding="utf-8")
    assert disagreements(statements(tmp_path)) == []
    (tmp_path / "provisioning/prometheus/targets/bridge.yml").write_text(
        '- targets: ["127.0.0.1:8080", "127.0.0.1:8084"]', "utf-8"
    )
    (tmp_path / "provisioning/bridge.yaml").write_text(
        text("provisioning/bridge.yaml").replace("port: 8081", "port: 8091"), "utf-8"
    )
    assert disagreements(statements(tmp_path)) == [
        "agent port: 8091 in provisioning/bridge.yaml; 8081 in provisioning/haproxy/haproxy.cfg",
        "one host: bridge 2: 127.0.0.1:8082 in provisioning/haproxy/haproxy.cfg; "
        "127.0.0.1:8084 in provisioning/prometheus/targets/bridge.yml",
    ]


def test_what_one_file_alone_says_and_what_is_missing_are_told() -> None:
    both = [Said("a", "1", "x"), Said("a", "1", "y")]
    assert (lonely([*both, Said("b", "2", "x")]), lonely(both)) == (["b"], [])
    assert missing(ROOT / "nowhere", ["winsvc"]) == ["winsvc/plan.py", "winsvc/install.ps1", "winsvc/uninstall.ps1"]
    assert out_of_order([("a", 1), ("b", 2), ("c", 2), ("d", 1.5)]) == [
        "c (2 s) must be above b (2 s)",
        "d (1.5 s) must be above c (2 s)",
    ]


def seconds(value: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(ms|s|m|h)", value).groups()  # type: ignore[union-attr]  # no time is to fail
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def of_haproxy(section: str, key: str) -> str:
    """A key of a section of haproxy.cfg, or what the defaults say."""
    sections = re.split(
        r"^(?=(?:global|defaults|resolvers|peers|frontend|backend)\b)",
        text("provisioning/haproxy/haproxy.cfg"),
        flags=re.MULTILINE,
    )
    for name in (section, "defaults"):
        [body] = [one for one in sections if one.split("\n", 1)[0].strip() == name]
        found = re.findall(rf"^\s+{key} (\S+)", body, re.MULTILINE)
        if found:
            return str(found[-1])
    raise AssertionError(f"haproxy.cfg: no {key} in {section}")


@pytest.fixture(params=["one host", "containers"])
def settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The bridge's settings as the committed file has them, and as compose's variables change them."""
    if request.param == "containers":
        for name, value in environment(compose().get("bridge-1", {})).items():
            monkeypatch.setenv(
                name, "0" * 64 if name.endswith("SHA256") else re.sub(r"\$\{[^}]*\}", "a-secret-of-the-test", value)
            )
    return read_settings(ROOT / "provisioning" / "bridge.yaml")


def test_the_time_limits_are_a_ladder_from_the_source_to_grafana(settings: Settings) -> None:
    policies = [source.policy for source in settings.sources.values()]
    haproxy_s, tries = (
        seconds(of_haproxy("backend be_bridge", "timeout server")),
        int(of_haproxy("backend be_bridge", "retries")) + 1,
    )
    ladder = [
        ("a source's attempt", max(policy.attempt_timeout_s for policy in policies)),
        ("a source's total", max(policy.total_timeout_s for policy in policies)),
        ("a request", settings.request.budget_s),
        ("HAProxy", haproxy_s),
    ]
    grafana = list(times_of_grafana())
    for name, limit_s in grafana:
        assert out_of_order([*ladder, (name, limit_s)]) == []
        assert out_of_order([(f"{tries} tries of HAProxy's", tries * settings.request.budget_s), (name, limit_s)]) == []
        assert (
            out_of_order([(name, limit_s), ("HAProxy for Grafana", seconds(of_haproxy("backend be_grafana", "timeout server")))])
            == []
        )
    assert out_of_order(ladder) == []
    if "grafana" in MERGED:
        assert len(grafana) > 1


def times_of_grafana() -> Iterator[tuple[str, float]]:
    for one in statements(ROOT):
        if one.topic == "Grafana's time for a data source":
            yield one.where, seconds(one.value.replace(" ", ""))


def test_haproxy_and_the_bridge_fit_each_other(settings: Settings) -> None:
    servers = re.search(r"default-server weight.*", text("provisioning/haproxy/haproxy.cfg"))[0]  # type: ignore[index]
    values = dict(re.findall(r"(maxconn|agent-inter) (\S+)", servers))
    assert int(values["maxconn"]) < settings.request.under_way
    assert seconds(values["agent-inter"]) * 2 < settings.http.lame_duck_s, (
        "a drain must have been heard before the bridge is gone"
    )
    assert seconds(values["agent-inter"]) * 2 < 5.0, "and `ready`, which is said for 5 s after a start"
    for name, service in compose().items():
        if name.startswith("bridge-"):
            assert seconds(service["stop_grace_period"]) > settings.http.lame_duck_s + settings.http.graceful_stop_s


def test_a_rates_window_holds_four_scrapes(settings: Settings) -> None:
    every_s = seconds(yaml.safe_load(text("provisioning/prometheus/prometheus.yml"))["global"]["scrape_interval"])
    windows = {
        name: source.connect.min_window_s for name, source in settings.sources.items() if source.connect.kind == "prometheus"
    }
    assert windows == {"prometheus": 4 * every_s}


def provisioned() -> Iterator[Path]:
    for place in ("provisioning", "winsvc", "docker-compose.yml", "Dockerfile"):
        found = ROOT / place
        files = found.rglob("*") if found.is_dir() else [found]
        yield from (file for file in files if file.is_file() and "secrets" not in file.parts and file.suffix not in (".pyc",))


def test_every_address_that_a_provisioned_file_names_is_somebodys() -> None:
    unknown, seen = set(), set()
    names = re.compile(rf"\b(127\.0\.0\.1|localhost|{'|'.join(SERVICES)})(?:-[12])?:(\d{{2,5}})(?![\d.])")
    for file in provisioned():
        for host, port in names.findall(file.read_text(encoding="utf-8")):
            seen.add(int(port))
            known = SERVICES.get(host, LOOPBACK)
            if int(port) not in known:
                unknown.add((file.relative_to(ROOT).as_posix(), f"{host}:{port}"))
    assert unknown == set()
    assert len(seen) > 15


def uids(found: Any) -> Iterator[str]:
    """Every data source that a dashboard or an alert rule names."""
    if isinstance(found, dict):
        source = found.get("datasource")
        if isinstance(source, dict) and "uid" in source:
            yield source["uid"]
        if "datasourceUid" in found:
            yield found["datasourceUid"]
        for value in found.values():
            yield from uids(value)
    elif isinstance(found, list):
        for value in found:
            yield from uids(value)


def test_dashboards_and_alert_rules_name_data_sources_that_are_provisioned() -> None:
    folder = ROOT / "provisioning" / "grafana"
    sources = {
        source["uid"]
        for file in folder.glob("datasources/*.y*ml")
        for source in yaml.safe_load(file.read_text(encoding="utf-8")).get("datasources", [])
    }
    named = {uid for file in folder.glob("dashboards/*.json") for uid in uids(json.loads(file.read_text(encoding="utf-8")))}
    named |= {uid for file in folder.glob("alerting/*.y*ml") for uid in uids(yaml.safe_load(file.read_text(encoding="utf-8")))}
    theirs = {"-- Grafana --", "-- Dashboard --", "-- Mixed --", "grafana", "__expr__"}
    assert {uid for uid in named if not uid.startswith("$")} - theirs - sources == set()
    if "grafana" in MERGED:
        assert {"bridge-json", "bridge-infinity", "bridge-infinity-alerts", "prometheus"} <= sources
        assert "bridge-infinity-alerts" in named
