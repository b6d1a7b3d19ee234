"""What Grafana 11.5.1 with the JSON and the Infinity plugin really sent, one test for each request, replayed.

The requests are those of the seven dashboards, an editor, Explore and the alert rules. Each is answered as well as then, and what
a panel gets goes through Grafana's own converter.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from app.contracts.values import instant_ms
from tests.contracts.answering import Answering, answering_bridge
from tests.servers.grafana import FrameConverter

#: when the recording began; a request without an absolute time is asked then
BEGAN_MS = 1_795_883_334_881


@dataclass(frozen=True)
class Recorded:
    """One request, and the status that it got. A 503 is from when the stores were down."""

    number: int
    method: str
    url: str
    headers: dict[str, str]
    body: str
    status: int

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body) if self.body else {}
        return found

    @property
    def asked_ms(self) -> int:
        """When it was asked: a moment after its window's end."""
        ends = self.content.get("range", {}).get("to") or parse_qs(urlsplit(self.url).query).get("to", ["now"])[0]
        return instant_ms(ends, "to", BEGAN_MS, BEGAN_MS) + 50


RECORDED = [
    Recorded(number, **json.loads(line))
    for number, line in enumerate(Path(__file__).with_name("recorded-grafana-11.5.jsonl").read_text("utf-8").splitlines())
]


def name_of(recorded: Recorded) -> str:
    targets = [str(target.get("target")) for target in recorded.content.get("targets", ())]
    return f"{recorded.number}-{recorded.path}-{' '.join(targets)[:60]}"


@pytest_asyncio.fixture
async def replayed() -> AsyncIterator[Answering]:
    made = answering_bridge()
    async with made.service.app.router.lifespan_context(made.service.app), made.client:
        yield made


def test_all_of_them_are_here() -> None:
    assert len(RECORDED) == 118
    assert {one.path for one in RECORDED} == {
        "/alert/v1/rows",
        "/json/metric-payload-options",
        "/json/metrics",
        "/json/query",
        "/json/tag-values",
        "/json/variable",
        "/v1/frames",
        "/v1/rows",
    }


@pytest.mark.parametrize("recorded", RECORDED, ids=name_of)
async def test_a_recorded_request_is_answered_well(
    replayed: Answering, frame_converter: FrameConverter, recorded: Recorded
) -> None:
    replayed.set_scene(recorded.asked_ms, down=recorded.status == 503)
    reply = await replayed.client.request(recorded.method, recorded.url, headers=recorded.headers, content=recorded.body or None)
    assert reply.status_code == recorded.status, reply.text[:500]
    answer = reply.json()
    if recorded.status != 200:
        assert answer["message"] == answer["error"]["message"]
    elif recorded.path == "/json/query":
        assert_panel_is_drawn(recorded, answer, frame_converter.convert(answer))
    elif recorded.path.endswith("/rows"):
        assert_rows_are_read(recorded, answer)
    elif recorded.path == "/v1/frames":
        assert all(frame["length"] for frame in frame_converter.convert(answer))
    else:
        assert_choices_are_offered(recorded, answer)


def assert_panel_is_drawn(recorded: Recorded, answer: list[dict[str, Any]], frames: list[dict[str, Any]]) -> None:
    """Each target has its frames, with rows, in order of time, and nothing is said to be wrong."""
    shown = [target for target in recorded.content["targets"] if not target.get("hide")]
    assert {frame["refId"] for frame in frames} == {target["refId"] for target in shown}
    notices = [notice for frame in frames for notice in (frame["meta"] or {}).get("notices", ())]
    assert not [notice["text"] for notice in notices if notice["severity"] != "info"]
    for frame in frames:
        types = [field["type"] for field in frame["fields"]]
        assert types[0] == "time"
        assert frame["length"] or any("filter" in notice["text"] or "no series" in notice["text"] for notice in notices)
        times = frame["fields"][0]["values"]
        assert all(one <= other for one, other in pairwise(times))
        if "number" in types:
            values = frame["fields"][types.index("number")]["values"]
            assert all(value is None or isinstance(value, int | float) for value in values)
    if shown and shown[0]["refId"] == "Anno":
        assert [field["name"] for field in frames[0]["fields"]][:4] == ["time", "timeEnd", "title", "text"]
    assert len(answer) == len(frames)


def assert_rows_are_read(recorded: Recorded, answer: dict[str, Any]) -> None:
    """Rows with equal keys; a rule gets the label of each row, a panel the rows of each metric."""
    query = parse_qs(urlsplit(recorded.url).query)
    metrics = query["metric"][0].split(",")
    assert set(answer) == {"rows", "meta", "next_cursor"}
    assert list(answer["meta"]["metrics"]) == metrics
    assert {row["metric"] for row in answer["rows"]} == set(metrics)
    assert len({tuple(row) for row in answer["rows"]}) == 1
    for label in query.get("by", [""])[0].split(","):
        assert not label or all(row[label] for row in answer["rows"])
    if "marks" in query:
        assert {row["status"] for row in answer["rows"]} == {"fresh"}


def assert_choices_are_offered(recorded: Recorded, answer: list[dict[str, Any]]) -> None:
    """Variables, metrics, options and filters have values, in the form that the plugin reads."""
    keys = {
        "/json/variable": {"__text", "__value"},
        "/json/metrics": {"value", "label", "payloads"},
        "/json/metric-payload-options": {"label", "value"},
        "/json/tag-values": {"text"},
    }
    assert answer
    assert all(set(one) == keys[recorded.path] for one in answer)
