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


def _target(dashboard: Any, place: int = 0) -> Any:
    return dashboard["panels"][place]["targets"][0]


def _payload(dashboard: Any, **more: object) -> None:
    target = _target(dashboard)
    target["payload"] = json.dumps(json.loads(target["payload"]) | more)


def _rows(dashboard: Any) -> Any:
    return next(panel for panel in dashboard["panels"] if panel["title"].startswith("Data:"))["targets"][0]


def _nested(dashboard: Any) -> None:
    wrong = json.loads(json.dumps(dashboard["panels"][0]))
    wrong["targets"][0]["target"] = "opn_trades"
    dashboard["panels"].append({"id": 99, "type": "row", "title": "closed", "panels": [wrong]})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda one: _target(one).update(target="opn_trades"),
            "panel 1 'Open trades', target A: target: metric 'opn_trades' is not",
        ),
        (lambda one: _target(one).pop("target"), "panel 1 'Open trades', target A: target: is missing"),
        (lambda one: _target(one).update(payload="{"), "target A: payload: '{' is not JSON"),
        (lambda one: _payload(one, acount="x"), "target A: payload: 'acount' is not known to open_trades"),
        (lambda one: _payload(one, by=["host"]), "target A: payload.by: metric open_trades: label 'host' is not known"),
        (
            lambda one: _rows(one)["url_options"]["params"][0].update(value="slipage"),
            "metric 'slipage' is not known; nearest: slippage",
        ),
        (lambda one: _rows(one).update(url="/v2/rows"), "url: '/v2/rows' is not known"),
        (
            lambda one: one["annotations"]["list"][0]["target"].update(target="failures"),
            "annotation 'Failed trades': target: metric",
        ),
        (lambda one: one["templating"]["list"][0]["query"].update(query="brokr"), "variable 'broker': query: label 'brokr'"),
        (_nested, "panel 1 'Open trades', target A: target: metric 'opn_trades' is not known; nearest: open_trades"),
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
