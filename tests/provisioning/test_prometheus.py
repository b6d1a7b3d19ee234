"""The committed Prometheus files, read by promtool, and every rule with samples that make it fire and samples that do not."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.telemetry import TeamTelemetry, Telemetry
from demo.gauges import families
from demo.world import HOUR_MS, World
from tests.provisioning.rules import FIRES, RECORDS, Fires, Records, Series
from tests.provisioning.stack import ProvisionedPrometheus

PROMETHEUS = Path(__file__).parents[2] / "provisioning" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
RECORDING = PROMETHEUS / "rules" / "recording.yml"

#: Metrics that other programs show, by the program: taken from its documentation, not from this repository.
ELSEWHERE = {
    "prometheus": {"up", "prometheus_rule_evaluation_failures_total"},
    "redis_exporter": {"redis_up", "redis_memory_used_bytes", "redis_memory_max_bytes"},
    # Grafana's own Alertmanager, where it has other nodes to look for (`ha_peers`)
    "grafana": {"alertmanager_cluster_members"},
    "thanos": {"thanos_shipper_upload_failures_total"},
    "node_exporter": {
        "node_cpu_seconds_total",
        "node_memory_MemTotal_bytes",
        "node_memory_MemAvailable_bytes",
        "node_filesystem_size_bytes",
        "node_filesystem_avail_bytes",
        "node_network_receive_bytes_total",
        "node_network_transmit_bytes_total",
    },
    "windows_exporter": {
        "windows_cpu_time_total",
        "windows_memory_physical_total_bytes",
        "windows_memory_physical_free_bytes",
        "windows_logical_disk_size_bytes",
        "windows_logical_disk_free_bytes",
        "windows_net_bytes_received_total",
        "windows_net_bytes_sent_total",
    },
    # tests/provisioning/test_stack.py asks a real one
    "haproxy": {"haproxy_server_status", "haproxy_backend_status", "haproxy_frontend_requests_denied_total"},
    # `bridge backup`
    "backup": {"bridge_backup_age_seconds"},
}


def promtool(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _groups(file: Path) -> list[Mapping[str, Any]]:
    groups: list[Mapping[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    return groups


def rules() -> Iterator[Mapping[str, Any]]:
    return (rule for file in RULES for group in _groups(file) for rule in group["rules"])


def alert_rules() -> dict[str, Mapping[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@pytest.mark.parametrize("targets", ["targets", "targets-compose"])
def test_promtool_accepts_the_configuration_with_either_set_of_targets(tmp_path: Path, targets: str) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS, folder)
    shutil.rmtree(folder / "targets")
    shutil.copytree(PROMETHEUS / targets, folder / "targets")
    (folder / "secrets").mkdir()
    (folder / "secrets" / "bridge.key").write_text("a key", encoding="utf-8")
    code, said = promtool("check", "config", "--lint=all", "--lint-fatal", folder / "prometheus.yml")
    assert (code, "WARNING" in said) == (0, False), said


def test_a_job_whose_targets_file_is_missing_would_be_noticed(tmp_path: Path) -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    for folder in ("targets", "targets-compose"):
        named = {f"{job['job_name']}.yml" for job in config["scrape_configs"]} | {"alertmanager.yml"}
        assert {file.name for file in (PROMETHEUS / folder).glob("*")} == named
    assert {job["file_sd_configs"][0]["files"][0] for job in config["scrape_configs"]} == {
        f"targets/{job['job_name']}.yml" for job in config["scrape_configs"]
    }


def test_promtool_accepts_the_rules_without_a_remark() -> None:
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert code == 0, said


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.stem)
def test_every_rule_does_what_is_written_of_it(tmp_path: Path, file: Path) -> None:
    for every in {case.every for case in FIRES}:
        groups = [group for case in _of(file) if case.every == every for group in _firing(case)]
        groups += [_recording(case) for case in RECORDS if (file, every) == (RECORDING, "15s")]
        tests = {"rule_files": sorted({str(file), str(RECORDING)}), "evaluation_interval": every, "tests": groups}
        (tmp_path / f"{every}.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    code, said = promtool("test", "rules", *tmp_path.glob("*.yml"))
    assert code == 0, said[:4000]


def _of(file: Path) -> list[Fires]:
    named = {rule.get("alert") for group in _groups(file) for rule in group["rules"]}
    return [case for case in FIRES if case.alert in named]


def test_no_rule_is_without_its_case() -> None:
    named = [rule.get("alert") or rule["record"] for rule in rules()]
    assert {case.alert for case in FIRES} | {case.name for case in RECORDS} == set(named)
    assert len({case.alert for case in FIRES}) == len(FIRES) == len(alert_rules())


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    wanting = [
        name
        for name, rule in alert_rules().items()
        if rule["labels"]["severity"] not in ("warning", "critical") or set(rule["annotations"]) != {"summary", "description"}
    ]
    assert wanting == []


def test_the_rules_ask_for_metrics_that_somebody_shows() -> None:
    known = set().union(*ELSEWHERE.values()) | {rule["record"] for rule in rules() if "record" in rule}
    known |= _of_the_bridge() | _of_the_trading_system()
    asked = {name for rule in rules() for name in _names(rule["expr"])}
    assert asked - known == set()


def _of_the_bridge() -> set[str]:
    kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    shown = [*Telemetry().registry.collect(), *TeamTelemetry(2).registry.collect()]
    return {family.name + suffix for family in shown for suffix in kinds.get(family.type, ("",))}


def _of_the_trading_system() -> set[str]:
    world = World(7, 2, 0)
    world.extend(HOUR_MS)
    return {family.name + suffix for family in families(world) for suffix, _, _ in family.samples}


def _names(expression: str) -> set[str]:
    """The metrics of a PromQL expression: what is left of it without strings, braces, ranges, groupings and functions."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    words = re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*(?!\s*\(|[a-zA-Z0-9_:])", bare)
    return {word for word in words if word not in ("and", "or", "unless", "bool") and re.search(r"_|^up$", word)}


def test_older_values_for_five_minutes_are_five_minutes(tmp_path: Path) -> None:
    """Outages of every length: a shorter one is not told of, a longer one in the minute after it has lasted so long."""
    groups = []
    for lasted_s in range(60, 601, 15):
        grows = f"0+1x{lasted_s // 15} {lasted_s // 15}x60"
        at = [f"{seconds}s" for seconds in range(0, 1201, 15)]
        fires = [time for time in at if lasted_s >= 300 and 375 <= int(time[:-1]) <= lasted_s]
        silent = [time for time in at if lasted_s < 300 or int(time[:-1]) < 360 or int(time[:-1]) > lasted_s + 60]
        series = {'bridge_stale_responses_total{job="bridge",source="rts"}': grows}
        [expected] = [case for case in FIRES if case.alert == "BridgeServesStale"]
        told = next(_firing(expected))["alert_rule_test"][-1]["exp_alerts"]
        groups.append(
            _group(series)
            | {
                "alert_rule_test": [
                    {"eval_time": time, "alertname": "BridgeServesStale", "exp_alerts": told if time in fires else []}
                    for time in [*fires, *silent]
                ]
            }
        )
    tests = {"rule_files": [str(PROMETHEUS / "rules" / "bridge.yml")], "evaluation_interval": "15s", "tests": groups}
    (tmp_path / "lasting.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    code, said = promtool("test", "rules", tmp_path / "lasting.yml")
    assert code == 0, said[:4000]


def _firing(case: Fires) -> Iterator[dict[str, Any]]:
    rule = alert_rules()[case.alert]
    expected = {
        "exp_labels": {**case.labels, **rule["labels"]},
        "exp_annotations": {
            "summary": case.summary,
            "description": case.description or rule["annotations"]["description"],
        },
    }
    not_yet = [{"eval_time": case.before, "alertname": case.alert, "exp_alerts": []}] if case.before else []
    yield _group(case.series) | {
        "alert_rule_test": [*not_yet, {"eval_time": case.at, "alertname": case.alert, "exp_alerts": [expected]}]
    }
    yield _group(case.quiet) | {"alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": []}]}


def _recording(case: Records) -> dict[str, Any]:
    # Rounded, which drops the name: the last bit of a quantile is nobody's promise.
    sample = {"labels": case.labels or "{}", "value": case.value}
    expression = f"round({case.name}{case.labels}, 0.001)"
    return _group(case.series) | {"promql_expr_test": [{"expr": expression, "eval_time": "10m", "exp_samples": [sample]}]}


def _group(series: Series) -> dict[str, Any]:
    return {"interval": "15s", "input_series": [{"series": name, "values": values} for name, values in series.items()]}


def test_a_real_prometheus_takes_the_options_of_the_committed_defaults_file(tmp_path: Path) -> None:
    written = dict(
        line.split("=", 1) for line in (PROMETHEUS / "prometheus.default").read_text("utf-8").splitlines() if line[0] != "#"
    )
    node = ProvisionedPrometheus(tmp_path, "unused")
    node.options(written["ARGS"].strip('"'), {name: written[name] for name in ("TDS_CLUSTER", "TDS_REPLICA")})
    node.start()
    try:
        flags, config = node.get("status/flags"), node.get("status/config")["yaml"]
    finally:
        node.kill()
    expected = {
        "storage.tsdb.min-block-duration": "2h",
        "storage.tsdb.max-block-duration": "2h",
        "storage.tsdb.retention.time": "15d",
        "web.enable-admin-api": "true",
        "query.timeout": "5s",
    }
    assert {name: flags[name] for name in expected} == expected
    assert "cluster: desk\n" in config
    assert "replica: prometheus-1\n" in config
