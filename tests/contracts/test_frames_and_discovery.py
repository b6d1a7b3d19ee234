"""/v1/frames, /v1/metrics, /v1/values, /v1/events: checklist 71 and 73."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pyarrow.ipc
import pytest

from app.catalog import survey_texts
from app.errors import SourceUnavailable
from app.model import Frame, Statement
from app.query.events import MOST_EVENTS
from app.responses.encoding import TYPES
from tests.contracts.app_under_test import EMPTY, EVENTS, MINUTE, NOW, OPEN, Bench
from tests.servers.grafana import FrameConverter

DOWN = SourceUnavailable("rts", "refused")


def happened(times: Sequence[int]) -> Frame:
    """Events at these times, named by their places."""
    titles = tuple(f"Event {place}" for place in range(len(times)))
    return Frame(np.array(times, np.int64), np.full(len(times), np.nan), ((),), (0, len(times)), {"title": titles})


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


FORMATS = ["json", "csv", "ndjson", "arrow"]


def records(reply: httpx.Response) -> list[dict[str, Any]]:
    """The rows of an answer in any format, as JSON has them."""
    kind = reply.headers["content-type"]
    if "arrow" in kind:
        held = pyarrow.ipc.open_stream(reply.content).read_all()
        for place, name in enumerate(held.column_names[:2]):
            held = held.set_column(place, name, held[name].cast("int64"))
        found: list[dict[str, Any]] = held.to_pylist()
        return found
    if "csv" in kind:
        rows = csv.DictReader(io.StringIO(reply.text))
        return [{name: int(cell) if cell.isdigit() else cell or None for name, cell in row.items()} for row in rows]
    return [json.loads(line) for line in reply.text.splitlines()] if "ndjson" in kind else reply.json()["rows"]


@pytest.mark.parametrize("form", FORMATS)
async def test_events_are_the_same_rows_in_every_format(at: Bench, form: str) -> None:
    at.say(clickhouse=EVENTS)
    reply = await at.client.get(f"/v1/events?name=deploys&from=now-1h&format={form}")
    assert records(reply) == [
        {"time": OPEN - 2 * MINUTE, "timeEnd": OPEN, "title": "Deploy", "text": "v42", "tags": "a,b", "id": None},
        {"time": OPEN - MINUTE, "timeEnd": None, "title": "Rollback", "text": None, "tags": None, "id": None},
    ]


@pytest.mark.parametrize("form", FORMATS)
async def test_no_event_is_an_empty_table_in_every_format(at: Bench, form: str) -> None:
    at.say(clickhouse=EMPTY)
    reply = await at.client.get("/v1/events?name=deploys", headers={"accept": TYPES[form]})
    assert (reply.status_code, reply.headers["content-type"], records(reply)) == (200, TYPES[form], [])


async def test_instants_of_events_are_iso_texts_on_request(at: Bench) -> None:
    at.say(clickhouse=EVENTS)
    reply = await at.client.get("/v1/events?name=deploys&from=now-1h&time=iso&format=csv")
    assert reply.text.splitlines()[1:] == [
        '2023-11-14T22:11:00.000Z,2023-11-14T22:13:00.000Z,Deploy,v42,"a,b",',
        "2023-11-14T22:12:00.000Z,,Rollback,,,",
    ]


async def test_events_are_cut_to_the_window_in_milliseconds(at: Bench) -> None:
    at.say(clickhouse=replace(EVENTS, text={"title": ("Deploy", "Rollback")}))
    begins, ends = OPEN - 2 * MINUTE, OPEN - MINUTE
    windows = [(begins - 250, begins), (begins, begins + 250), (begins + 250, ends), (ends, ends + 1), (ends + 1, ends + 2)]
    found = [records(await at.client.get(f"/v1/events?name=deploys&from={since}&to={until}")) for since, until in windows]
    assert [[row["title"] for row in rows] for rows in found] == [[], ["Deploy"], [], ["Rollback"], []]


async def test_an_event_that_lasts_into_the_window_is_shown_but_to_those_who_count(at: Bench) -> None:
    at.say(clickhouse=EVENTS)
    question = f"/v1/events?name=deploys&from={OPEN - 30_000}&to={OPEN}"
    shown, counted = [records(await at.client.get(question + more)) for more in ("", "&reaching=false")]
    assert ([row["title"] for row in shown], counted) == (["Deploy"], [])


@pytest.mark.parametrize("form", FORMATS)
async def test_pages_of_events_put_together_are_the_whole(at: Bench, form: str) -> None:
    times = (OPEN - 5000, OPEN - 5000, OPEN - 5000, OPEN - 1000, OPEN)
    at.say(clickhouse=happened(times))
    question = f"/v1/events?name=deploys&from=now-1h&format={form}"
    whole, found, more = await at.client.get(question), [], ""
    for page in range(3):
        reply = await at.client.get(f"{question}&limit=2{more}")
        found += records(reply)
        more = f"&cursor={reply.headers.get('bridge-next-cursor')}"
        assert ("bridge-next-cursor" in reply.headers, reply.headers["bridge-total-rows"]) == (page < 2, "5")
    assert found == records(whole)


@pytest.mark.parametrize("form", FORMATS)
async def test_more_events_than_fit_are_partial_in_every_format_and_lead_to_the_earlier_ones(at: Bench, form: str) -> None:
    times = [OPEN - 3_000_000 + 1000 * (place // 2) for place in range(2 * MOST_EVENTS + 100)]

    async def newest(statement: Statement) -> Frame:
        span = statement.range
        return happened([time for time in times if span.from_ms <= time < span.to_ms][-MOST_EVENTS - 1 :])

    at.say(clickhouse=newest)
    question, more = f"/v1/events?name=deploys&from=now-1h&format={form}", ""
    found, statuses = [], []
    for _ in range(3):
        reply = await at.client.get(question + more)
        found.append([row["time"] for row in records(reply)])
        statuses.append(re.findall(r"status=(\w+)", reply.headers["bridge-result"])[0])
        more = f"&cursor={reply.headers.get('bridge-next-cursor')}"
    assert ([time for part in reversed(found) for time in part], statuses) == (times, ["partial", "partial", "fresh"])
    assert "bridge-next-cursor" not in reply.headers


async def test_a_cursor_of_other_events_is_refused(at: Bench) -> None:
    at.say(clickhouse=happened((OPEN - 2, OPEN - 1)))
    cursor = (await at.client.get("/v1/events?name=deploys&limit=1")).json()["next_cursor"]
    reply = await at.client.get(f"/v1/events?name=deploys&where=broker=x&limit=1&cursor={cursor}")
    assert (reply.status_code, reply.json()["message"].split(":")[0]) == (400, "cursor")


async def test_an_older_answer_about_events_is_marked_where_a_format_has_no_place_for_remarks(at: Bench) -> None:
    at.say(clickhouse=EVENTS.with_provenance(stale="refused", asked_ms=NOW - 31_000))
    reply = await at.client.get("/v1/events?name=deploys&from=now-1h&format=csv")
    assert reply.headers["bridge-result"] == '"A";status=stale;age_s=31.0;stale="clickhouse"'
    assert reply.headers["bridge-notice"] == (
        '"clickhouse: STALE, 31s old, as of 2023-11-14 22:12:54Z: refused";severity=warning'
    )


@pytest.mark.parametrize("address", ["rows?metric=equity", "frames?metric=equity", "events?name=deploys", "values?label=account"])
async def test_no_label_can_have_the_name_of_a_parameter_that_a_route_reads(at: Bench, address: str) -> None:
    message = (await at.client.get(f"/v1/{address}&zzzzzz=1")).json()["message"]
    read = message.partition("allowed: ")[2].split(", ")
    labels = [label["name"] for label in (await at.client.get("/v1/metrics")).json()["labels"]]
    parameters = [name for name in read if name not in labels]
    written = "".join(f"  {name}: {{title: x, values: [x]}}\n" for name in parameters)
    found = survey_texts({"a.yaml": f"group: g\ntitle: G\nlabels:\n{written}"}, None)
    refused = {problem.key for problem in found.problems if "is a parameter or column" in problem.message}
    assert refused == {f"labels.{name}" for name in parameters}
    assert len(parameters) >= 6


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
