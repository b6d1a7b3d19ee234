"""Results as the JSON plugin reads them: datapoints, frames, tables; events as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from app.errors import BridgeError
from app.model import Frame, Labels, Notice, Query, Result
from app.query.bridge import Bridge
from app.responses.encoding import json_arrays
from app.responses.event_groups import grouped_events
from app.responses.series import (
    EVENT_COLUMNS,
    all_notices,
    begins_early,
    event_rows,
    frame_elements,
    json_pairs,
    json_text,
    notice_objects,
    series_counts,
    series_legend,
    state_legend,
    title_and_unit,
    window_text,
)
from app.responses.table import long_table

#: The forms in which a target's data can be asked for; the first is the default.
FORMATS = ("datapoints", "frame", "table")
#: What the name of a curve says: its labels, or also the state of its answer, for tiles that show the name below the figure.
LEGENDS = ("labels", "state")


@dataclass(frozen=True, slots=True)
class Target:
    """One target of a panel: its queries (or its query for events), and the form of the answer."""

    ref_id: str
    name: str
    queries: tuple[Query, ...] = ()
    format: str = "datapoints"
    legend: str = "labels"
    #: whether its window begins later than that of the request
    is_narrowed: bool = False
    event: Query | None = None
    #: more events than this are shown in groups
    most: int | None = None
    remarks: tuple[Notice, ...] = ()
    error: BridgeError | None = None


def render(bridge: Bridge, target: Target, results: Sequence[Result], several: bool) -> Iterator[bytes]:
    """The elements of one target as JSON, made one by one."""
    marked = [replace(result, frame=result.frame.remark(*target.remarks)) for result in results] if target.remarks else results
    if target.event is not None:
        yield from (json_text(_event_table(result, target.most)) for result in marked)
    elif target.format == "table":
        yield json_text(_metric_table(bridge, target, marked))
    elif target.format == "frame":
        for result in marked:
            yield from frame_elements(bridge.catalogue, result, several)
    else:
        for result in marked:
            yield from _datapoint_elements(bridge, result, several, target.legend == "state")


def _datapoint_elements(bridge: Bridge, result: Result, several: bool, says_state: bool) -> Iterator[bytes]:
    title, unit = title_and_unit(bridge.catalogue, result.query.metric)
    meta: dict[str, Any] = {
        "executedQueryString": window_text(result),
        "custom": {"status": result.status, **begins_early(result), **series_counts(result)},
    }
    first = meta | {"notices": notices} if (notices := notice_objects(all_notices(result))) else meta

    def series_element(labels: Labels, points: bytes, meta_part: Mapping[str, Any]) -> bytes:
        described = {
            "target": result.query.metric,
            "refId": result.query.ref_id,
            "title": state_legend(result, labels) if says_state else series_legend(title, labels, several),
            "tags": dict(labels),
            "unit": unit,
            "meta": meta_part,
        }
        return b'%b,"datapoints":%b}' % (json_text(described)[:-1], points)

    frame = result.frame if result.error is None else Frame()
    if not frame.series:
        yield series_element((), b"[]", first)
    for place, (labels, points) in enumerate(zip(frame.series, json_pairs(frame), strict=True)):
        yield series_element(labels, points, meta if place else first)


def _metric_table(bridge: Bridge, target: Target, results: Sequence[Result]) -> dict[str, Any]:
    """One table: time, metric where there are several, the labels, value."""
    by = target.queries[0].by if target.queries else ()
    units = {title_and_unit(bridge.catalogue, result.query.metric)[1] for result in results}
    unit = {"unit": units.pop()} if len(units) == 1 else {}  # with several units no cell shows the unit of another
    rows = orjson.Fragment(b"".join(json_arrays(long_table(results, by))))
    columns = [
        {"text": "time", "type": "time"},
        *({"text": name, "type": "string"} for name in ("metric", *by)),
        {"text": "value", "type": "number", **unit},
    ]
    notices = [notice for result in results for notice in notice_objects(all_notices(result))]
    meta = {"notices": notices} if notices else {}
    return {"type": "table", "refId": target.ref_id, "columns": columns, "rows": rows, "meta": meta}


def _event_table(result: Result, most: int | None) -> dict[str, Any]:
    columns = [{"text": name, "type": "time" if name.startswith("time") else "string"} for name in EVENT_COLUMNS]
    events = event_rows(result) if result.error is None else []
    query = result.query
    shown = events if most is None else grouped_events(events, query.from_ms, query.to_ms, most)
    rows = [list(row.values()) for row in shown]
    notices = notice_objects(all_notices(result))
    if len(shown) < len(events):
        notices.append({"severity": "info", "text": f"{query.metric}: {len(events)} events, shown as {len(shown)} groups"})
    meta = {"notices": notices} if notices else {}
    return {"type": "table", "refId": result.query.ref_id, "columns": columns, "rows": rows, "meta": meta}


def annotation_objects(result: Result, annotation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Events as annotations of plugin 0.2 and SimpleJSON.

    The list has no other place for remarks. So a warning is an annotation, too, at the instant from which the events are
    complete.
    """
    rows = [{**row, "tags": row["tags"].split(",") if row["tags"] else []} for row in event_rows(result)]
    warnings = [notice.text for notice in all_notices(result) if notice.severity != "info"]
    at_ms = max(result.range.from_ms, result.query.from_ms)
    remarks = [
        dict(zip(EVENT_COLUMNS, (at_ms, None, "Not all is shown", text, ["bridge"], None), strict=True)) for text in warnings
    ]
    return [{**row, "annotation": annotation} for row in (*remarks, *rows)]
