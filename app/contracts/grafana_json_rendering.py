"""Results as the JSON plugin reads them: datapoints, frames, tables; events as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from app.bridge import Bridge
from app.contracts.rendering import (
    all_notices,
    event_rows,
    frame_elements,
    json_text,
    legend,
    notice_objects,
    pairs,
    title_and_unit,
    window_text,
)
from app.contracts.table import json_arrays, long_table
from app.errors import BridgeError
from app.model import Frame, Labels, Notice, Query, Result


@dataclass(frozen=True, slots=True)
class Target:
    """One line of a panel: the queries (or the kind of event) behind it, and the form it wants."""

    ref_id: str
    name: str
    queries: tuple[Query, ...] = ()
    format: str = "datapoints"
    event: Query | None = None
    remarks: tuple[Notice, ...] = ()
    error: BridgeError | None = None


def render(bridge: Bridge, target: Target, results: Sequence[Result], several: bool) -> Iterator[bytes]:
    """The elements of one target as JSON, each made when it is its turn."""
    marked = [replace(result, frame=result.frame.remark(*target.remarks)) for result in results] if target.remarks else results
    if target.event is not None:
        yield from map(json_text, map(_event_table, marked))
    elif target.format == "table":
        yield json_text(_table(bridge, target, marked))
    elif target.format == "frame":
        for result in marked:
            yield from frame_elements(bridge.catalogue, result, several)
    else:
        for result in marked:
            yield from _datapoints(bridge, result, several)


def _datapoints(bridge: Bridge, result: Result, several: bool) -> Iterator[bytes]:
    title, unit = title_and_unit(bridge.catalogue, result.query.metric)
    meta: dict[str, Any] = {"executedQueryString": window_text(result), "custom": {"status": result.status}}
    first = meta | {"notices": notices} if (notices := notice_objects(all_notices(result))) else meta

    def element(labels: Labels, points: bytes, told: Mapping[str, Any]) -> bytes:
        described = {
            "target": result.query.metric,
            "refId": result.query.ref_id,
            "title": legend(title, labels, several),
            "tags": dict(labels),
            "unit": unit,
            "meta": told,
        }
        return b'%b,"datapoints":%b}' % (json_text(described)[:-1], points)

    frame = result.frame if result.error is None else Frame()
    if not frame.series:
        yield element((), b"[]", first)
    for place, (labels, points) in enumerate(zip(frame.series, pairs(frame), strict=True)):
        yield element(labels, points, meta if place else first)


def _table(bridge: Bridge, target: Target, results: Sequence[Result]) -> dict[str, Any]:
    """One table: time, metric where there are several, the labels, value."""
    by = target.queries[0].by if target.queries else ()
    units = {title_and_unit(bridge.catalogue, result.query.metric)[1] for result in results}
    unit = {"unit": units.pop()} if len(units) == 1 else {}  # else no cell is shown in another one's
    rows = orjson.Fragment(b"".join(json_arrays(long_table(results, by))))
    columns = [
        {"text": "time", "type": "time"},
        *({"text": name, "type": "string"} for name in ("metric", *by)),
        {"text": "value", "type": "number", **unit},
    ]
    notices = [notice for result in results for notice in notice_objects(all_notices(result))]
    meta = {"notices": notices} if notices else {}
    return {"type": "table", "refId": target.ref_id, "columns": columns, "rows": rows, "meta": meta}


def _event_table(result: Result) -> dict[str, Any]:
    names = ("time", "timeEnd", "title", "text", "tags", "id")
    columns = [{"text": name, "type": "time" if name.startswith("time") else "string"} for name in names]
    rows = [[row[name] for name in names] for row in event_rows(result)] if result.error is None else []
    notices = notice_objects(all_notices(result))
    meta = {"notices": notices} if notices else {}
    return {"type": "table", "refId": result.query.ref_id, "columns": columns, "rows": rows, "meta": meta}
