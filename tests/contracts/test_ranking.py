"""`sort`, `top` and `top_by` at every contract: one order, the same counts, and pages that hold together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.app_under_test import EMPTY, MINUTE, OPEN, Bench, bench
from tests.frames import frame

#: the values of now, and one account without any
NOW_OF = {"A1": 3.0, "A2": 30.0, "A3": None, "A4": 3.0, "A5": -7.0}
LIVE = frame({f"account={name}": {OPEN: value} for name, value in NOW_OF.items()})
#: A5 had the highest value a minute ago
HISTORY = frame({"account=A1": {OPEN - MINUTE: 1}, "account=A5": {OPEN - MINUTE: 99}})
ASKED = {"metric": "equity", "by": "account", "from": "now-3m", "step": "1m"}


def fill(at: Bench) -> Bench:
    at.say(rts=LIVE, duckdb=HISTORY)
    return at


async def accounts_of(at: Bench, route: str = "/v1/rows", **more: str) -> list[str]:
    reply = await at.client.get(route, params={**ASKED, "instant": "true", **more})
    assert reply.status_code == 200, reply.text
    return [row["account"] for row in reply.json()["rows"]]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, ["A1", "A2", "A3", "A4", "A5"]),
        ({"sort": "value"}, ["A5", "A1", "A4", "A2", "A3"]),
        ({"sort": "-value"}, ["A2", "A1", "A4", "A5", "A3"]),
        ({"sort": "label"}, ["A1", "A2", "A3", "A4", "A5"]),
        ({"top": "2"}, ["A2", "A1"]),
        ({"top": "2", "sort": "value"}, ["A5", "A1"]),
        ({"top": "2", "top_by": "max"}, ["A5", "A2"]),
        ({"top": "50"}, ["A2", "A1", "A4", "A5", "A3"]),
    ],
)
async def test_the_newest_values_come_in_the_asked_order(at: Bench, asked: dict[str, str], wanted: list[str]) -> None:
    assert await accounts_of(fill(at), **asked) == wanted


async def test_a_top_tells_how_many_there_are_and_a_notice_what_is_left_out(at: Bench) -> None:
    reply = await fill(at).client.get("/v1/rows", params={**ASKED, "top": "2"})
    facts = reply.json()["meta"]["metrics"]["equity"]
    assert (facts["series"], facts["series_total"], facts["status"]) == (2, 5, "fresh")
    assert [one["text"] for one in facts["notices"]] == ["equity: the top 2 of 5 series by the last value; 3 are not shown"]
    assert {row["account"] for row in reply.json()["rows"]} == {"A1", "A2"}


async def test_rows_of_a_range_stay_ordered_by_time_and_the_series_of_one_time_are_in_order(at: Bench) -> None:
    reply = await fill(at).client.get("/v1/rows", params={**ASKED, "sort": "value"})
    found = [(row["time"], row["account"]) for row in reply.json()["rows"]]
    assert found == [
        *[(OPEN - MINUTE, name) for name in ("A5", "A1")],
        *[(OPEN, name) for name in ("A5", "A1", "A4", "A2", "A3")],
    ]


async def test_columns_of_the_wide_shape_and_series_of_frames_are_in_order(at: Bench) -> None:
    reply = await fill(at).client.get("/v1/rows", params={**ASKED, "sort": "-value", "top": "3", "shape": "wide"})
    assert list(reply.json()["rows"][0]) == ["time", "equity_A2", "equity_A1", "equity_A4"]
    frames = (await at.client.get("/v1/frames", params={**ASKED, "sort": "-value", "top": "3"})).json()
    assert [one["schema"]["fields"][1]["labels"]["account"] for one in frames] == ["A2", "A1", "A4"]
    custom = frames[0]["schema"]["meta"]["custom"]
    assert (custom["series"], custom["series_total"]) == (3, 5)


@pytest.mark.parametrize("top", [2, "2"])
@pytest.mark.parametrize("form", ["datapoints", "frame", "table"])
async def test_a_panel_asks_for_it_in_its_payload(at: Bench, form: str, top: Any) -> None:
    payload = {"by": ["account"], "format": form, "instant": True, "sort": "value", "top": top}
    body = {"targets": [{"refId": "A", "target": "equity", "payload": payload}], "intervalMs": MINUTE}
    found = (await fill(at).client.post("/json/query", json=body)).json()
    notices = found[0].get("meta", found[0].get("schema", {}).get("meta"))["notices"]
    assert notices[0]["text"] == "equity: the lowest 2 of 5 series by the last value; 3 are not shown"
    assert _accounts(found, form) == ["A5", "A1"]


def _accounts(elements: list[dict[str, Any]], form: str) -> list[str]:
    if form == "table":
        return [row[2] for row in elements[0]["rows"]]
    if form == "frame":
        return [one["schema"]["fields"][1]["labels"]["account"] for one in elements]
    return [one["tags"]["account"] for one in elements]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"top": "0"}, "top: '0' is not allowed; allowed: a whole number from 1"),
        ({"top": "many"}, "top: 'many' is not allowed"),
        ({"top": "$top"}, "top: '$top' is a variable that was not filled in; allowed: a whole number from 1"),
        ({"top": "${top:csv}"}, "top: '${top:csv}' is a variable that was not filled in"),
        ({"sort": "desc"}, "sort: 'desc' is not allowed; allowed: value, -value, label"),
        ({"top": "3", "top_by": "mean"}, "top_by: 'mean' is not allowed; allowed: last, max, min, sum"),
        ({"top": "2.7"}, "top: '2.7' is not allowed; allowed: a whole number from 1 to 1000000"),
        ({"top": "nan"}, "top: 'nan' is not allowed"),
        ({"top": "true"}, "top: 'true' is not allowed"),
        ({"least": "0.5"}, "least: '0.5' is not allowed"),
        ({"top_by": "max"}, "top_by: max compares values"),
        ({"top_by": "max", "sort": "label"}, "top_by: max compares values"),
    ],
)
async def test_a_wrong_order_is_refused_with_what_is_allowed(at: Bench, asked: dict[str, str], says: str) -> None:
    reply = await at.client.get("/v1/rows", params={**ASKED, **asked})
    assert reply.status_code == 400
    assert reply.json()["message"].startswith(says)


async def test_an_alert_rule_may_sort_but_never_cut(at: Bench) -> None:
    assert await accounts_of(fill(at), "/alert/v1/rows", sort="value") == ["A5", "A1", "A4", "A2", "A3"]
    reply = await at.client.get("/alert/v1/rows", params={**ASKED, "top": "3"})
    assert reply.status_code == 400
    assert "one that leaves the top would count as resolved" in reply.json()["message"]


_worlds = st.dictionaries(st.integers(1, 20).map("A{:02}".format), st.none() | st.integers(-3, 3), min_size=1, max_size=12)


@settings(deadline=None, max_examples=30)
@given(_worlds, st.sampled_from(["value", "-value", "label"]), st.booleans(), st.integers(1, 5))
async def test_pages_of_ordered_rows_hold_every_row_once_and_in_order(
    world: dict[str, float | None], sort: str, instant: bool, limit: int
) -> None:
    made = bench()
    async with made.app.router.lifespan_context(made.app), made.client:
        made.say(rts=frame({f"account={name}": {OPEN: value} for name, value in world.items()}), duckdb=EMPTY)
        asked = {**ASKED, "sort": sort, "instant": str(instant)}
        whole = (await made.client.get("/v1/rows", params=asked)).json()["rows"]
        paged: list[dict[str, Any]] = []
        page = {"next_cursor": ""}
        while not paged or page["next_cursor"]:
            more = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
            page = (await made.client.get("/v1/rows", params={**asked, "limit": str(limit), **more})).json()
            paged += page["rows"]
        assert paged == whole


async def test_two_tops_never_share_a_response_and_share_the_answer_of_the_store() -> None:
    made = bench(fresh_s=60)
    async with made.app.router.lifespan_context(made.app), made.client:
        fill(made)
        found = [await accounts_of(made, top=top) for top in ("1", "2", "1", "3")]
        assert found == [["A2"], ["A2", "A1"], ["A2"], ["A2", "A1", "A4"]]
        assert set(made.askings().values()) == {1}
