"""The queries that the manual offers to paste: sent as each plugin sends them; what comes back is what it can draw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.docs.pages import ROOT, Fence, fences
from tests.servers.grafana import FrameConverter

Query = Mapping[str, Any]
PAGE = ROOT / "docs" / "grafana.md"
#: What Grafana writes in the place of its variables.
FILLED = {"${__from}": "now-1h", "${__to}": "now", "${__interval_ms}": "60000"}
#: What the plugin makes a field of, by the type of a column; anything else becomes null without a word.
ACCEPTED: Mapping[str, tuple[type, ...]] = {"timestamp_epoch": (int,), "number": (int, float), "string": (str,)}


def pasted() -> list[tuple[Fence, Query]]:
    """Every block of JSON of the page; each is a query of a data source."""
    return [(fence, json.loads(fence.text)) for fence in fences(PAGE) if fence.language == "json"]


def queries_of(plugin: str, parser: str | None = None) -> list[Any]:
    """The queries of a plugin, and of one of its parsers."""
    found = [query for _, query in pasted() if query["datasource"]["type"] == plugin and query.get("parser") == parser]
    assert found, (plugin, parser)
    return [pytest.param(query, id=f"{query['datasource']['uid']} {query.get('target') or query['format']}") for query in found]


@pytest.fixture(scope="module")
def converter() -> Iterator[FrameConverter]:
    """Grafana's own frame converter."""
    with FrameConverter() as running:
        yield running


def answer_of(bridge: str, query: Query) -> httpx.Response:
    """What the bridge answers to a query of the Infinity plugin."""
    base = bridge + ("/alert" if query["datasource"]["uid"].endswith("alerts") else "")
    params = {one["key"]: FILLED.get(one["value"], one["value"]) for one in query["url_options"]["params"]}
    assert not [value for value in params.values() if "$" in value], "a variable that no dashboard fills in"
    return httpx.request(query["url_options"]["method"], base + query["url"], params=params, trust_env=False, timeout=20)


def test_every_block_is_a_query_of_a_provisioned_data_source() -> None:
    provisioned = (ROOT / "provisioning" / "grafana" / "datasources" / "bridge.yaml").read_text(encoding="utf-8")
    found = {(query["datasource"]["type"], query["datasource"]["uid"]) for _, query in pasted()}
    assert len(found) == 3
    assert [uid for kind, uid in found if f"uid: {uid}\n    type: {kind}\n" not in provisioned] == []


@pytest.mark.parametrize("query", queries_of("simpod-json-datasource"))
def test_a_query_of_the_json_plugin_becomes_frames_with_values(bridge: str, converter: FrameConverter, query: Query) -> None:
    target = {**query, "payload": json.loads(query["payload"])}  # the plugin sends the parsed payload
    body = {"targets": [target], "range": {"from": "now-1h", "to": "now"}, "maxDataPoints": 500, "intervalMs": 10_000}
    answer = httpx.post(f"{bridge}/json/query", json=body, trust_env=False, timeout=20)
    frames = converter.convert(answer.json())
    fields = [field for frame in frames for field in frame["fields"]]
    assert (answer.status_code, {frame["refId"] for frame in frames}) == (200, {query["refId"]})
    if query["refId"] == "Anno":
        assert {"time", "text"} <= {field["name"] for field in fields}
        return
    accounts = {value for field in fields if field["name"] == "account" for value in field["values"]}
    accounts |= {field["labels"]["account"] for field in fields if field["labels"]}
    assert len(accounts) > 1
    assert [value for field in fields if field["type"] == "number" for value in field["values"] if value is not None]


@pytest.mark.parametrize("query", queries_of("yesoreyeram-infinity-datasource", "backend"))
def test_a_query_of_infinitys_backend_gets_rows_of_the_types_that_its_columns_say(bridge: str, query: Query) -> None:
    answer = answer_of(bridge, query)
    rows = answer.json()[query["root_selector"]]
    assert (answer.status_code, len(rows) > 1) == (200, True)
    for column in query["columns"]:
        values = [row[column["selector"]] for row in rows]
        assert [value for value in values if value is not None], column
        assert [value for value in values if value is not None and type(value) not in ACCEPTED[column["type"]]] == [], column


@pytest.mark.parametrize("query", queries_of("yesoreyeram-infinity-datasource", "backend"))
def test_infinitys_backend_makes_curves_or_one_row_for_each_account_of_them(bridge: str, query: Query) -> None:
    """It makes curves of rows only if the times ascend and none is missing; alert rules refuse two rows of one account."""
    rows = answer_of(bridge, query).json()[query["root_selector"]]
    if query["format"] == "timeseries":
        times = [row["time"] for row in rows]
        assert (times == sorted(times), None in times) == (True, False)
        assert len(set(times)) > 10
    else:
        accounts = [row["account"] for row in rows]
        assert (len(set(accounts)), len(accounts) > 1) == (len(accounts), True)


@pytest.mark.parametrize("query", queries_of("yesoreyeram-infinity-datasource", "simple"))
def test_a_query_of_infinitys_frontend_becomes_frames_with_units_and_legends(
    bridge: str, converter: FrameConverter, query: Query
) -> None:
    frames = converter.convert(answer_of(bridge, query).json())
    values = [field for frame in frames for field in frame["fields"] if field["type"] == "number"]
    assert {frame["refId"] for frame in frames} == {query["refId"]}
    assert len(values) > 1
    assert all(field["unit"] and field["labels"]["account"] in field["displayName"] for field in values)


def test_the_page_says_how_to_fill_a_list_with_either_plugin(bridge: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "`/v1/values?label=account`" in text
    listed = httpx.get(f"{bridge}/v1/values?label=account", trust_env=False, timeout=20).json()
    asked = httpx.post(f"{bridge}/json/variable", json={"payload": {"target": "account"}}, trust_env=False, timeout=20).json()
    assert listed[0].keys() == {"__text", "__value"} == asked[0].keys()
    assert {one["__value"] for one in asked} == {one["__value"] for one in listed}
