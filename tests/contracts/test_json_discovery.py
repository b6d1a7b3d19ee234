"""/json beside the query: connection, metrics, variables, ad-hoc filters, legacy annotations (checklist 1 to 7, 45 to 52)."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import SourceUnavailable
from tests.contracts.app_under_test import EMPTY, EVENTS, MINUTE, NOW, OPEN, Bench
from tests.frames import frame
from tests.servers.grafana import FrameConverter

POSTS = ("query", "metrics", "metric-payload-options", "search", "variable", "annotations", "tag-keys", "tag-values")


@pytest.mark.parametrize("path", ["/json", "/json/"])
async def test_01_the_connection_test_answers_without_a_redirect(at: Bench, path: str) -> None:
    reply = await at.client.get(path)
    assert (reply.status_code, reply.json()) == (200, {"message": "the bridge is here"})


@pytest.mark.parametrize("name", POSTS)
async def test_02_a_trailing_slash_means_nothing(at: Bench, name: str) -> None:
    plain = await at.client.post(f"/json/{name}", json={})
    slashed = await at.client.post(f"/json/{name}/", json={})
    assert (slashed.status_code, slashed.content) == (plain.status_code, plain.content)
    assert plain.status_code not in (307, 308)


@pytest.mark.parametrize("name", ["metrics", "search", "tag-keys", "tag-values", "metric-payload-options", "variable"])
async def test_05_a_post_without_a_body_is_answered(at: Bench, name: str) -> None:
    reply = await at.client.post(f"/json/{name}", content=b"", headers={"content-type": "application/json"})
    assert (reply.status_code, isinstance(reply.json(), list)) == (200, True)


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-8", "application/x-www-form-urlencoded", ""])
async def test_04_06_json_is_understood_whatever_it_is_called(at: Bench, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    reply = await at.client.post("/json/search", content=b'\xef\xbb\xbf{"target":"cpu"}', headers=headers)
    assert reply.json() == ["cpu_load"]


async def test_45_46_metrics_come_with_named_options(at: Bench) -> None:
    listed = (await at.client.post("/json/metrics", json={"metric": "equity", "payload": {}})).json()
    assert [one["value"] for one in listed] == ["equity", "pnl", "cpu_load", "deploys"]
    named = {option["name"]: option for option in listed[0]["payloads"]}
    assert list(named) == [
        "by",
        "account",
        "broker",
        "where",
        "step",
        "format",
        "instant",
        "sort",
        "top",
        "top_by",
        "within",
        "legend",
    ]
    # With values of its own the editor would show none of several chosen ones, and keep the last.
    assert not [name for name, option in named.items() if option["type"] == "multi-select" and "options" in option]


async def test_every_format_that_the_query_builder_offers_is_answered_in_a_form_of_its_own(at: Bench) -> None:
    listed = (await at.client.post("/json/metrics", json={})).json()
    offered = next(option["options"] for option in listed[0]["payloads"] if option["name"] == "format")
    forms = set()
    for option in offered:
        target = {"refId": "A", "target": "equity", "payload": {"format": option["value"]}}
        reply = await at.client.post("/json/query", json={"targets": [target]})
        assert (reply.status_code, option["label"]) == (200, option["value"])
        element = reply.json()[0]
        forms.add((*sorted(element), *(column["text"] for column in element.get("columns", ()))))
    assert len(forms) == len(offered) == 5


@pytest.mark.parametrize(
    ("name", "values"),
    [("by", ["account", "broker"]), ("account", ["A1", "A2"]), ("state", ["running", "stopped"]), ("nonsense", [])],
)
async def test_46_47_an_options_values_are_answered_and_unknown_ones_are_none(at: Bench, name: str, values: list[str]) -> None:
    reply = await at.client.post("/json/metric-payload-options", json={"metric": "equity", "payload": {}, "name": name})
    assert (reply.status_code, reply.json()) == (200, [{"label": value, "value": value} for value in values])


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("", ["equity", "pnl", "cpu_load", "old_equity", "deploys"]),
        ("cp", ["cpu_load"]),
        ("state", ["running", "stopped"]),
        ("$unset", ["equity", "pnl", "cpu_load", "old_equity", "deploys"]),
    ],
)
async def test_48_search_filters_names_and_lists_a_labels_values(at: Bench, target: str, found: list[str]) -> None:
    assert (await at.client.post("/json/search", json={"target": target})).json() == found


@pytest.mark.parametrize(
    "payload",
    [
        {"target": "account"},
        {"target": "label_values(account)"},
        {"label": "account"},
        '{"label":"account","where":{"broker":"x"}}',
        "account",
    ],
)
async def test_49_50_a_variables_options_are_pairs(at: Bench, frame_converter: FrameConverter, payload: Any) -> None:
    reply = await at.client.post("/json/variable", json={"payload": payload, "range": {}})
    rows = reply.json()
    assert rows == [{"__text": "A1", "__value": "A1"}, {"__text": "A2", "__value": "A2"}]
    [found] = frame_converter.convert([rows])
    assert [column["name"] for column in found["fields"]] == ["__text", "__value"]


@pytest.mark.parametrize("payload", [{"target": "nonsense"}, 5, ["x"], {"target": 7}])
async def test_50_a_variable_that_nobody_knows_has_no_options_or_the_metrics(at: Bench, payload: Any) -> None:
    reply = await at.client.post("/json/variable", json={"payload": payload})
    assert reply.status_code == 200
    assert reply.json() in ([], [{"__text": name, "__value": name} for name in ("equity", "pnl", "cpu_load")])


async def test_51_ad_hoc_keys_and_values_are_bare_arrays(at: Bench) -> None:
    keys = (await at.client.post("/json/tag-keys", json={})).json()
    assert keys == [{"text": name, "type": "string"} for name in ("account", "broker", "state")]
    narrowed = {"key": "account", "filters": [{"key": "broker", "operator": "=", "value": "alpha"}]}
    values = (await at.client.post("/json/tag-values", json=narrowed)).json()
    assert values == [{"text": "A1"}, {"text": "A2"}]
    assert [(one.label, one.values) for one in at.sources["rts"].asked[0].where] == [("broker", ("alpha",))]


async def test_52_legacy_annotations_are_events_in_ms(at: Bench) -> None:
    at.say(clickhouse=EVENTS)
    annotation = {"query": "deploys", "name": "Deploys", "enable": True}
    reply = await at.client.post("/json/annotations", json={"annotation": annotation, "range": {}})
    first = reply.json()[0]
    assert (first["time"], first["timeEnd"], first["title"], first["tags"], first["annotation"]) == (
        OPEN - 2 * MINUTE,
        OPEN,
        "Deploy",
        ["a", "b"],
        annotation,
    )


async def test_52_what_must_be_said_of_legacy_annotations_is_an_annotation(at: Bench) -> None:
    at.say(clickhouse=EVENTS.with_provenance(stale="refused", asked_ms=NOW - 31_000))
    span = {"from": OPEN - 90_000, "to": OPEN}
    reply = await at.client.post("/json/annotations", json={"annotation": {"query": "deploys"}, "range": span})
    assert [(one["time"], one["title"], one["text"]) for one in reply.json()] == [
        (OPEN - 90_000, "Not all is shown", "clickhouse: STALE, 31s old, as of 2023-11-14 22:12:54Z: refused"),
        (OPEN - 2 * MINUTE, "Deploy", "v42"),
        (OPEN - MINUTE, "Rollback", None),
    ]


async def test_values_that_cannot_be_had_are_an_error_with_its_text(at: Bench) -> None:
    at.say(rts=SourceUnavailable("rts", "refused"), duckdb=SourceUnavailable("duckdb", "no snapshot"))
    reply = await at.client.post("/json/tag-values", json={"key": "account"})
    assert (reply.status_code, reply.json()["message"]) == (503, "duckdb: no snapshot")


async def test_whatever_the_query_builder_offers_is_taken_one_by_one_and_together(at: Bench) -> None:
    listed = (await at.client.post("/json/metrics", json={})).json()
    offered = {option["name"]: [one["value"] for one in option.get("options", ())] for option in listed[0]["payloads"]}
    typed: dict[str, list[Any]] = {"by": [["account", "broker"]], "where": ["account=A1"], "step": ["1m"], "top": ["20"]}
    beside = {"top_by": {"sort": "-value"}}
    chosen = [
        {name: value, **beside.get(name, {})} for name, values in (offered | typed).items() for value in [*values, "", None]
    ]
    together = {
        "by": ["account"],
        "instant": "true",
        "sort": "value",
        "top": "2",
        "top_by": "max",
        "step": "1m",
        "format": "table",
    }
    for payload in [*chosen, together]:
        reply = await at.client.post("/json/query", json={"targets": [{"target": "equity", "payload": payload}]})
        assert reply.status_code == 200, (payload, reply.text)


async def test_several_labels_are_kept_as_they_are_chosen(at: Bench) -> None:
    live = frame({"account=A1,broker=alpha": {OPEN: 3}, "account=A2,broker=bravo": {OPEN: 30}})
    at.say(rts=live, duckdb=EMPTY)
    target = {"refId": "A", "target": "equity", "payload": {"by": ["account", "broker"]}}
    found = (await at.client.post("/json/query", json={"targets": [target]})).json()
    assert [one["tags"] for one in found] == [{"account": "A1", "broker": "alpha"}, {"account": "A2", "broker": "bravo"}]
