"""The dashboards as people see them: what fits, what is told apart, what is narrowed, where links lead, how much is drawn."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import pytest_asyncio

from app.check.panels import lost_marks, rangeless_links, unheard_variables
from dashboards.__main__ import catalogue
from dashboards.board import DEFAULT_TOP
from dashboards.limits import BAD, GOOD, LIMITS, NOTE, OLD, WARN
from dashboards.panels import LESS_IS_WORSE, TOP
from tests.provisioning.marks import World, bridge_over, see
from tests.provisioning.screens import WIDTHS, cell_px, table_room_px, text_px, title_room_px
from tests.provisioning.test_dashboards import DASHBOARDS
from tests.servers.grafana import PanelRenderer
from tests.servers.plugins import opened, panels_of
from tests.servers.world import Stores

CATALOGUE = catalogue()
ALL_PANELS: list[tuple[str, Any]] = [(name, panel) for name, one in DASHBOARDS.items() for panel in panels_of(one)]
PANELS = [pytest.param(name, panel, id=f"{name}-{panel['title']}") for name, panel in ALL_PANELS]
OF_BRIDGE = [(name, panel) for name, panel in ALL_PANELS if panel["datasource"]["type"] != "prometheus"]
CURVES = [(name, panel) for name, panel in OF_BRIDGE if panel["type"] == "timeseries"]
#: Labels of which there may be hundreds of values.
MANY = {"account", "instance", "host", "symbol"}


def payloads(panel: Any) -> list[dict[str, Any]]:
    """What the JSON plugin's targets of a panel ask for."""
    return [json.loads(target["payload"]) for target in panel["targets"] if "payload" in target]


def overrides(panel: Any, matcher: str) -> dict[str, dict[str, Any]]:
    """The overrides of one kind: what they match -> property -> value."""
    found = [one for one in panel["fieldConfig"]["overrides"] if one["matcher"]["id"] == matcher]
    return {one["matcher"]["options"]: {each["id"]: each["value"] for each in one["properties"]} for one in found}


@pytest.fixture(scope="module")
def renderer() -> Iterator[PanelRenderer]:
    with PanelRenderer() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(stores: Stores) -> AsyncIterator[httpx.AsyncClient]:
    async with bridge_over(stores, World(stores.until_ms)) as one:
        yield one


@pytest.mark.parametrize("screen", WIDTHS)
@pytest.mark.parametrize(("name", "panel"), PANELS)
def test_a_title_is_not_cut_on_any_usual_screen(name: str, panel: Any, screen: int) -> None:
    assert text_px(panel["title"]) <= title_room_px(panel, screen)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "panel"), [one for one in OF_BRIDGE if one[1]["type"] == "table"])
async def test_every_column_of_a_table_fits_its_header_its_figures_and_the_screen(
    client: httpx.AsyncClient, stores: Stores, renderer: PanelRenderer, name: str, panel: Any
) -> None:
    seen = await see(client, renderer, name, panel, opened(DASHBOARDS[name], stores.until_ms))
    [frame] = seen.frames
    needed = 0.0
    for field in frame["fields"]:
        custom = field["config"]["custom"]
        if "width" in custom:
            widest = max([field["name"], *(cell["text"] for cell in field["cells"])], key=text_px)
            assert cell_px(widest) <= custom["width"], f"{field['name']}: {widest}"
        needed += custom.get("width") or custom.get("minWidth") or 150
    assert needed <= min(table_room_px(panel, screen) for screen in WIDTHS)


def test_colours_are_those_that_colour_blind_people_tell_apart_and_none_of_grafanas_named_ones() -> None:
    text = json.dumps(DASHBOARDS)
    found = set(re.findall(r'"(?:color|fixedColor|iconColor)": "([^"]+)"', text))
    okabe_ito = {"#009E73", "#F0E442", "#E69F00", "#D55E00", "#56B4E9", "#CC79A7", "#0072B2"}
    assert found <= okabe_ito | {OLD, "text", "transparent"}
    assert {GOOD, NOTE, WARN, BAD} <= okabe_ito


@pytest.mark.parametrize(("name", "panel"), OF_BRIDGE)
def test_a_limit_that_colours_a_panel_is_said_in_its_description(name: str, panel: Any) -> None:
    if panel["type"] in ("stat", "timeseries"):
        for metric in {target["target"] for target in panel["targets"]} & LIMITS.keys():
            if panel["title"] != "State of the data" and len(panel["targets"]) == 1:
                assert re.search(r"Limits: \w+ (from|below)", panel["description"]), metric


@pytest.mark.parametrize(("name", "panel"), OF_BRIDGE)
def test_a_panel_of_a_label_with_many_values_asks_for_the_worst_of_them(name: str, panel: Any) -> None:
    asked = payloads(panel)
    if not any(MANY & set(one.get("by", ())) for one in asked) or panel["fieldConfig"]["defaults"].get("custom", {}).get(
        "stacking"
    ):
        return
    ranked = [one for one in asked if "top" in one]
    metrics = [target["target"] for target in panel["targets"]]
    assert [one["top"] for one in ranked] in ([TOP], [1])
    assert [one["sort"] for one in ranked] == ["value" if metrics[0] in LESS_IS_WORSE else "-value"]
    assert "top" in asked[0]


def test_curves_have_no_fill_dashed_limits_and_a_tint_beyond_them() -> None:
    for _, panel in CURVES:
        custom = panel["fieldConfig"]["defaults"]["custom"]
        if custom["drawStyle"] == "bars":
            continue
        assert custom["fillOpacity"] == 0, panel["title"]
        if panel["targets"][0]["target"] in LIMITS and len(panel["targets"]) == 1:
            assert custom["thresholdsStyle"] == {"mode": "dashed+area"}
            assert GOOD not in json.dumps(panel["fieldConfig"]["defaults"]["thresholds"])


def test_no_curve_is_of_a_metric_that_nobody_keeps() -> None:
    drawn = {target["target"] for _, panel in CURVES for target in panel["targets"]}
    assert len(drawn) > 25
    assert [name for name in drawn if CATALOGUE.metric(name).history is None] == []


def test_a_curve_of_zeros_is_not_drawn_on_an_axis_to_a_hundred() -> None:
    for _, panel in ALL_PANELS:
        if panel["type"] != "timeseries":
            continue
        custom = panel["fieldConfig"]["defaults"]["custom"]
        signed = {"slippage", "broker_slippage", "floating_pnl", "total_pnl", "free_margin", "equity", "balance", "margin"}
        if {target.get("target") for target in panel["targets"]} & signed:
            continue
        assert custom["axisSoftMax"] <= 1024, panel["title"]


@pytest.mark.asyncio(loop_scope="module")
async def test_money_has_all_its_digits_and_no_sign_of_a_currency_that_it_may_not_be_in(
    client: httpx.AsyncClient, stores: Stores, renderer: PanelRenderer
) -> None:
    [panel] = [one for one in panels_of(DASHBOARDS["account"]) if one["title"] == "Equity"]
    seen = await see(client, renderer, "account", panel, opened(DASHBOARDS["account"], stores.until_ms))
    assert re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d{1,2})?", seen.figures[0]["text"])
    [curve] = [one for one in panels_of(DASHBOARDS["account"]) if one["title"] == "Equity and balance"]
    seen = await see(client, renderer, "account", curve, opened(DASHBOARDS["account"], stores.until_ms))
    cells = [cell for frame in seen.frames for field in frame["fields"][1:] for cell in field["cells"]]
    told = [(float(cell["text"].replace(",", "")), cell["value"]) for cell in cells if cell["value"] is not None]
    # To the cent: half of one either way, whichever way a browser rounds what is exactly between two.
    assert max(abs(shown - value) for shown, value in told) < 0.005 + 1e-6


@pytest.mark.parametrize(("name", "panel"), OF_BRIDGE)
def test_every_list_narrows_a_panel_or_the_panel_says_that_it_does_not(name: str, panel: Any) -> None:
    lists = {one["name"]: one["label"] for one in DASHBOARDS[name]["templating"]["list"] if one["type"] == "query"}
    assert list(unheard_variables(panel, panel["targets"], lists)) == []
    if panel["datasource"]["type"] != "simpod-json-datasource":
        assert "Filters" in panel["description"]


@pytest.mark.parametrize(("name", "panel"), OF_BRIDGE)
def test_no_panel_hides_a_mark_or_loses_the_range(name: str, panel: Any) -> None:
    rows = [target for target in panel["targets"] if "url" in target]
    asked = [target for target in panel["targets"] if "payload" in target]
    assert [*lost_marks(panel, asked, rows), *rangeless_links(panel)] == []
    assert "timeFrom" not in panel


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("name", "title", "leads_to", "label"),
    [
        ("trade_execution", "By account, now", "tds-account", "account"),
        ("account", "By account, now", "tds-trade-execution", "account"),
    ],
)
async def test_a_link_leads_to_the_cells_account_with_range_lists_and_filters(
    client: httpx.AsyncClient, stores: Stores, renderer: PanelRenderer, name: str, title: str, leads_to: str, label: str
) -> None:
    [panel] = [one for one in panels_of(DASHBOARDS[name]) if one["title"] == title]
    viewer = opened(DASHBOARDS[name], stores.until_ms)
    reply = await client.post("/json/query", json=viewer.json_query(DASHBOARDS[name], panel))
    variables = {
        "__url_time_range": "from=now-2h&to=now",
        "broker": "var-broker=alpha&var-broker=bravo",
        "filters": "var-filters=symbol%7C%3D%7CEURUSD",
    }
    [frame] = renderer.render(reply.json(), panel, variables)["frames"]
    [column] = [field for field in frame["fields"] if field["links"]]
    address = urlsplit(column["links"][0])
    assert address.path == f"/d/{leads_to}"
    assert parse_qsl(address.query)[1:] == [
        ("from", "now-2h"),
        ("to", "now"),
        ("var-broker", "alpha"),
        ("var-broker", "bravo"),
        ("var-filters", "symbol|=|EURUSD"),
    ]
    assert address.query.startswith(f"var-{label}=${{__value.raw:percentencode}}&")
    assert leads_to in {one["uid"] for one in DASHBOARDS.values()}


@pytest.mark.parametrize(("name", "panel"), OF_BRIDGE)
def test_a_target_has_one_metric_so_that_the_plugins_editor_shows_what_is_asked(name: str, panel: Any) -> None:
    for target in panel["targets"]:
        if "payload" in target:
            assert target["target"] in {*CATALOGUE.metrics, *CATALOGUE.events}


def test_annotations_are_grouped_and_off_where_the_range_is_longer_than_six_hours() -> None:
    for one in DASHBOARDS.values():
        hours = int(one["time"]["from"].removeprefix("now-").removesuffix("h"))
        for mark in one["annotations"].get("list", []):
            assert json.loads(mark["target"]["payload"])["most"] == 20
            assert not (mark["enable"] and (hours > 6 or mark["name"] == "Failed trades"))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_day_of_failed_trades_is_no_more_marks_than_asked_for_and_the_notice_says_how_many_trades_there_are(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    one = DASHBOARDS["performance"]
    [mark] = [found for found in one["annotations"]["list"] if found["name"] == "Failed trades"]
    answers = {}
    for most in (0, 5):
        payload = json.dumps(json.loads(mark["target"]["payload"]) | {"most": most})
        asked = mark | {"target": mark["target"] | {"payload": payload}}
        body = opened(one, stores.until_ms).annotation_query(one, asked)
        [answers[most]] = (await client.post("/json/query", json=body)).json()
    total = len(answers[0]["rows"])
    assert 0 < len(answers[5]["rows"]) <= 5 < total
    assert sum(int(row[2].split()[0]) if row[5] is None else 1 for row in answers[5]["rows"]) == total
    assert f"{total} events" in answers[5]["meta"]["notices"][-1]["text"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_on_a_phone_and_in_kiosk_mode_the_state_comes_first_then_the_figures_then_the_rest(name: str) -> None:
    # Grafana shows the panels of a narrow screen below one another, by row and then by column.
    shown = sorted(panels_of(DASHBOARDS[name]), key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"]))
    kinds = [panel["type"] for panel in shown]
    figures = kinds.count("stat")
    assert kinds[:figures] == ["stat"] * figures
    assert figures >= 6
    if name != "bridge":
        assert (shown[0]["title"], shown[0]["gridPos"]["w"]) == ("State of the data", 24)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_thousand_accounts_make_no_panel_unreadable_and_each_says_how_many_it_leaves_out(
    stores: Stores, renderer: PanelRenderer
) -> None:
    counted = set()
    async with bridge_over(stores, World(stores.until_ms, accounts=1000)) as client:
        for name, panel in OF_BRIDGE:
            if not any("account" in one.get("by", ()) for one in payloads(panel)):
                continue
            seen = await see(client, renderer, name, panel, opened(DASHBOARDS[name], stores.until_ms))
            assert not seen.failure
            notices = [notice["text"] for frame in seen.frames for notice in frame["notices"]]
            if panel["type"] == "stat":
                assert len(seen.figures) == 1
                assert notices == []
                continue
            shown = len(seen.frames) if panel["type"] == "timeseries" else len(seen.frames[0]["fields"][0]["cells"])
            assert shown == DEFAULT_TOP
            assert [text for text in notices if "980 are not shown" in text], panel["title"]
            counted.add(panel["title"])
    assert counted == {"By account, now", "Margin level by account", "Drawdown by account", "Free margin by account"}


@pytest.mark.asyncio(loop_scope="module")
async def test_the_curve_of_a_way_is_named_from_its_source_to_its_sink(
    client: httpx.AsyncClient, stores: Stores, renderer: PanelRenderer
) -> None:
    one = DASHBOARDS["backend_sync"]
    [panel] = [found for found in panels_of(one) if found["title"].startswith("Successful syncs, each way")]
    reply = await client.post("/json/query", json=opened(one, stores.until_ms).json_query(one, panel))
    ways = {(element["tags"]["source"], element["tags"]["sink"]) for element in reply.json()}
    assert ways
    assert panel["fieldConfig"]["defaults"]["displayName"] == "${__field.labels.source} \u2192 ${__field.labels.sink}"


def test_the_worst_curve_is_the_brightest_and_the_first_in_the_legend() -> None:
    ranked = [panel for _, panel in CURVES if any("top" in one for one in payloads(panel))]
    assert len(ranked) >= 10
    for panel in ranked:
        less = panel["targets"][0]["target"] in LESS_IS_WORSE
        assert panel["fieldConfig"]["defaults"]["color"]["mode"] == ("continuous-YlBl" if less else "continuous-BlYlRd")
        assert (panel["options"]["legend"]["sortBy"], panel["options"]["legend"]["sortDesc"]) == ("Last *", not less)
