"""State, age and reason as data: rows, frames, the JSON plugin's tables, one table of now, and one line for a dashboard's top."""

from __future__ import annotations

from typing import Any

import pytest_asyncio

from app.errors import SourceUnavailable
from app.model import Labels
from tests.contracts.app_under_test import EMPTY, MINUTE, NOW, OPEN, Bench
from tests.frames import frame
from tests.servers.grafana import FrameConverter

DOWN = SourceUnavailable("clickhouse", "refused")
LIVE = frame({"account=A1": {OPEN: 3}, "account=A2": {OPEN: 30}})
#: A3 has no value of now: its newest one is two minutes old
HISTORY = frame({"account=A1": {OPEN - MINUTE: 1}, "account=A3": {OPEN - 2 * MINUTE: 7}})
PNL = frame({"account=A1": {OPEN: -1.5}})
ASKED = {"by": "account", "from": "now-5m", "step": "1m", "instant": "true"}


@pytest_asyncio.fixture
async def up(at: Bench) -> Bench:
    at.say(rts=LIVE, duckdb=HISTORY, clickhouse=PNL)
    return at


async def rows_of(at: Bench, metric: str, **more: str) -> list[dict[str, Any]]:
    reply = await at.client.get("/v1/rows", params={**ASKED, "metric": metric, **more})
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["rows"]
    return found


def marks_of(row: dict[str, Any]) -> tuple[str, float | None, str]:
    return row["status"], row["age_s"], row["reason"]


async def test_a_row_whose_newest_value_is_not_of_now_says_so_beside_fresh_ones(up: Bench) -> None:
    by_account = {row["account"]: marks_of(row) for row in await rows_of(up, "equity", marks="true")}
    assert by_account == {
        "A1": ("fresh", 0.0, ""),
        "A2": ("fresh", 0.0, ""),
        "A3": ("stale", (NOW - OPEN) / 1000 + 120, "the newest value is of 2023-11-14 22:11:00Z, 2min old"),
    }


async def test_what_happened_last_long_ago_is_not_stale(up: Bench) -> None:
    up.say(clickhouse=frame({"account=A1": {OPEN - 4 * MINUTE: -1.5}}))
    assert [marks_of(row) for row in await rows_of(up, "pnl", marks="true")] == [("fresh", 0.0, "")]


async def test_each_row_is_as_old_as_the_state_behind_it(up: Bench) -> None:
    written: dict[Labels, int] = {(("account", "A1"),): NOW - 28_000, (("account", "A3"),): NOW - 486_000}
    up.say(rts=frame({"account=A1": {OPEN: 3}, "account=A2": {OPEN: 30}}, written_ms=written))
    by_account = {row["account"]: marks_of(row) for row in await rows_of(up, "equity", marks="true")}
    assert by_account["A1"] == ("fresh", 28.0, "")
    assert by_account["A2"] == ("fresh", 0.0, "")
    assert by_account["A3"][:2] == ("stale", 486.0)
    assert by_account["A3"][2].endswith("8min old")


async def test_rows_of_a_range_have_the_mark_of_the_answer(up: Bench) -> None:
    rows = await rows_of(up, "equity", marks="true", instant="false")
    assert {marks_of(row) for row in rows} == {("fresh", 0.0, "")}


async def test_what_has_failed_and_what_is_empty_has_a_row_with_the_reason(up: Bench) -> None:
    up.say(clickhouse=DOWN, duckdb=DOWN, prometheus=EMPTY)
    reply = await up.client.get(
        "/v1/rows", params={"metric": "pnl,cpu_load", "from": "now-5m", "marks": "true", "instant": "true"}
    )
    found = {row["metric"]: (row["value"], *marks_of(row)) for row in reply.json()["rows"]}
    assert found == {
        "pnl": (None, "error", None, "clickhouse: refused"),
        "cpu_load": (None, "fresh", 0.0, "no data in this window"),
    }


async def test_frames_carry_their_marks_as_fields(up: Bench, frame_converter: FrameConverter) -> None:
    reply = await up.client.get("/v1/frames", params={**ASKED, "metric": "equity", "marks": "true"})
    shown = frame_converter.convert(reply.json())
    assert [[field["name"] for field in one["fields"]] for one in shown] == [["time", "value", "status", "age_s", "reason"]] * 3
    assert [one["fields"][2]["values"] for one in shown] == [["fresh"], ["fresh"], ["stale"]]


def panel(*targets: dict[str, Any], **payload: Any) -> dict[str, Any]:
    """A panel with these targets, whose payload is the same but for what each says itself."""
    refs = "ABCDEF"
    made = [
        {"refId": refs[place], "target": target["target"], "payload": payload | target.get("payload", {})}
        for place, target in enumerate(targets)
    ]
    span = {"from": str(NOW - 5 * MINUTE), "to": str(NOW)}
    return {"targets": made, "intervalMs": MINUTE, "range": span}


async def shown_table(at: Bench, converter: FrameConverter, body: dict[str, Any]) -> dict[str, list[Any]]:
    """The one table that a panel gets, by the names of its columns."""
    reply = await at.client.post("/json/query", json=body)
    assert reply.status_code == 200, reply.text
    [found] = converter.convert(reply.json())
    return {field["name"]: field["values"] for field in found["fields"]}


async def test_a_table_of_the_json_plugin_has_the_marks_as_columns(up: Bench, frame_converter: FrameConverter) -> None:
    body = panel({"target": "equity"}, by=["account"], instant=True, format="table", marks=True)
    found = await shown_table(up, frame_converter, body)
    assert (found["account"], found["status"]) == (["A3", "A1", "A2"], ["stale", "fresh", "fresh"])
    assert found["age_s"][0] > 120
    assert found["reason"][1:] == ["", ""]


async def test_marks_need_a_form_that_has_a_place_for_them(up: Bench) -> None:
    reply = await up.client.post("/json/query", json=panel({"target": "equity"}, marks=True))
    assert (reply.status_code, reply.json()["message"].partition(";")[0]) == (
        400,
        "payload.marks: datapoints have no place for them",
    )


async def test_targets_of_one_panel_make_one_table_with_a_column_for_each_metric(
    up: Bench, frame_converter: FrameConverter
) -> None:
    body = panel({"target": "equity"}, {"target": "pnl"}, by=["account"], format="pivot")
    reply = (await up.client.post("/json/query", json=body)).json()
    assert [(one["text"], one.get("displayNameFromDS"), one.get("unit")) for one in reply[0]["columns"]] == [
        ("account", None, None),
        ("equity", "Equity", "currencyUSD"),
        ("pnl", "Realised P&L", "currencyUSD"),
        ("status", None, None),
        ("age_s", None, "s"),
        ("reason", None, None),
    ]
    found = await shown_table(up, frame_converter, body)
    assert (found["account"], found["equity"], found["pnl"]) == (["A1", "A2", "A3"], [3, 30, 7], [-1.5, None, None])
    # Nothing was earned at A2: that is no gap. A3 has no value of now.
    assert found["status"] == ["fresh", "fresh", "stale"]


async def test_figures_of_a_dead_redis_and_fresh_ones_in_one_row_say_the_age_of_the_oldest(
    up: Bench, frame_converter: FrameConverter
) -> None:
    ago = NOW - 486_000
    old = frame({"account=A1": {ago // MINUTE * MINUTE: 3}}, asked_ms=ago, stale="refused")
    up.say(rts=old, duckdb=frame({"account=A1": {NOW // MINUTE * MINUTE - MINUTE: 2}}), clickhouse=PNL)
    body = panel({"target": "equity"}, {"target": "pnl"}, by=["account"], format="pivot")
    found = await shown_table(up, frame_converter, body | {"range": {"from": str(NOW - 20 * MINUTE), "to": str(NOW)}})
    assert (found["equity"], found["pnl"], found["status"]) == ([2], [-1.5], ["stale"])
    assert found["age_s"][0] >= 486
    assert "rts: STALE, 8min old" in found["reason"][0]


async def test_a_quantity_that_others_have_is_missed_by_name(up: Bench) -> None:
    up.say(duckdb=EMPTY, clickhouse=frame({"account=A1": {OPEN: -1.5}, "account=A9": {OPEN: 2}}))
    rows = {row["account"]: row for row in await rows_of(up, "equity,pnl", shape="pivot")}
    assert marks_of(rows["A9"]) == ("partial", 0.0, "equity: no value of now")
    assert marks_of(rows["A1"]) == ("fresh", 0.0, "")


async def test_a_metric_without_an_answer_is_an_empty_column_and_every_row_says_why(up: Bench) -> None:
    up.say(clickhouse=DOWN, duckdb=DOWN)
    rows = await rows_of(up, "equity,pnl", shape="pivot")
    assert [(row["account"], row["equity"], row["pnl"], row["status"]) for row in rows] == [
        ("A1", 3.0, None, "error"),
        ("A2", 30.0, None, "error"),
    ]
    assert all(row["reason"].startswith("pnl: clickhouse: refused; equity: ") for row in rows)


async def test_a_table_without_any_row_has_one_that_says_so(up: Bench, frame_converter: FrameConverter) -> None:
    up.say(rts=EMPTY, duckdb=EMPTY, clickhouse=DOWN)
    found = await shown_table(up, frame_converter, panel({"target": "equity"}, {"target": "pnl"}, by=["account"], format="pivot"))
    assert (found["account"], found["equity"], found["status"]) == ([None], [None], ["partial"])
    assert "clickhouse: refused" in found["reason"][0]
    assert "equity: no data in this window" in found["reason"][0]


async def test_a_target_that_cannot_be_read_is_a_column_of_the_table_too(up: Bench, frame_converter: FrameConverter) -> None:
    body = panel({"target": "equty"}, {"target": "equity"}, by=["account"], format="pivot")
    found = await shown_table(up, frame_converter, body)
    assert (found["equity"], found["equty"]) == ([3, 30, 7], [None, None, None])
    assert set(found["status"]) == {"error"}
    assert all("nearest: equity" in reason for reason in found["reason"])


async def test_the_rows_of_the_table_of_now_are_ordered_and_cut_by_the_first_metric(up: Bench) -> None:
    reply = await up.client.get("/v1/rows", params={**ASKED, "metric": "equity,pnl", "shape": "pivot", "top": "2"})
    facts = reply.json()["meta"]["metrics"]["equity"]
    assert [row["account"] for row in reply.json()["rows"]] == ["A2", "A3"]
    assert (facts["series"], facts["series_total"]) == (2, 3)
    assert facts["notices"][0]["text"] == "equity: the top 2 of 3 rows by the last value; 1 is not shown"


async def test_the_target_that_asks_for_an_order_decides_on_it(up: Bench, frame_converter: FrameConverter) -> None:
    up.say(clickhouse=frame({"account=A1": {OPEN: 1}, "account=A2": {OPEN: -2}, "account=A3": {OPEN: 3}}))
    worst = {"target": "pnl", "payload": {"sort": "value"}}
    found = await shown_table(up, frame_converter, panel({"target": "equity"}, worst, by=["account"], format="pivot"))
    assert found["account"] == ["A2", "A1", "A3"]


async def test_an_order_by_a_metric_that_has_failed_is_said_to_be_unsure(up: Bench) -> None:
    up.say(clickhouse=DOWN, duckdb=DOWN)
    reply = await up.client.get("/v1/rows", params={**ASKED, "metric": "pnl,equity", "shape": "pivot", "sort": "value"})
    texts = [notice["text"] for notice in reply.json()["meta"]["metrics"]["equity"]["notices"]]
    assert "pnl decides on the order of the rows, and it is not complete: the order may be wrong" in texts


async def test_a_thousand_accounts_come_in_pages_that_hold_every_row_once(up: Bench) -> None:
    up.say(rts=frame({f"account=A{number:04}": {OPEN: number % 7} for number in range(1000)}), duckdb=EMPTY, clickhouse=EMPTY)
    asked = {**ASKED, "metric": "equity", "shape": "pivot", "sort": "-value"}
    whole = (await up.client.get("/v1/rows", params=asked)).json()["rows"]
    paged, cursor = [], ""
    while True:
        page = (await up.client.get("/v1/rows", params={**asked, "limit": "300"} | ({"cursor": cursor} if cursor else {}))).json()
        paged += page["rows"]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert len(whole) == 1000
    assert paged == whole


async def test_the_state_of_many_metrics_is_one_line(up: Bench) -> None:
    up.say(rts=frame({"": {OPEN: 3}}), duckdb=frame({"": {OPEN - MINUTE: 1}}), clickhouse=frame({"": {OPEN: 1}}))
    assert await _summary_of(up, "equity,pnl,cpu_load") == ("fresh", "all 3 metrics are fresh")


async def _summary_of(at: Bench, metric: str) -> tuple[str, str]:
    reply = await at.client.get("/v1/rows", params={"metric": metric, "shape": "summary", "from": "now-5m", "step": "1m"})
    [row] = reply.json()["rows"]
    return row["status"], row["summary"]


async def test_the_line_names_the_worst_first_and_whose_fault_it_is(up: Bench) -> None:
    up.say(rts=EMPTY, clickhouse=DOWN, duckdb=DOWN)
    assert await _summary_of(up, "pnl,cpu_load") == ("error", "1 of 2 metrics without an answer: clickhouse, duckdb")
    up.say(duckdb=frame({"": {OPEN - 2 * MINUTE: 1}}), clickhouse=frame({"": {OPEN: 1}}))
    status, line = await _summary_of(up, "equity,pnl,cpu_load")
    assert (status, line) == ("stale", "1 of 3 metrics older than 10 s: equity, 2 min")


async def test_the_line_is_an_answer_also_where_everything_has_failed(up: Bench, frame_converter: FrameConverter) -> None:
    up.say(clickhouse=DOWN, duckdb=DOWN)
    found = await shown_table(up, frame_converter, panel({"target": "pnl"}, format="summary"))
    assert found == {
        "status": ["error"],
        "age_s": [None],
        "summary": ["1 of 1 metrics without an answer: clickhouse, duckdb"],
    }


async def test_a_frame_of_nothing_has_its_mark_too(up: Bench, frame_converter: FrameConverter) -> None:
    up.say(rts=EMPTY, duckdb=EMPTY)
    [found] = frame_converter.convert(
        (await up.client.get("/v1/frames", params={**ASKED, "metric": "equity", "marks": "1"})).json()
    )
    assert [field["values"] for field in found["fields"]] == [[NOW], [None], ["fresh"], [0], ["no data in this window"]]


async def test_a_table_of_now_compares_the_values_of_now_alone(up: Bench) -> None:
    asked = {**ASKED, "metric": "equity", "shape": "pivot", "sort": "value", "top_by": "max"}
    reply = await up.client.get("/v1/rows", params=asked)
    assert reply.status_code == 400
    assert reply.json()["message"].startswith("top_by: max does not go with shape=pivot")
