"""POST /json/query: checklist 20 to 44 (the number is in the test name). Every good answer goes through Grafana's converter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import SourceTimeout, SourceUnavailable
from tests.contracts.app_under_test import EMPTY, EVENTS, HISTORY, MINUTE, NOW, OPEN, WARNED, Bench, bench, hang
from tests.servers.grafana import FrameConverter

DOWN = SourceUnavailable("rts", "connection refused")


def body(*targets: Mapping[str, Any] | str, **more: Any) -> dict[str, Any]:
    """A panel's request; a target may be given as its text."""
    listed = [
        {"refId": chr(65 + place), "target": one} if isinstance(one, str) else dict(one) for place, one in enumerate(targets)
    ]
    span = {"from": "2023-11-14T22:11:00.000Z", "to": "2023-11-14T22:13:25.500Z", "raw": {"from": "now-3m", "to": "now"}}
    return {"targets": listed, "range": span, "intervalMs": MINUTE, "maxDataPoints": 800, **more}


async def ask(at: Bench, converter: FrameConverter, sent: Mapping[str, Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """The answer's elements, and the frames that Grafana makes of them."""
    reply = await at.client.post("/json/query", json=sent)
    assert reply.status_code == 200, reply.text
    elements = reply.json()
    return elements, converter.convert(elements)


def equity(**payload: Any) -> dict[str, Any]:
    return {"refId": "A", "target": "equity", "payload": {"by": ["account"], "step": "1m", **payload}}


async def test_20_21_24_the_answer_is_an_array_of_series_with_their_refid(at: Bench, frame_converter: FrameConverter) -> None:
    elements, frames = await ask(at, frame_converter, body({**equity(), "refId": "Q"}))
    assert [(one["refId"], one["target"], one["tags"], one["datapoints"]) for one in elements] == [
        ("Q", "equity", {"account": "A1"}, [[1.0, OPEN - 2 * MINUTE], [2.0, OPEN - MINUTE], [3.0, OPEN]]),
        ("Q", "equity", {"account": "A2"}, [[None, OPEN - MINUTE], [30.0, OPEN]]),
    ]
    assert [(one["refId"], [column["type"] for column in one["fields"]]) for one in frames] == [("Q", ["time", "number"])] * 2


@pytest.mark.parametrize(
    ("payload", "interval_ms", "remarks"), [({}, 1500, []), ({"step": "1500"}, MINUTE, ["step 1.5s raised to 2s"])]
)
async def test_a_panels_interval_is_followed_without_a_remark_a_step_that_somebody_wrote_is_not(
    at: Bench, frame_converter: FrameConverter, payload: dict[str, Any], interval_ms: int, remarks: list[str]
) -> None:
    asked = body({"refId": "A", "target": "pnl", "payload": payload}, intervalMs=interval_ms)
    _, [found] = await ask(at, frame_converter, asked)
    assert [notice["text"].split(":")[0] for notice in found["meta"].get("notices", ())] == remarks


@pytest.mark.parametrize("wanted", ["datapoints", "frame", "table"])
async def test_22_nothing_found_is_an_empty_series_in_every_format(
    at: Bench, frame_converter: FrameConverter, wanted: str
) -> None:
    at.say(rts=EMPTY, duckdb=EMPTY)
    _, [found] = await ask(at, frame_converter, body(equity(format=wanted)))
    assert (found["length"], found["refId"], found["fields"][0]["type"], found["fields"][-1]["type"]) == (
        0,
        "A",
        "time",
        "number",
    )


async def test_23_times_are_epoch_ms_integers_ascending_and_unique(at: Bench, frame_converter: FrameConverter) -> None:
    elements, _ = await ask(at, frame_converter, body(equity()))
    for one in elements:
        times = [time for _, time in one["datapoints"]]
        assert times == sorted(set(times))
        assert all(isinstance(time, int) for time in times)


async def test_25_a_null_is_a_json_null_and_not_a_missing_pair(at: Bench) -> None:
    reply = await at.client.post("/json/query", json=body(equity()))
    assert b"[null,1699999920000]" in reply.content
    assert b"NaN" not in reply.content


async def test_26_a_table_of_metrics_in_several_units_calls_none_of_them_by_anothers(
    at: Bench, frame_converter: FrameConverter
) -> None:
    units = []
    for target in ("(equity|cpu_load)", "(cpu_load|equity)", "(equity|old_equity)"):
        [table], _ = await ask(at, frame_converter, body({"refId": "A", "target": target, "payload": {"format": "table"}}))
        units.append(table["columns"][-1])
    value = {"text": "value", "type": "number"}
    assert units == [value, value, value | {"unit": "currencyUSD"}]


async def test_26_table_columns_have_text_and_a_type_of_grafanas(at: Bench, frame_converter: FrameConverter) -> None:
    [table], [found] = await ask(at, frame_converter, body(equity(format="table")))
    assert table["columns"] == [
        {"text": "time", "type": "time"},
        {"text": "metric", "type": "string"},
        {"text": "account", "type": "string"},
        {"text": "value", "type": "number", "unit": "currencyUSD"},
    ]
    assert table["rows"][0] == [OPEN - 2 * MINUTE, "equity", "A1", 1.0]
    assert [column["type"] for column in found["fields"]] == ["time", "string", "string", "number"]


async def test_27_28_frames_have_no_length_and_columns_of_one_length(at: Bench, frame_converter: FrameConverter) -> None:
    elements, frames = await ask(at, frame_converter, body(equity(format="frame")))
    assert ["length" in one for one in elements] == [False, False]
    assert [{len(column) for column in one["data"]["values"]} for one in elements] == [{3}, {2}]
    assert [one["fields"][1]["unit"] for one in frames] == ["currencyUSD", "currencyUSD"]


@pytest.mark.parametrize("wanted", ["datapoints", "frame"])
async def test_29_series_of_one_target_have_legends_of_their_own(at: Bench, frame_converter: FrameConverter, wanted: str) -> None:
    _, frames = await ask(
        at, frame_converter, body(equity(format=wanted), {"refId": "B", "target": "pnl", "payload": {"by": "account"}})
    )
    assert [one["fields"][1]["displayName"] for one in frames] == ["Equity A1", "Equity A2", "Realised P&L A1"]


async def test_29_a_single_series_without_labels_is_named_for_its_metric(at: Bench, frame_converter: FrameConverter) -> None:
    _, [found] = await ask(at, frame_converter, body("cpu_load"))
    assert found["fields"][1]["displayName"] == "CPU load"


async def test_30_one_failing_store_leaves_the_rest_and_a_notice(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(rts=DOWN)
    _, frames = await ask(at, frame_converter, body(equity(), "cpu_load"))
    assert [one["refId"] for one in frames] == ["A", "A", "B"]
    notices = [(one["meta"] or {}).get("notices") for one in frames]
    assert notices[0] == [
        {
            "severity": "warning",
            "text": "rts: connection refused; the live edge is missing, the newest point is 2023-11-14 22:12:00Z",
        }
    ]
    assert notices[2] is None


async def test_30_a_failing_target_beside_a_good_one_is_an_empty_series_with_an_error(
    at: Bench, frame_converter: FrameConverter
) -> None:
    at.say(prometheus=SourceTimeout("prometheus", "slow"))
    _, frames = await ask(at, frame_converter, body("equity", "cpu_load"))
    assert (frames[-1]["refId"], frames[-1]["length"]) == ("B", 0)
    assert frames[-1]["meta"]["notices"] == [{"severity": "error", "text": "prometheus: slow"}]


async def test_30_when_all_fail_the_status_says_so(at: Bench) -> None:
    at.say(prometheus=SourceTimeout("prometheus", "slow"))
    reply = await at.client.post("/json/query", json=body("cpu_load"))
    message = "prometheus: slow"
    assert (reply.status_code, reply.json()) == (
        504,
        {"message": message, "error": {"code": "source_timeout", "message": message}},
    )


async def test_a_stores_own_remarks_reach_the_panel(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(prometheus=WARNED)
    _, [found] = await ask(at, frame_converter, body("cpu_load"))
    assert found["meta"]["notices"] == [{"severity": "warning", "text": "half of it"}]


@pytest.mark.parametrize("key", ["payload", "data"])
@pytest.mark.parametrize("payload", ["absent", None, "", {}, [], '{"by": ["account"]}', {"by": ["account"]}])
async def test_32_a_payload_of_any_plugin_version_is_understood(
    at: Bench, frame_converter: FrameConverter, key: str, payload: Any
) -> None:
    target = {"refId": "A", "target": "equity"} | ({} if payload == "absent" else {key: payload})
    await ask(at, frame_converter, body(target))
    [statement] = at.sources["rts"].asked
    assert statement.labels == (("account",) if payload and payload != "absent" else ())


@pytest.mark.parametrize("payload", [5, True, [1], "no json"])
async def test_32_a_payload_that_is_no_object_is_refused_by_name(at: Bench, payload: Any) -> None:
    reply = await at.client.post("/json/query", json=body({"refId": "A", "target": "equity", "payload": payload}))
    assert (reply.status_code, "payload" in reply.json()["message"], "an object" in reply.json()["message"]) == (400, True, True)


async def test_33_numbers_and_flags_may_come_as_text(at: Bench, frame_converter: FrameConverter) -> None:
    elements, _ = await ask(at, frame_converter, body(equity(step="60000", instant="true")))
    assert [one["datapoints"] for one in elements] == [[[3.0, OPEN]], [[30.0, OPEN]]]


@pytest.mark.parametrize("target", ["(equity|cpu_load)", "{equity,cpu_load}", r"(equity|cpu\_load)", '["equity","cpu_load"]'])
async def test_34_a_target_with_several_metrics_is_each_of_them(at: Bench, frame_converter: FrameConverter, target: str) -> None:
    elements, _ = await ask(at, frame_converter, body(target))
    assert {one["target"] for one in elements} == {"equity", "cpu_load"}
    assert {one["refId"] for one in elements} == {"A"}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (["A1", "A2"], [("account", "=|", ("A1", "A2"))]),
        (["US30,cash"], [("account", "=", ("US30,cash",))]),
        (7, [("account", "=", ("7",))]),
        ("$__all", []),
        (["$__all"], []),
    ],
)
@pytest.mark.parametrize("text", ["$acc", "${acc}", "${acc:csv}", "[[acc]]"])
async def test_35_a_variable_left_in_a_filter_has_the_value_that_the_body_says(
    at: Bench, frame_converter: FrameConverter, value: Any, where: list[Any], text: str
) -> None:
    scoped = {"acc": {"text": "x", "value": value}, "__sceneObject": {"text": "x"}}
    await ask(at, frame_converter, body(equity(account=text), scopedVars=scoped))
    [statement] = at.sources["rts"].asked
    assert [(one.label, one.operator, one.values) for one in statement.where] == where


@pytest.mark.parametrize("scoped", [{"text": "x"}, {"value": ""}, {"value": None}, {"value": [None]}, "odd", None])
async def test_35_a_variable_without_a_value_is_an_error_that_names_it(at: Bench, scoped: Any) -> None:
    reply = await at.client.post("/json/query", json=body(equity(account="$acc"), scopedVars={"acc": scoped}))
    assert (reply.status_code, "payload.account: the variable $acc is not filled in" in reply.json()["message"]) == (
        400,
        True,
    )
    assert at.askings() == {}


async def test_36_a_hidden_target_is_not_asked(at: Bench, frame_converter: FrameConverter) -> None:
    elements, _ = await ask(at, frame_converter, body({**equity(), "hide": True}, {"refId": "B", "target": "cpu_load"}))
    assert ({one["refId"] for one in elements}, at.askings()) == ({"B"}, {"prometheus": 1})


@pytest.mark.parametrize(
    "more", [{"panelId": "7"}, {"panelId": 123456789012}, {"rangeRaw": {"from": "now-6h", "to": "now"}}, {"app": 1}]
)
async def test_37_whatever_else_a_panel_sends_is_ignored(
    at: Bench, frame_converter: FrameConverter, more: dict[str, Any]
) -> None:
    elements, _ = await ask(at, frame_converter, body("cpu_load", **more))
    assert len(elements) == 1


FILTER = {"key": "account", "operator": "=", "value": "A1"}


@pytest.mark.parametrize(
    "more", [{"filters": [FILTER]}, {"adhocFilters": [FILTER]}, {"filters": [FILTER, FILTER], "adhocFilters": [FILTER]}]
)
async def test_38_ad_hoc_filters_of_either_name_apply_once(
    at: Bench, frame_converter: FrameConverter, more: dict[str, Any]
) -> None:
    await ask(at, frame_converter, body(equity(), **more))
    [statement] = at.sources["rts"].asked
    assert [(one.label, one.operator, one.values) for one in statement.where] == [("account", "=", ("A1",))]


async def test_38_a_filter_that_a_metric_does_not_know_is_said_not_to_apply(at: Bench, frame_converter: FrameConverter) -> None:
    _, [found] = await ask(at, frame_converter, body("cpu_load", filters=[FILTER]))
    assert found["meta"]["notices"] == [{"severity": "info", "text": "the filter on account does not apply to cpu_load"}]


@pytest.mark.parametrize("operator", ["=", "!=", "=|", "!=|", "=~", "!~", "<", "<=", ">", ">="])
async def test_39_every_operator_reaches_the_store(at: Bench, frame_converter: FrameConverter, operator: str) -> None:
    values = ["A1", "A2"] if "|" in operator else []
    await ask(
        at, frame_converter, body(equity(), filters=[{"key": "account", "operator": operator, "value": "A1", "values": values}])
    )
    [statement] = at.sources["rts"].asked
    assert [(one.operator, one.values) for one in statement.where] == [(operator, tuple(values) or ("A1",))]


async def test_40_a_series_has_no_more_points_than_the_panel_asked_for(at: Bench, frame_converter: FrameConverter) -> None:
    from tests.frames import frame

    long = {NOW // 10_000 * 10_000 - 10_000 * place: float(place % 17) for place in range(1, 3000)}
    at.say(duckdb=frame({"": long}), rts=EMPTY)
    span = {"from": NOW - 30_000_000, "to": NOW}
    elements, _ = await ask(at, frame_converter, body("equity", range=span, maxDataPoints=100))
    values = [value for value, _ in elements[0]["datapoints"]]
    assert (len(values) <= 110, max(values), min(values)) == (True, 16.0, 0.0)


async def test_41_ten_equal_panels_at_once_ask_each_store_once(frame_converter: FrameConverter) -> None:
    made = bench(fresh_s=10)
    async with made.client:
        sent = [body(equity(), requestId=f"Q{place}", startTime=place) for place in range(10)]
        replies = await asyncio.gather(*(made.client.post("/json/query", json=one) for one in sent))
    assert {reply.content for reply in replies} == {replies[0].content}
    assert made.askings() == {"rts": 1, "duckdb": 1}


@pytest.mark.parametrize(("kind", "key"), [("timeserie", "datapoints"), ("timeseries", "datapoints"), ("table", "rows")])
async def test_42_the_old_plugins_type_decides_the_shape(at: Bench, frame_converter: FrameConverter, kind: str, key: str) -> None:
    elements, _ = await ask(at, frame_converter, body({"refId": "A", "target": "equity", "type": kind}))
    assert key in elements[0]


async def test_43_annotations_are_a_table_with_time_and_text(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(clickhouse=EVENTS)
    [table], [found] = await ask(at, frame_converter, body({"refId": "Anno", "target": "deploys", "payload": ""}))
    assert [column["text"] for column in table["columns"]] == ["time", "timeEnd", "title", "text", "tags", "id"]
    assert table["rows"][0] == [OPEN - 2 * MINUTE, OPEN, "Deploy", "v42", "a,b", None]
    assert (found["refId"], [column["type"] for column in found["fields"]][:4]) == ("Anno", ["time", "time", "string", "string"])


async def test_43_an_annotation_that_lasts_into_the_panels_window_is_shown(at: Bench) -> None:
    at.say(clickhouse=EVENTS)
    span = {"from": OPEN - 30_000, "to": OPEN}
    reply = await at.client.post("/json/query", json={"range": span, "targets": [{"refId": "Anno", "target": "deploys"}]})
    assert reply.json()[0]["rows"] == [[OPEN - 2 * MINUTE, OPEN, "Deploy", "v42", "a,b", None]]


@pytest.mark.parametrize("how", ["header", "parameter"])
async def test_44_old_plugins_can_have_errors_as_notices(at: Bench, frame_converter: FrameConverter, how: str) -> None:
    at.say(prometheus=SourceTimeout("prometheus", "slow"))
    url = "/json/query?errors=inband" if how == "parameter" else "/json/query"
    headers = {"X-Bridge-Errors": "inband"} if how == "header" else {}
    reply = await at.client.post(url, json=body("cpu_load"), headers=headers)
    [found] = frame_converter.convert(reply.json())
    assert (reply.status_code, found["meta"]["notices"]) == (200, [{"severity": "error", "text": "prometheus: slow"}])


async def test_a_hanging_store_costs_the_request_no_more_than_its_limit(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(rts=hang)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    elements, _ = await ask(at, frame_converter, body(equity(), "cpu_load"))
    assert (loop.time() - begun < 3.0, {one["refId"] for one in elements}) == (True, {"A", "B"})


WRONG: dict[str, tuple[Any, int, tuple[str, ...]]] = {
    "31 unknown metric": (body("equitty"), 404, ("target", "'equitty'", "nearest: equity")),
    "unknown label": (body(equity(by=["acount"])), 404, ("by", "'acount'", "nearest: account")),
    "unknown label in a filter": (body(equity(where={"acount": "1"})), 404, ("where", "'acount'", "nearest: account")),
    "unknown payload key": (body(equity(nonsense=1)), 400, ("payload", "'nonsense'", "allowed: by")),
    "from after to": (body("equity", range={"from": NOW, "to": NOW - 1}), 400, ("from", "allowed: from < to")),
    "range too long": (body("equity", range={"from": 0, "to": NOW}), 400, ("from, to", "at most 400 days")),
    "step 0": (body(equity(step="0s")), 400, ("payload.step", "'0s'", "allowed: 1s or more")),
    "too many targets": (body(*["equity"] * 51), 400, ("targets", "51", "at most 50")),
    "too many metrics in few targets": (body(*["(equity|cpu_load)"] * 26), 400, ("targets", "52", "at most 50")),
    "not an object": ([1], 400, ("body", "list", "allowed: a JSON object")),
    "targets of a wrong type": ({"targets": {}}, 400, ("targets", "dict", "allowed: a list")),
    "a target of a wrong type": ({"targets": [5]}, 400, ("targets[0]", "int", "allowed: an object")),
    "a target without text": (body({"refId": "A"}), 400, ("target", "allowed: a metric's name")),
    "39 unknown operator": (
        body("equity", filters=[{"key": "account", "operator": "~~", "value": "x"}]),
        400,
        ("filters", "'~~'", "allowed: = !="),
    ),
    "filters of a wrong type": (body("equity", filters=5), 400, ("filters", "'5'", "allowed")),
    "a bad expression": (body("equity", filters=[{"key": "account", "operator": "=~", "value": "("}]), 400, ("'('", "RE2")),
    "range of a wrong type": (body("equity", range="now"), 400, ("range", "str", "allowed: an object")),
    "a time that is none": (body("equity", range={"from": "yesterday"}), 400, ("range.from", "'yesterday'", "allowed: epoch ms")),
    "points of a wrong type": (body("equity", maxDataPoints="many"), 400, ("maxDataPoints", "'many'", "allowed: a whole number")),
    "unknown format": (body(equity(format="xml")), 400, ("payload.format", "'xml'", "allowed: datapoints")),
}


@pytest.mark.parametrize("case", WRONG)
async def test_bad_input_is_refused_by_field_value_and_what_is_allowed(at: Bench, case: str) -> None:
    sent, status, parts = WRONG[case]
    reply = await at.client.post("/json/query", json=sent)
    answer = reply.json()
    assert (reply.status_code, answer["error"]["message"]) == (status, answer["message"])
    assert [part for part in parts if part not in answer["message"]] == []
    assert at.askings() == {}


async def test_a_body_that_is_no_json_is_refused(at: Bench) -> None:
    reply = await at.client.post("/json/query", content=b'{"targets": [', headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["message"].startswith("body: not JSON")) == (400, True)


async def test_a_body_over_the_limit_is_refused() -> None:
    made = bench(max_body_bytes=2048)
    async with made.client:
        reply = await made.client.post("/json/query", json=body("equity", padding="x" * 3000))
    assert (reply.status_code, reply.json()["message"]) == (400, "body: over 2048 bytes; at most 2048 bytes are allowed")


_JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_KEYS = ("targets", "range", "filters", "adhocFilters", "maxDataPoints", "intervalMs", "scopedVars")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    junk=st.dictionaries(st.sampled_from(_KEYS), _JUNK, max_size=4),
    target=st.dictionaries(st.sampled_from(["target", "payload", "data", "refId", "type", "hide"]), _JUNK),
)
async def test_no_body_makes_the_bridge_stumble(junk: dict[str, Any], target: dict[str, Any]) -> None:
    made = bench()
    async with made.client:
        for sent in ({**body("equity"), **junk}, body({"target": "equity", **target})):
            reply = await made.client.post("/json/query", content=json.dumps(sent))
            assert reply.status_code in (200, 400, 404), reply.text
            assert reply.status_code == 200 or reply.json()["message"]


async def test_history_and_live_edge_carry_the_same_labels_and_unit(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(duckdb=HISTORY)
    _, frames = await ask(at, frame_converter, body(equity()))
    assert [(one["fields"][1]["labels"], one["fields"][1]["unit"]) for one in frames] == [
        ({"account": "A1"}, "currencyUSD"),
        ({"account": "A2"}, "currencyUSD"),
    ]


async def test_31_an_unknown_metric_is_a_404_that_names_it_and_its_neighbours(at: Bench) -> None:
    reply = await at.client.post("/json/query", json=body("equitty"))
    message = "target: metric 'equitty' is not known; nearest: equity, old_equity"
    assert (reply.status_code, reply.json()) == (404, {"message": message, "error": {"code": "unknown_name", "message": message}})
