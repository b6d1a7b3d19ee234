"""What a tile asks for: a window of its own (`within`), and the state of the answer as the curve's name (`legend`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.errors import SourceUnavailable
from tests.contracts.app_under_test import EMPTY, MINUTE, NOW, OPEN, Bench, bench
from tests.contracts.test_json_query import ask, body, equity
from tests.frames import frame
from tests.servers.grafana import FrameConverter

DOWN = SourceUnavailable("rts", "connection refused")


async def titles(at: Bench, converter: FrameConverter, sent: Mapping[str, Any]) -> list[str]:
    """The names that Grafana shows below the figures."""
    _, frames = await ask(at, converter, sent)
    return [column["displayName"] for one in frames for column in one["fields"] if column["type"] == "number"]


def total(**payload: Any) -> dict[str, Any]:
    return {"refId": "A", "target": "equity", "payload": {"step": "1m", "legend": "state", **payload}}


async def test_a_fresh_figure_is_named_fresh_and_a_fresh_curve_by_its_labels(at: Bench, frame_converter: FrameConverter) -> None:
    assert await titles(at, frame_converter, body(equity(legend="state"))) == ["A1", "A2"]
    at.say(rts=frame({"": {OPEN: 1}}), duckdb=frame({"": {OPEN - MINUTE: 1}}))
    assert await titles(at, frame_converter, body(total())) == ["fresh"]


async def test_a_figure_that_lacks_a_source_is_named_partial_with_that_source(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(rts=DOWN)
    assert await titles(at, frame_converter, body(equity(legend="state"))) == ["A1, partial: rts", "A2, partial: rts"]


async def test_a_figure_without_rows_is_named_no_data(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(rts=EMPTY, duckdb=EMPTY)
    assert await titles(at, frame_converter, body(total())) == ["no data"]


async def test_a_target_that_failed_beside_one_that_did_not_is_named_error(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(prometheus=SourceUnavailable("prometheus", "connection refused"))
    other = {"refId": "B", "target": "cpu_load", "payload": {"legend": "state"}}
    assert (await titles(at, frame_converter, body(equity(legend="state"), other)))[-1] == "error: prometheus"


async def test_a_target_may_ask_for_the_newest_part_of_the_window_only(at: Bench, frame_converter: FrameConverter) -> None:
    await ask(at, frame_converter, body(equity(within="1m")))
    whole, _ = await ask(at, frame_converter, body(equity()))
    part, _ = await ask(at, frame_converter, body(equity(within="1m")))
    longer, _ = await ask(at, frame_converter, body(equity(within="1h")))
    assert [len(one["datapoints"]) for one in whole] == [3, 2]
    assert [one["datapoints"][0][1] for one in part] == [OPEN - MINUTE, OPEN - MINUTE]
    assert longer == whole
    assert NOW - OPEN < MINUTE


async def test_events_may_be_asked_for_in_the_newest_part_of_the_window_only(at: Bench) -> None:
    event = {"refId": "A", "target": "deploys", "payload": {"within": "1m"}}
    at.say(clickhouse=EMPTY)
    assert (await at.client.post("/json/query", json=body(event))).status_code == 200
    [asked] = at.sources["clickhouse"].asked
    assert asked.range.to_ms - asked.range.from_ms <= MINUTE + 2000


@pytest.mark.parametrize(
    ("payload", "field"),
    [({"within": "soon"}, "payload.within"), ({"within": 0}, "payload.within"), ({"legend": "x"}, "payload.legend")],
)
async def test_a_wrong_option_of_a_tile_is_refused_by_name(at: Bench, payload: dict[str, Any], field: str) -> None:
    reply = await at.client.post("/json/query", json=body(equity(**payload)))
    assert (reply.status_code, field in reply.json()["message"]) == (400, True)


async def test_a_tile_of_the_worst_has_no_sign_that_there_are_others_but_a_panel_has(
    at: Bench, frame_converter: FrameConverter
) -> None:
    worst = {"top": 1, "instant": True}
    _, [tile] = await ask(at, frame_converter, body(equity(legend="state", **worst)))
    _, [panel] = await ask(at, frame_converter, body(equity(**worst)))
    assert "notices" not in tile["meta"]
    assert [notice["text"] for notice in panel["meta"]["notices"]] == [
        "equity: the top 1 of 2 series by the last value; 1 is not shown"
    ]


async def test_a_figure_whose_newest_value_is_not_of_now_says_so_although_all_sources_answer(
    at: Bench, frame_converter: FrameConverter
) -> None:
    at.say(
        rts=frame({"account=A1": {OPEN: 3}}),
        duckdb=frame({"account=A1": {OPEN - MINUTE: 1}, "account=A3": {OPEN - 2 * MINUTE: 7}}),
    )
    for instant in (True, False):
        assert await titles(at, frame_converter, body(equity(legend="state", instant=instant))) == ["A1", "A3, stale, 2min old"]


async def test_a_figure_that_nobody_has_written_anew_is_named_stale_though_every_store_answered(
    at: Bench, frame_converter: FrameConverter
) -> None:
    at.say(rts=EMPTY, duckdb=frame({"account=A1": {OPEN - 2 * MINUTE: 1}}))
    assert await titles(at, frame_converter, body(equity(legend="state"))) == ["A1, stale, 2min old"]


async def test_names_with_ages_are_never_those_of_a_kept_response() -> None:
    made = bench(fresh_s=60)
    async with made.app.router.lifespan_context(made.app), made.client:
        made.say(rts=frame({"account=A1": {OPEN: 1}}), duckdb=EMPTY)
        sizes = []
        for payload in ({"legend": "state"}, {}):
            await made.client.post("/json/query", json=body(equity(**payload)))
            assert made.service.responses is not None
            sizes.append(made.service.responses.size_bytes)
        assert sizes[0] == 0
        assert sizes[1] > 0
