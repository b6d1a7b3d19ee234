"""`bridge check` on dashboards: every question to the bridge that names what the catalogue has not, with its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.__main__ import main

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "provisioning" / "grafana" / "dashboards"


def checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["check", "--config", str(ROOT / "provisioning" / "bridge.yaml"), "--dashboards", str(folder)])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_the_shipped_dashboards_are_fine(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = checked(SHIPPED, capsys)
    assert status == 0
    assert "dashboards: ok, 7 with " in said


def _panel(dashboard: Any) -> Any:
    return next(panel for panel in dashboard["panels"] if panel["title"] == "Open trades")


def _target(dashboard: Any) -> Any:
    return _panel(dashboard)["targets"][0]


def _payload(dashboard: Any, **more: object) -> None:
    target = _target(dashboard)
    target["payload"] = json.dumps(json.loads(target["payload"]) | more)


def _rows(dashboard: Any) -> Any:
    return next(panel for panel in dashboard["panels"] if panel["title"].startswith("Data:"))["targets"][0]


def _nested(dashboard: Any) -> None:
    wrong = json.loads(json.dumps(_panel(dashboard)))
    wrong["targets"][0]["target"] = "opn_trades"
    dashboard["panels"].append({"id": 99, "type": "row", "title": "closed", "panels": [wrong]})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda one: _target(one).update(target="opn_trades"),
            "panel 2 'Open trades', target A: target: metric 'opn_trades' is not",
        ),
        (lambda one: _target(one).pop("target"), "panel 2 'Open trades', target A: target: is missing"),
        (lambda one: _target(one).update(payload="{"), "target A: payload: '{' is not JSON"),
        (lambda one: _payload(one, acount="x"), "target A: payload: 'acount' is not known to open_trades"),
        (lambda one: _payload(one, by=["host"]), "target A: by: metric open_trades: label 'host' is not known"),
        (
            lambda one: _rows(one)["url_options"]["params"][0].update(value="slipage"),
            "metric 'slipage' is not known; nearest: slippage",
        ),
        (lambda one: _rows(one).update(url="/v2/rows"), "url: '/v2/rows' is not known"),
        (
            lambda one: one["annotations"]["list"][1]["target"].update(target="failures"),
            "annotation 'Failed trades': target: metric",
        ),
        (lambda one: one["templating"]["list"][0]["query"].update(query="brokr"), "variable 'broker': query: label 'brokr'"),
        (
            lambda one: one["templating"]["list"][0]["query"].update(query='{"label": "broker"'),
            "variable 'broker': payload: '{\"label\": \"broker\"' is not JSON",
        ),
        (
            lambda one: one["templating"]["list"][1]["query"].update(query='{"label": "account", "where": {"broker": {}}}'),
            "variable 'account': payload.where: broker: a dict is not a value",
        ),
        (
            lambda one: one["templating"]["list"][1]["query"].update(query='{"label": "account", "where": {"brokr": "x"}}'),
            "variable 'account': where: label 'brokr'",
        ),
        (lambda one: _rows(one).update(url="/v1/metric"), "url: '/v1/metric' is not known; nearest: /v1/metrics"),
        (lambda one: _payload(one, step="1y"), "target A: payload.step: '1y' is not a duration"),
        (lambda one: _payload(one, where=["acount=x"]), "target A: where: metric open_trades: label 'acount' is not known"),
        (lambda one: _payload(one, where={"account": "$acount"}), "target A: variable $acount is not defined; nearest: account"),
        (lambda one: _payload(one, format="tabel"), "target A: payload.format: 'tabel' is not allowed; allowed: datapoints"),
        (lambda one: _rows(one)["url_options"]["params"].append({"key": "stp", "value": "1m"}), "parameter 'stp' is not known"),
        (lambda one: _rows(one).update(url="/v1/rows?shape=wdie"), "shape: 'wdie' is not allowed"),
        (
            lambda one: _panel(one)["fieldConfig"]["defaults"].update(unit="shrot"),
            "panel 2 'Open trades', unit: 'shrot' is no unit of Grafana's; nearest: short",
        ),
        (_nested, "panel 2 'Open trades', target A: target: metric 'opn_trades' is not known; nearest: open_trades"),
        (lambda one: one.pop("panels"), "trade_execution.json: panels: is missing"),
    ],
)
def test_a_wrong_name_is_said_with_its_place(
    spoil: Callable[[Any], object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "trade_execution.json"
    dashboard = json.loads(file.read_text(encoding="utf-8"))
    spoil(dashboard)
    file.write_text(json.dumps(dashboard), encoding="utf-8")
    status, output = checked(tmp_path, capsys)
    assert status == 2
    assert said in output
    assert output.count(".json: ") == 1


@pytest.mark.parametrize(
    "query",
    [
        "$broker",
        '{"label": "$broker"}',
        '{"label": "account", "where": {"broker": ${broker:json}}}',
        "metrics",
        "label_values(account)",
    ],
)
def test_a_variable_may_depend_on_another_one(query: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "trade_execution.json"
    dashboard = json.loads(file.read_text(encoding="utf-8"))
    dashboard["templating"]["list"][1]["query"]["query"] = query
    file.write_text(json.dumps(dashboard), encoding="utf-8")
    status, output = checked(tmp_path, capsys)
    assert (status, "dashboards: ok" in output) == (0, True)


def test_every_mistake_of_every_file_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    wrong = {"datasource": {"type": "simpod-json-datasource"}, "targets": [{"refId": "A", "target": "a_metric"}]}
    (tmp_path / "two.json").write_text(json.dumps({"panels": [wrong, wrong | {"id": 2}]}), encoding="utf-8")
    status, output = checked(tmp_path, capsys)
    assert status == 2
    assert output.count("broken.json: not JSON") == 1
    assert output.count("'a_metric' is not known") == 2


def test_a_folder_without_dashboards_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output = checked(tmp_path, capsys)
    assert (status, "no dashboards: expected at least one *.json file here" in output) == (2, True)


def test_the_shipped_dashboards_are_not_held_against_somebody_elses_catalogue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text("group: own\ntitle: Own\nmetrics: {}\n", encoding="utf-8")
    assert main(["check", "--config", "provisioning/bridge.yaml", "--catalog", str(tmp_path)]) == 0
    assert "dashboards: not checked" in capsys.readouterr().out


def test_every_mistake_of_one_question_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payload = json.dumps({"by": ["acount"], "step": "1y", "where": {"brokr": "$x"}, "instnt": True})
    target = {"refId": "A", "target": "equity,blance", "payload": payload}
    panel = {"datasource": {"type": "simpod-json-datasource"}, "targets": [target]}
    (tmp_path / "one.json").write_text(json.dumps({"panels": [panel]}), encoding="utf-8")
    _, output = checked(tmp_path, capsys)
    parts = ("label 'acount'", "payload.step: '1y'", "label 'brokr'", "variable $x", "payload: 'instnt'", "metric 'blance'")
    assert [part for part in parts if part not in output] == []


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"[" * 100_000,
        b"9" * 5000,
        b'{"panels": [1, null, {"targets": 5}, {"targets": [1], "panels": "x"}], "templating": [], "annotations": {"list": {}}}',
        b'{"panels": [{"datasource": {"type": ["x"]}, "targets": [{"target": {}}], "fieldConfig": 5}]}',
        b'{"panels": [{"datasource": "yesoreyeram-infinity-datasource", "targets": [{"url": 5, "url_options": [1]}]}]}',
        b'{"panels": [{"datasource": "simpod-json-datasource", "targets": [{"target": [], "payload": "[1]"}]}]}',
    ],
)
def test_any_file_is_a_dashboard_or_a_problem(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "any.json").write_bytes(content)
    status, output = checked(tmp_path, capsys)
    assert (status in (0, 2), "Traceback" in output) == (True, False)


def test_alert_rules_are_checked_as_dashboards_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = (ROOT / "provisioning" / "grafana" / "alerting" / "rules.yaml").read_text(encoding="utf-8")
    (tmp_path / "rules.yaml").write_text(
        rules.replace("margin_level", "margin_levl").replace("now-1m", "$from"), encoding="utf-8"
    )
    config = str(ROOT / "provisioning" / "bridge.yaml")
    status = main(["check", "--config", config, "--dashboards", str(SHIPPED), "--alerts", str(tmp_path)])
    lines = capsys.readouterr().err.splitlines()
    first = "rules.yaml: rule tds-margin-level-low 'Margin level is below 200 % (warning)', target A: "
    assert status == 2
    assert [one for one in lines if one.startswith(f"{first}metric: metric 'margin_levl' is not known; nearest: margin_level")]
    assert [one for one in lines if one.startswith(f"{first}variable $from is not defined")]
