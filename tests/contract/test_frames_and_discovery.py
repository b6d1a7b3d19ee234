"""/v1/frames, /v1/metrics, /v1/values, /v1/events: checklist 71 and 73."""

from __future__ import annotations

import pytest

from app.errors import SourceUnavailable
from tests.contract.app_under_test import EMPTY, EVENTS, MINUTE, OPEN, Bench
from tests.servers.grafana import FrameConverter

DOWN = SourceUnavailable("rts", "refused")


async def test_73_frames_carry_the_callers_refid_labels_units_and_legends(at: Bench, frame_converter: FrameConverter) -> None:
    reply = await at.client.get("/v1/frames?metric=equity&by=account&from=now-3m&step=1m&refId=Q")
    frames = frame_converter.convert(reply.json())
    assert [(one["refId"], one["name"], one["fields"][1]["labels"], one["fields"][1]["unit"]) for one in frames] == [
        ("Q", "equity", {"account": "A1"}, "currencyUSD"),
        ("Q", "equity", {"account": "A2"}, "currencyUSD"),
    ]
    assert [one["fields"][1]["displayName"] for one in frames] == ["A1", "A2"]
    assert frames[0]["fields"][0]["values"] == [OPEN - 2 * MINUTE, OPEN - MINUTE, OPEN]
    assert frames[1]["fields"][1]["values"] == [None, 30]


async def test_an_empty_answer_is_a_frame_without_rows(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(rts=EMPTY, duckdb=EMPTY)
    reply = await at.client.get("/v1/frames?metric=equity")
    [found] = frame_converter.convert(reply.json())
    assert (found["length"], [column["type"] for column in found["fields"]]) == (0, ["time", "number"])


async def test_what_is_missing_is_a_notice(at: Bench, frame_converter: FrameConverter) -> None:
    at.say(rts=DOWN)
    reply = await at.client.get("/v1/frames?metric=equity&metric=cpu_load&from=now-3m&step=1m")
    frames = frame_converter.convert(reply.json())
    assert [(one["meta"] or {}).get("notices", [{}])[0].get("severity") for one in frames] == ["warning", None, None]


async def test_a_failing_metric_beside_a_good_one_is_an_empty_frame_with_an_error(
    at: Bench, frame_converter: FrameConverter
) -> None:
    at.say(prometheus=SourceUnavailable("prometheus", "refused"))
    reply = await at.client.get("/v1/frames?metric=equity,cpu_load")
    last = frame_converter.convert(reply.json())[-1]
    assert (last["length"], last["meta"]["notices"]) == (0, [{"severity": "error", "text": "prometheus: refused"}])


async def test_the_catalogue_is_listed(at: Bench) -> None:
    listed = (await at.client.get("/v1/metrics")).json()
    assert listed["metrics"][0] == {
        "name": "equity",
        "group": "trading",
        "title": "Equity",
        "description": "What an account is worth",
        "unit": "currencyUSD",
        "labels": ["account", "broker"],
        "aggregate": "sum",
        "over_time": "last",
        "aliases": ["old_equity"],
        "resolution_s": 10,
        "sources": {"history": "duckdb", "live": "rts", "fallback": []},
    }
    assert [one["name"] for one in listed["events"]] == ["deploys"]


async def test_71_values_are_pairs_and_never_an_empty_list(at: Bench) -> None:
    found = (await at.client.get("/v1/values?label=account&where=broker=x")).json()
    at.say(rts=EMPTY, duckdb=EMPTY)
    none = (await at.client.get("/v1/values?label=account")).json()
    assert found == [{"__text": "A1", "__value": "A1"}, {"__text": "A2", "__value": "A2"}]
    assert none == [{"__text": "(none)", "__value": ""}]


async def test_events_are_rows_with_ms_times(at: Bench) -> None:
    at.say(clickhouse=EVENTS)
    reply = (await at.client.get("/v1/events?name=deploys&from=now-1h")).json()
    assert reply["rows"] == [
        {"time": OPEN - 2 * MINUTE, "timeEnd": OPEN, "title": "Deploy", "text": "v42", "tags": "a,b", "id": None},
        {"time": OPEN - MINUTE, "timeEnd": None, "title": "Rollback", "text": None, "tags": None, "id": None},
    ]


@pytest.mark.parametrize(
    ("path", "status", "parts"),
    [
        ("/v1/values", 400, ("label", "is missing", "allowed: account")),
        ("/v1/values?label=acount", 404, ("'acount'", "nearest: account")),
        ("/v1/events", 400, ("name", "is missing", "allowed: deploys")),
        ("/v1/events?name=deplois", 404, ("name", "'deplois'", "nearest: deploys")),
        ("/v1/events?name=deploys&where=x=1", 400, ("where", "'x'", "allowed: broker")),
        ("/v1/events?name=deploys&form=now", 400, ("'form'", "nearest: from")),
        ("/v1/nonsense", 404, ("/v1/nonsense",)),
    ],
)
async def test_wrong_questions_are_refused_by_name(at: Bench, path: str, status: int, parts: tuple[str, ...]) -> None:
    reply = await at.client.get(path)
    assert reply.status_code == status
    assert [part for part in parts if part not in reply.json()["message"]] == []
