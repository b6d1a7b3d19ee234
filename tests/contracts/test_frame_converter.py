"""The converter itself, so that we know what we test against."""

from __future__ import annotations

from typing import Any

import pytest

from tests.servers.grafana import FrameConverter

POINTS = {"target": "x", "datapoints": [[1, 1000], [None, 2000]]}
FRAME = {
    "schema": {"fields": [{"name": "time", "type": "time"}, {"name": "v", "type": "number"}]},
    "data": {"values": [[1], [2]]},
}
TABLE = {"columns": [{"text": "time", "type": "time"}, {"text": "v", "type": "number"}], "rows": [[1, 2]]}


@pytest.mark.parametrize(
    ("element", "types"),
    [
        (POINTS, ["time", "number"]),
        ({"target": "x", "datapoints": []}, ["time", "number"]),
        (FRAME, ["time", "number"]),
        (TABLE, ["time", "number"]),
        ([{"a": 1, "b": "x"}], ["number", "string"]),
        ({"columns": [{"text": "n", "type": "integer"}], "rows": [["3"]]}, ["number"]),
    ],
)
def test_an_element_becomes_a_frame(frame_converter: FrameConverter, element: Any, types: list[str]) -> None:
    [found] = frame_converter.convert([element])
    assert [field["type"] for field in found["fields"]] == types


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [None],
        [{"x": 1}],
        [{"target": "x", "datapoints": None}],
        [{"columns": [{"name": "no text"}], "rows": []}],
        [{"columns": [{"text": "a"}]}],
        [{"fields": [{"name": "a", "type": "number", "values": [1]}], "length": 1}],
    ],
)
def test_a_wrong_body_is_an_error_in_the_panel(frame_converter: FrameConverter, body: Any) -> None:
    with pytest.raises(AssertionError, match="Grafana shows"):
        frame_converter.convert(body)


def test_units_labels_notices_and_legends_come_through(frame_converter: FrameConverter) -> None:
    notices = [{"severity": "warning", "text": "old"}]
    element = {**POINTS, "refId": "B", "title": "A1", "tags": {"account": "A1"}, "unit": "short", "meta": {"notices": notices}}
    [found] = frame_converter.convert([element])
    value = found["fields"][1]
    assert (found["refId"], found["meta"]["notices"]) == ("B", notices)
    assert (value["labels"], value["unit"], value["displayName"], value["values"]) == (
        {"account": "A1"},
        "short",
        "A1",
        [1, None],
    )
