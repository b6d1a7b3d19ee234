"""`bridge check` on what panels hide from their readers: marks, lists that do nothing, links that lose the time range."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.check.test_dashboards import SHIPPED, checked

MATRIX = {"id": "groupingToMatrix", "options": {"rowField": "account", "columnField": "metric", "valueField": "value"}}


def _titled(dashboard: Any, title: str) -> Any:
    return next(panel for panel in dashboard["panels"] if panel["title"].startswith(title))


def _payload(panel: Any, drop: str) -> None:
    for target in panel["targets"]:
        kept = {key: value for key, value in json.loads(target["payload"]).items() if key != drop}
        target["payload"] = json.dumps(kept)


def _matrix_of_rows(dashboard: Any) -> None:
    panel = _titled(dashboard, "By account")
    panel["targets"][0]["payload"] = json.dumps(json.loads(panel["targets"][0]["payload"]) | {"format": "table"})
    panel["transformations"] = [MATRIX]


def _params(dashboard: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = _titled(dashboard, "Data:")["targets"][0]["url_options"]["params"]
    return found


def _link(dashboard: Any, url: str) -> None:
    _titled(dashboard, "Open trades by")["links"] = [{"title": "more", "url": url}]


SPOILT: list[tuple[Callable[[Any], object], str]] = [
    (_matrix_of_rows, "panel 14 'By account, now': the transformation groupingToMatrix drops the remarks of an answer"),
    (
        lambda one: _params(one).__setitem__(slice(None), [param for param in _params(one) if param["key"] != "marks"]),
        "'Data: state, age and reason': target A: the plugin shows no remarks of an answer, so old figures look fresh",
    ),
    (
        lambda one: _payload(_titled(one, "Active orders by"), "broker"),
        "'Active orders by broker': the list broker at the top does not narrow this panel, and nothing says so",
    ),
    (lambda one: _titled(one, "State updates").update(description="x"), "'State updates': the list broker at the top does not"),
    (lambda one: _titled(one, "Data:").update(description="x"), "'Data: state, age and reason': the list filters at the top"),
    (
        lambda one: _link(one, "/d/tds-account?var-x=1"),
        "'Open trades by broker': the link /d/tds-account?var-x=1 loses the time range",
    ),
    (
        lambda one: _titled(one, "By account").update(timeFrom="5m"),
        "loses the time range, because the panel has a relative time of its own (timeFrom)",
    ),
    (
        lambda one: one["links"][0].update(keepTime=False),
        "links: link 'Dashboards': loses the time range; allowed: keepTime: true",
    ),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILT)
def test_what_a_panel_hides_is_said_with_its_place(
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


def _ignored(dashboard: Any) -> None:
    """A transformation that is switched off, a link to somewhere else, a hidden list, a list that the description names."""
    _titled(dashboard, "Open trades by")["transformations"] = [MATRIX | {"disabled": True}]
    _link(dashboard, "https://wiki.example/trades")
    dashboard["templating"]["list"].append({"name": "secret", "type": "constant", "hide": 2})
    dashboard["templating"]["list"].append({"name": "theme", "label": "State", "type": "custom"})
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            panel["description"] = f"{panel['description']} The theme does not matter."


def test_what_hides_nothing_is_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard = json.loads((SHIPPED / "trade_execution.json").read_text(encoding="utf-8"))
    _ignored(dashboard)
    (tmp_path / "own.json").write_text(json.dumps(dashboard), encoding="utf-8")
    status, output = checked(tmp_path, capsys)
    assert (status, output.count("own.json")) == (0, 0), output


def test_a_link_with_a_range_of_its_own_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard = json.loads((SHIPPED / "trade_execution.json").read_text(encoding="utf-8"))
    for url in (
        "/d/tds-account?from=now-1h&to=now",
        "/d/tds-account?${__url_time_range}",
        "d/tds-account?from=${__from}&to=${__to}",
    ):
        _link(dashboard, url)
        (tmp_path / "own.json").write_text(json.dumps(dashboard), encoding="utf-8")
        status, output = checked(tmp_path, capsys)
        assert status == 0, output
