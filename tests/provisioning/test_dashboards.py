"""The committed dashboards: current, valid by Grafana's own schema, in good order, and each of their questions answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from dashboards.__main__ import ALL, FOLDER, FOLDER_V2, made, main, texts
from dashboards.board import WIDTH
from dashboards.schema_v2 import as_v2
from tests.e2e.conftest import client_of
from tests.servers.grafana import FrameConverter
from tests.servers.plugins import Viewer, opened, panels_of
from tests.servers.schema import complaints
from tests.servers.world import Stores

DASHBOARDS: dict[str, Any] = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}
_DAY_MS = 86_400_000


def _of(kind: str) -> list[Any]:
    """Each panel that asks a data source of that type."""
    found = [(name, panel) for name, one in DASHBOARDS.items() for panel in panels_of(one) if panel["datasource"]["type"] == kind]
    return [pytest.param(name, panel, id=f"{name}-{panel['id']}-{panel['title']}") for name, panel in found]


def test_what_is_committed_is_what_the_code_makes() -> None:
    committed = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.json")}
    assert committed == texts(made()), "run `make dashboards`"
    assert len(committed) == len(ALL) == 7


def test_the_command_writes_what_is_not_current_and_says_so_when_it_only_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dashboards.__main__.FOLDER", tmp_path)
    assert main([]) == 0
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == texts(made())
    assert main(["--check"]) == 0
    (tmp_path / "account.json").write_text("{}", encoding="utf-8")
    capsys.readouterr()
    assert main(["--check"]) == 1
    assert capsys.readouterr().out == f"{tmp_path.name}/account.json: not current; run `make dashboards`\n"


def test_every_dashboard_is_one_by_grafanas_own_schema(tmp_path: Path) -> None:
    assert complaints({name: json.dumps(one) for name, one in DASHBOARDS.items()}, tmp_path) == ""


def test_every_dashboard_is_there_in_schema_v2_too_and_is_one_by_grafanas_own_schema(tmp_path: Path) -> None:
    committed = {file.stem: file.read_text(encoding="utf-8") for file in FOLDER_V2.glob("*.json")}
    assert {name: json.loads(text) for name, text in committed.items()} == {name: as_v2(one) for name, one in DASHBOARDS.items()}
    assert complaints(committed, tmp_path, v2=True) == ""


def test_a_dashboard_in_schema_v2_has_every_panel_in_the_place_and_row_that_it_has_in_the_classic_one() -> None:
    for name, one in DASHBOARDS.items():
        heading, begins, classic = "", 0, {}
        for panel in one["panels"]:
            at = panel["gridPos"]
            if panel["type"] == "row":
                heading, begins = panel["title"], at["y"] + 1
            else:
                classic[f"panel-{panel['id']}"] = (heading, at["x"], at["y"] - begins, at["w"], at["h"])
        spec = json.loads((FOLDER_V2 / f"{name}.json").read_text(encoding="utf-8"))["spec"]
        newer = {
            item["spec"]["element"]["name"]: (row["spec"]["title"], *(item["spec"][key] for key in ("x", "y", "width", "height")))
            for row in spec["layout"]["spec"]["rows"]
            for item in row["spec"]["layout"]["spec"]["items"]
        }
        assert newer == classic
        assert spec["elements"].keys() == classic.keys()


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "a_misspelt_key": (lambda one: one["panels"][0].update(descripton="x"), "descripton"),
    "a_colour_mode_that_does_not_exist": (lambda one: one["panels"][0]["options"].update(colorMode="rainbow"), "rainbow"),
    "an_option_of_another_panel": (lambda one: one["panels"][0]["options"].update(cellHeight="sm"), "cellHeight"),
    "a_text_where_a_number_belongs": (lambda one: one["panels"][0]["gridPos"].update(w="6"), "number"),
    "a_refresh_of_a_variable_that_does_not_exist": (lambda one: one["templating"]["list"][0].update(refresh=7), "'7'"),
    "a_panel_without_a_title": (lambda one: one["panels"][0].pop("title"), "title"),
}


def _first_element(resource: Any) -> Any:
    return next(iter(resource["spec"]["elements"].values()))["spec"]


WRONG_V2: dict[str, tuple[Callable[[Any], object], str]] = {
    "a_misspelt_key": (lambda one: one["spec"].update(descripton="x"), "descripton"),
    "a_misspelt_key_of_a_panel": (lambda one: _first_element(one).update(titel="x"), "titel"),
    "a_colour_mode_that_does_not_exist": (
        lambda one: _first_element(one)["vizConfig"]["spec"]["options"].update(colorMode="rainbow"),
        "rainbow",
    ),
    "a_layout_that_does_not_exist": (lambda one: one["spec"]["layout"].update(kind="HeapLayout"), "HeapLayout"),
    "a_refresh_of_a_variable_that_does_not_exist": (
        lambda one: one["spec"]["variables"][0]["spec"].update(refresh=2),
        "refresh",
    ),
    "another_version": (lambda one: one.update(apiVersion="dashboard.grafana.app/v3"), "v3"),
}


@pytest.mark.parametrize("v2", [False, True])
def test_the_schema_refuses_a_wrong_dashboard(v2: bool, tmp_path: Path) -> None:
    planted, wrong = {}, WRONG_V2 if v2 else WRONG
    for name, (spoil, _) in wrong.items():
        classic = json.loads(json.dumps(DASHBOARDS["trade_execution"]))
        one = as_v2(classic) if v2 else classic
        spoil(one)
        planted[name] = json.dumps(one)
    said = complaints(planted, tmp_path, v2).splitlines()
    for name, (_, word) in wrong.items():
        mine = [place for place, line in enumerate(said) if line.startswith(f"{name}.ts")]
        assert any(word in " ".join(said[place : place + 12]) for place in mine), (name, said)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_fill_the_width_and_do_not_overlap(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARDS[name]["panels"]:
        at = panel["gridPos"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            taken[cell] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert taken.keys() == {(x, y) for x in range(WIDTH) for y in range(height)}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_each_dashboard_has_what_an_operator_relies_on(name: str) -> None:
    one = DASHBOARDS[name]
    assert (one["uid"], one["refresh"], one["editable"]) == (f"tds-{name.replace('_', '-')}", "10s", False)
    assert [link["tags"] for link in one["links"]] == [["tds"]]
    assert "tds" in one["tags"]
    ids = [panel["id"] for panel in one["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels_of(one):
        assert panel["description"]
        assert 0 < panel["maxDataPoints"] <= 1000
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    first = next(panels_of(one))
    assert first["title"] == ("Sources down" if name == "bridge" else "State of the data")
    assert any(panel["title"].startswith("Data: state") for panel in panels_of(one))


def test_slippage_says_its_sign_wherever_it_is_shown() -> None:
    shown = [
        panel
        for one in DASHBOARDS.values()
        for panel in panels_of(one)
        if panel["title"] != "State of the data" and any("slippage" in target.get("target", "") for target in panel["targets"])
    ]
    assert len(shown) >= 5
    assert all("positive is worse for the account" in panel["description"] for panel in shown)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(stores: Stores) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(stores.app()) as one:
        yield one


def _day(stores: Stores, **more: Any) -> Viewer:
    return Viewer(stores.until_ms, stores.until_ms - _DAY_MS, **more)


async def _frames(client: httpx.AsyncClient, converter: FrameConverter, body: Any, quiet: bool = False) -> list[dict[str, Any]]:
    """What the panel gets of the bridge's answer; nothing in it may be a warning, and with `quiet` no remark at all."""
    reply = await client.post("/json/query", json=body)
    assert reply.status_code == 200, reply.text
    frames = converter.convert(reply.json())
    notices = [notice for frame in frames for notice in (frame["meta"] or {}).get("notices", [])]
    assert [notice for notice in notices if quiet or notice["severity"] != "info"] == []
    return frames


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "panel"), _of("simpod-json-datasource"))
async def test_every_panel_gets_an_answer_to_what_the_plugin_sends(
    client: httpx.AsyncClient, stores: Stores, frame_converter: FrameConverter, name: str, panel: Any
) -> None:
    frames = await _frames(client, frame_converter, _day(stores).json_query(DASHBOARDS[name], panel))
    if panel["type"] == "table" or panel["title"] == "State of the data":
        return _columns_exist(panel, frames)
    for target in panel["targets"]:
        mine = [frame for frame in frames if frame["refId"] == target["refId"]]
        values = [value for frame in mine for field in frame["fields"] if field["type"] != "time" for value in field["values"]]
        assert any(value is not None for value in values), "no data"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", DASHBOARDS)
async def test_who_opens_a_dashboard_sees_data_in_every_panel_and_no_remark_on_any(
    client: httpx.AsyncClient, stores: Stores, frame_converter: FrameConverter, name: str
) -> None:
    one = DASHBOARDS[name]
    for panel in panels_of(one):
        if panel["datasource"]["type"] == "simpod-json-datasource":
            body = opened(one, stores.until_ms).json_query(one, panel)
            frames = await _frames(client, frame_converter, body, quiet=True)
            assert all(frame["length"] for frame in frames), panel["title"]


def _columns_exist(panel: Any, frames: Sequence[Any]) -> None:
    """It is one table, of what the transformation and the overrides name."""
    [frame] = frames
    columns = {field["displayName"] for field in frame["fields"]}
    for change in panel["transformations"]:
        options = change["options"]
        assert change["id"] == "organize"
        assert {*options["renameByName"], *options["indexByName"], *options["excludeByName"]} <= columns
        columns = {options["renameByName"].get(name, name) for name in columns - options["excludeByName"].keys()}
    named = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"] if one["matcher"]["id"] == "byName"}
    assert named <= columns


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "panel"), _of("yesoreyeram-infinity-datasource"))
async def test_the_state_of_the_data_has_a_line_for_every_metric(
    client: httpx.AsyncClient, stores: Stores, name: str, panel: Any
) -> None:
    [target] = panel["targets"]
    url, params = _day(stores).infinity_request(DASHBOARDS[name], target)
    reply = await client.get(url, params=dict(params))
    assert reply.status_code == 200, reply.text
    rows = reply.json()[target["root_selector"]]
    assert [row["metric"] for row in rows] != []
    assert {row["metric"] for row in rows} == set(dict(params)["metric"].split(","))
    assert {row["status"] for row in rows} == {"fresh"}
    assert all(column["selector"] in row for row in rows for column in target["columns"])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", [name for name, one in DASHBOARDS.items() if one["templating"].get("list")])
async def test_every_list_has_values_and_every_panel_obeys_what_is_chosen(
    client: httpx.AsyncClient, stores: Stores, frame_converter: FrameConverter, name: str
) -> None:
    one, chosen = DASHBOARDS[name], dict[str, list[str]]()
    for variable in one["templating"]["list"]:
        if variable["type"] != "query":
            continue
        body = _day(stores, chosen=chosen).variable_query(one, variable)
        values = [row["__value"] for row in (await client.post("/json/variable", json=body)).json()]
        assert values, variable["name"]
        chosen[variable["name"]] = values[:2]
    for panel in panels_of(one):
        if panel["datasource"]["type"] == "simpod-json-datasource":
            frames = await _frames(client, frame_converter, _day(stores, chosen=chosen).json_query(one, panel))
            found = {(label, value) for frame in frames for label, value in _labels(frame) if label in chosen}
            assert all(value in chosen[label] for label, value in found), panel["title"]


def _labels(frame: dict[str, Any]) -> list[tuple[str, str]]:
    """The labels of a frame's series, or the cells of a table's columns."""
    series = [pair for field in frame["fields"] for pair in (field["labels"] or {}).items()]
    return series + [(field["name"], value) for field in frame["fields"] for value in field["values"]]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_ad_hoc_filter_reaches_the_panels_that_have_its_label(
    client: httpx.AsyncClient, stores: Stores, frame_converter: FrameConverter
) -> None:
    one = DASHBOARDS["account"]
    account = (await client.post("/json/tag-values", json={"key": "account"})).json()[0]["text"]
    filters = [{"key": "account", "operator": "=", "value": account}]
    [panel] = [panel for panel in panels_of(one) if panel["title"] == "Drawdown by account"]
    frames = await _frames(client, frame_converter, _day(stores, filters=filters).json_query(one, panel))
    assert [pair for frame in frames for pair in _labels(frame) if pair[0] == "account"] == [("account", account)]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("name", "mark"),
    [
        pytest.param(name, mark, id=f"{name}-{mark['name']}")
        for name, one in DASHBOARDS.items()
        for mark in one["annotations"].get("list", [])
    ],
)
async def test_every_annotation_has_events_with_time_and_text(
    client: httpx.AsyncClient, stores: Stores, frame_converter: FrameConverter, name: str, mark: Any
) -> None:
    [frame] = await _frames(client, frame_converter, _day(stores).annotation_query(DASHBOARDS[name], mark))
    columns = {field["name"]: field["values"] for field in frame["fields"]}
    assert columns["time"]
    assert all(isinstance(at, int) for at in columns["time"])
    assert all(columns["text"])
