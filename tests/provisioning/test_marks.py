"""Whatever stands between an answer and the eye (transformations, tables, figures), the reader of a panel is told its state."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from app.check.panels import LOSES_MARKS
from dashboards.limits import OLD
from tests.provisioning.marks import (
    DASHBOARDS,
    STATES,
    Seen,
    State,
    World,
    asking_panels,
    bridge_over,
    see,
    survey,
    telling,
)
from tests.servers.grafana import PanelRenderer
from tests.servers.plugins import Json, opened, panels_of
from tests.servers.world import Stores

Surveys = Mapping[State, Mapping[tuple[str, int], Seen]]
PANELS = [pytest.param(name, panel, id=f"{name}-{panel['title']}") for name, panel in asking_panels()]
NOTICE = {"notices": [{"severity": "warning", "text": "rts: 4 min old"}]}


@pytest.fixture(scope="module")
def renderer() -> Iterator[PanelRenderer]:
    """Grafana's own transformations and field settings."""
    with PanelRenderer() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def surveys(stores: Stores, renderer: PanelRenderer) -> AsyncIterator[Surveys]:
    """What is seen of each panel in each state."""
    yield {state: await survey(stores, renderer, state) for state in STATES}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "panel"), PANELS)
async def test_the_reader_is_told_when_data_is_stale_partial_or_missing_and_left_alone_when_it_is_fresh(
    surveys: Surveys, name: str, panel: Json
) -> None:
    told = {state: telling(panel, surveys[state][name, panel["id"]], state) for state in STATES}
    assert told.pop("fresh") == ""
    assert [state for state, how in told.items() if not how] == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("state", ["stale", "partial"])
async def test_a_tile_that_is_not_fresh_keeps_its_figure_in_grey_with_its_state_in_words(surveys: Surveys, state: State) -> None:
    for name, panel in asking_panels():
        if panel["type"] != "stat" or panel["title"] == "State of the data":
            continue
        [figure] = surveys[state][name, panel["id"]].figures
        assert figure["color"].lower() == OLD.lower(), panel["title"]
        assert any(word in figure["title"] for word in ("stale", "partial")), panel["title"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_tile_without_data_says_so_in_grey_and_not_in_the_colour_of_its_lowest_limit(surveys: Surveys) -> None:
    found = [
        surveys["no data"][name, panel["id"]].figures
        for name, panel in asking_panels()
        if panel["type"] == "stat" and panel["title"] != "State of the data"
    ]
    assert len(found) >= 30
    assert {(one["text"], one["color"].lower()) for figures in found for one in figures} == {("no data", OLD.lower())}


@pytest.mark.asyncio(loop_scope="module")
async def test_an_old_row_of_a_table_of_now_is_grey_and_has_its_age_and_its_reason(surveys: Surveys) -> None:
    tables = [(name, panel) for name, panel in asking_panels() if panel["type"] == "table" and ", " in panel["title"]]
    tables = [one for one in tables if one[1]["title"].startswith("By ")]
    assert len(tables) == 5
    for name, panel in tables:
        [frame] = surveys["stale"][name, panel["id"]].frames
        columns = {field["name"]: field["cells"] for field in frame["fields"]}
        assert {cell["color"].lower() for cell in columns["State"]} == {OLD.lower()}
        assert all(cell["value"] >= 230 for cell in columns["Age"] if cell["value"] is not None)
        assert all("connection refused" in cell["text"] or "old" in cell["text"] for cell in columns["Reason"])


@pytest.mark.asyncio(loop_scope="module")
async def test_the_line_at_the_top_names_how_many_metrics_which_source_and_how_old(surveys: Surveys) -> None:
    def line(name: str, state: State) -> str:
        [figure] = surveys[state][name, 1].figures
        return str(figure["text"])

    assert line("account", "fresh") == "all 8 metrics are fresh"
    assert line("account", "stale").startswith("8 of 8 metrics older than 10 s: duckdb, rts, 4 min")
    assert line("account", "error") == "8 of 8 metrics without an answer: duckdb, rts"


#: What makes a panel's marks go away.
BLIND: dict[str, dict[str, Any]] = {
    "a matrix made by Grafana": {
        "type": "table",
        "targets": [{"payload": json.dumps({"by": ["account"], "format": "table", "instant": True, "within": "5m"})}],
        "transformations": [
            {"id": "groupingToMatrix", "options": {"rowField": "account", "columnField": "time", "valueField": "value"}}
        ],
    },
    "a tile of the newest value of a table": {
        "type": "stat",
        "targets": [{"payload": json.dumps({"by": ["account"], "format": "table", "instant": True, "within": "5m"})}],
        "transformations": [
            {
                "id": "groupBy",
                "options": {
                    "fields": {
                        "account": {"operation": "groupby", "aggregations": []},
                        "value": {"operation": "aggregate", "aggregations": ["min"]},
                    }
                },
            }
        ],
        "options": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
    },
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("blind", BLIND)
async def test_a_panel_that_loses_its_marks_is_found(stores: Stores, renderer: PanelRenderer, blind: str) -> None:
    target: dict[str, Any] = {
        "refId": "A",
        "target": "open_trades",
        "datasource": {"type": "simpod-json-datasource", "uid": "bridge-json"},
    }
    base = {"id": 1, "title": blind, "datasource": target["datasource"], "maxDataPoints": 800, "options": {}}
    panel = base | {"fieldConfig": {"defaults": {"noValue": "-"}, "overrides": []}} | BLIND[blind]
    panel["targets"] = [target | one for one in BLIND[blind]["targets"]]
    world = World(stores.until_ms)
    async with bridge_over(stores, world) as client:
        world.state = "partial"
        seen = await see(client, renderer, "account", panel, opened(DASHBOARDS["account"], world.now_ms))
    assert seen.cells
    assert telling(panel, seen, "partial") == ""


def test_a_figure_of_the_bridges_own_dashboard_is_grey_when_prometheus_has_none(renderer: PanelRenderer) -> None:
    for panel in panels_of(DASHBOARDS["bridge"]):
        seen = renderer.render([], panel)
        if panel["type"] == "stat":
            assert [(one["text"], one["color"].lower()) for one in seen["figures"]] == [("no data", OLD.lower())]
        assert panel["fieldConfig"]["defaults"]["noValue"]


#: Options with which each transformation of @grafana/data makes something of the frames below.
OPTIONS: dict[str, dict[str, Any]] = {
    "groupingToMatrix": {"rowField": "account", "columnField": "metric", "valueField": "value"},
    "organize": {"excludeByName": {}, "indexByName": {}, "renameByName": {}},
    "reduce": {"reducers": ["last"]},
    "groupBy": {"fields": {"account": {"operation": "groupby", "aggregations": []}}},
    "groupToNestedTable": {"fields": {"account": {"operation": "groupby", "aggregations": []}}},
    "sortBy": {"fields": {}, "sort": [{"field": "value"}]},
    "calculateField": {"mode": "reduceRow", "reduce": {"reducer": "sum"}},
    "filterFieldsByName": {"include": {"names": ["account", "value", "other"]}},
    "filterByValue": {"filters": [], "type": "include", "match": "any"},
    "joinByField": {"byField": "account", "mode": "outer"},
    "renameByRegex": {"regex": "a", "renamePattern": "b"},
    "limit": {"limitField": 1},
    "convertFieldType": {"conversions": []},
}
KEEPS_MARKS = (
    *(
        "noop",
        "filterFields",
        "filterFieldsByName",
        "filterFrames",
        "filterByRefId",
        "filterByValue",
        "formatString",
        "formatTime",
    ),
    *("order", "organize", "reduce", "rename", "labelsToFields", "sortBy", "renameByRegex", "convertFieldType"),
    *("convertFrameType", "limit", "transpose"),
)


def _keeps_marks(renderer: PanelRenderer, transformation: str, frames: int) -> bool:
    fields = [{"name": "time", "type": "time"}, {"name": "account", "type": "string"}, {"name": "metric", "type": "string"}]
    values = [[1, 2], ["a", "b"], ["x", "x"], [1, 2]]
    body = [
        {
            "schema": {"refId": ref_id, "meta": NOTICE, "fields": [*fields, {"name": name, "type": "number"}]},
            "data": {"values": values},
        }
        for ref_id, name in (("A", "value"), ("B", "other"))[:frames]
    ]
    changes = [{"id": transformation, "options": OPTIONS.get(transformation, {})}]
    panel = {"type": "table", "transformations": changes, "options": {}, "fieldConfig": {"defaults": {}, "overrides": []}}
    return any(frame["notices"] for frame in renderer.render(body, panel)["frames"])


def test_what_check_calls_a_transformation_that_loses_marks_is_one_and_no_other(renderer: PanelRenderer) -> None:
    found = {name: [_keeps_marks(renderer, name, frames) for frames in (1, 2)] for name in (*LOSES_MARKS, *KEEPS_MARKS)}
    assert {name for name, kept in found.items() if not all(kept)} == LOSES_MARKS
    assert set(renderer.transformations()) == {*LOSES_MARKS, *KEEPS_MARKS}
