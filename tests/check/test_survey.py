"""One run of the check: what is wrong in one place stops the look at no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.check.survey import check
from app.config import DEFAULT_FILE, survey_settings
from demo.stores import free_port
from tests.servers.redis import RedisServer

CATALOGUE = """
group: g
title: G
metrics:
  m: {title: M, description: D, unit: prcent, aggregate: sum, over_time: last,
    live: {source: rts, index: i, hash: "h:{id}", value: count}}
  n: {title: N, description: D, unit: short, aggregate: sum, over_time: last,
    live: {source: rts, index: i, hash: "h:{id}", value: count}}
"""
TARGETS = '{"refId": "A", "target": "m"}, {"refId": "B", "target": "n"}, {"refId": "C", "target": "o"}'
BOARD = f'{{"panels": [{{"id": 1, "datasource": "simpod-json-datasource", "targets": [{TARGETS}]}}]}}'


def folder_with(folder: Path, config: str) -> Path:
    (folder / "catalog").mkdir()
    (folder / "boards").mkdir()
    (folder / "catalog" / "c.yaml").write_text(CATALOGUE)
    (folder / "boards" / "b.json").write_text(BOARD)
    (folder / "bridge.yaml").write_text(config)
    return folder / "bridge.yaml"


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ("sources: {rts: {connect: {kind: redis, prt: 1}}}", "bridge.yaml: sources.rts.connect.prt: unknown key; nearest: port"),
        ("sources: {rts: {connect: {kind: reds}}}", "bridge.yaml: sources.rts.connect: Input tag 'reds' found"),
        ("sources: [", "bridge.yaml: line 1, column 11: not YAML"),
        ("sources: [1]", "bridge.yaml: sources: a mapping is expected here"),
        ("- 1", "bridge.yaml: expected a mapping with the keys http"),
    ],
)
def test_a_wrong_configuration_hides_no_mistake_of_catalogue_and_dashboards(tmp_path: Path, config: str, first: str) -> None:
    file = folder_with(tmp_path, config)
    report = check(file, tmp_path / "catalog", tmp_path / "boards", None, False)
    said = [str(problem).removeprefix(f"{tmp_path}/") for problem in report.problems]
    assert said[0].startswith(first)
    assert [one.split("; ")[0] for one in said[1:]] == [
        "c.yaml: metrics.m.unit: 'prcent' is no unit of Grafana's",
        "b.json: panel 1 '', target C: target: metric 'o' is not known",
    ]
    assert report.exit_code == 2


def test_a_store_that_is_down_is_no_mistake_of_the_configuration(tmp_path: Path) -> None:
    off = ", ".join(f"{name}: {{enabled: false}}" for name in ("ris", "rtss", "rtrs", "clickhouse", "duckdb", "prometheus"))
    file = tmp_path / "bridge.yaml"
    file.write_text(f"sources: {{rts: {{connect: {{kind: redis, port: 1}}}}, {off}}}")
    report = check(file, None, None, None, True)
    said = {line.split(":")[0]: line.split(": ", 1)[1] for line in report.lines}
    assert (report.exit_code, report.problems) == (1, [])
    assert said["rts"].startswith("DOWN: ")
    assert {said[name] for name in ("ris", "clickhouse", "duckdb", "prometheus")} == {"off (enabled: false)"}


def test_what_an_operator_should_know_of_a_store_that_answers_is_printed(tmp_path: Path) -> None:
    off = ", ".join(f"{name}: {{enabled: false}}" for name in ("ris", "rtss", "rtrs", "clickhouse", "duckdb", "prometheus"))
    file = tmp_path / "bridge.yaml"
    with RedisServer(tmp_path, "", "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        file.write_text(f"sources: {{rts: {{connect: {{kind: redis, port: {server.port}}}}}, {off}}}")
        report = check(file, None, None, None, True)
    [said] = [line for line in report.lines if line.startswith("rts: ")]
    assert (report.exit_code, said.endswith("ms), WARNING: is a node of a Redis Cluster; set `cluster: true`")) == (0, True), said


def test_of_a_wrong_configuration_the_right_parts_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(
        "http: {port: -1}\nrequest: {max_points: 7}\n"
        "sources: {a: {connect: {kind: redis}, policy: {attempts: 99}}, b: {connect: {kind: redis, port: x}}, c: 5}"
    )
    found = survey_settings(file)
    assert (found.settings, found.partial.http.port, found.partial.request.max_points) == (None, 8080, 7)
    assert (list(found.partial.sources), found.kinds) == (["a"], {"a": "redis", "b": "redis", "c": "off"})


def test_the_shipped_configuration_is_right() -> None:
    assert survey_settings(Path(DEFAULT_FILE)).problems == []
