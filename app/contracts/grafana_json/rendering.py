"""Results as the JSON plugin reads them: datapoints, frames, tables; events as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from app.errors import BridgeError
from app.model import UNRANKED, Frame, Labels, Notice, Query, Ranking, Result, Times, Values
from app.query.bridge import Bridge
from app.query.ranking import ranking_remarks
from app.responses.encoding import json_arrays
from app.responses.event_groups import grouped_events
from app.responses.frames import frame_elements
from app.responses.pivot import column_names, pivot_table
from app.responses.series import (
    EVENT_COLUMNS,
    all_notices,
    begins_early,
    event_rows,
    json_pairs,
    json_text,
    notice_objects,
    series_counts,
    series_legend,
    title_and_unit,
    window_text,
)
from app.responses.summary import summary_table
from app.responses.table import Coded, Column, Table, long_table, without_time
from app.responses.tile_names import tile_name

#: The forms in which a target's data can be asked for; the first is the default. Targets with one of the last two make one table.
FORMATS = ("datapoints", "frame", "table", "pivot", "summary")
JOINED_FORMATS = ("pivot", "summary")
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
    #: whether rows and frames say their status, age and reason
    marks: bool = False
    #: the order of the rows of a pivot
    ranking: Ranking = UNRANKED

    @property
    def has_ages(self) -> bool:
        """Whether the answer contains ages, so that each response differs."""
        return self.marks or self.format == "frame" or self.format in JOINED_FORMATS or self.legend == "state"

    @property
    def by(self) -> tuple[str, ...]:
        """The labels that its rows keep."""
        return self.queries[0].by if self.queries else ()


#: a target and its results
Answered = tuple[Target, Sequence[Result]]


def render_panel(bridge: Bridge, answered: Sequence[Answered]) -> Iterator[bytes]:
    """The elements of all targets as JSON, made one by one. A table of several targets is in the place of the first."""
    several = len({result.query.metric for _, results in answered for result in results}) > 1
    marked = [(target, _with_remarks(results, target.remarks)) for target, results in answered]
    tables = _group_tables(marked)
    for target, results in marked:
        if target.format not in JOINED_FORMATS:
            yield from _render_target(bridge, target, results, several)
        elif together := tables.pop(id(target), None):
            yield json_text(_joined_table(bridge, together))


def _group_tables(marked: Sequence[Answered]) -> dict[int, list[Answered]]:
    """The targets that make one table, by the id of the first. A target that could not be read belongs to the first table."""
    groups: dict[tuple[str, tuple[str, ...]], list[Answered]] = {}
    joined = [one for one in marked if one[0].format in JOINED_FORMATS]
    for target, results in sorted(joined, key=lambda one: one[0].error is not None):
        key = (target.format, target.by if target.format == "pivot" else ())
        if target.error is not None:
            key = next((known for known in groups if known[0] == target.format), key)
        groups.setdefault(key, []).append((target, results))
    return {id(together[0][0]): together for together in groups.values()}


def _with_remarks(results: Sequence[Result], remarks: tuple[Notice, ...]) -> Sequence[Result]:
    return [replace(result, frame=result.frame.remark(*remarks)) for result in results] if remarks else results


def _render_target(bridge: Bridge, target: Target, results: Sequence[Result], several: bool) -> Iterator[bytes]:
    if target.event is not None:
        yield from (json_text(_event_table(result, target.most)) for result in results)
    elif target.format == "table":
        yield json_text(_metric_table(bridge, target, results))
    elif target.format == "frame":
        for result in results:
            yield from frame_elements(bridge.catalogue, result, several, target.marks)
    else:
        for result in results:
            yield from _datapoint_elements(bridge, result, several, target.legend == "state")


def _datapoint_elements(bridge: Bridge, result: Result, several: bool, says_state: bool) -> Iterator[bytes]:
    title, unit = title_and_unit(bridge.catalogue, result.query.metric)
    meta: dict[str, Any] = {
        "executedQueryString": window_text(result),
        "custom": {"status": result.status, **begins_early(result), **series_counts(result)},
    }
    remarks = _tile_notices(result) if says_state else all_notices(result)
    first = meta | {"notices": notices} if (notices := notice_objects(remarks)) else meta

    def series_element(labels: Labels, points: bytes, meta_part: Mapping[str, Any], name: str) -> bytes:
        described = {
            "target": result.query.metric,
            "refId": result.query.ref_id,
            "title": name,
            "tags": dict(labels),
            "unit": unit,
            "meta": meta_part,
        }
        return b'%b,"datapoints":%b}' % (json_text(described)[:-1], points)

    def name_of(labels: Labels, times: Times, values: Values) -> str:
        return tile_name(result, labels, times, values) if says_state else series_legend(title, labels, several)

    frame = result.frame if result.error is None else Frame()
    if not frame.series:
        yield series_element((), b"[]", first, name_of((), frame.time, frame.value))
    for place, (run, points) in enumerate(zip(frame.runs(), json_pairs(frame), strict=True)):
        yield series_element(run[0], points, meta if place else first, name_of(*run))


def _tile_notices(result: Result) -> Sequence[Notice]:
    """The notices of a tile. If it shows the first of an order, it needs no sign that there are others."""
    query = result.query
    cut = ranking_remarks(query.metric, query.ranking, result.ranked, is_partial=False) if query.ranking.top == 1 else ()
    return [notice for notice in all_notices(result) if notice not in cut]


def _metric_table(bridge: Bridge, target: Target, results: Sequence[Result]) -> dict[str, Any]:
    """One table: time, metric where there are several, the labels, value, and the marks where they are asked for."""
    by = target.queries[0].by if target.queries else ()
    units = {title_and_unit(bridge.catalogue, result.query.metric)[1] for result in results}
    unit = {"unit": units.pop()} if len(units) == 1 else {}  # with several units no cell shows the unit of another
    table = long_table(results, by, target.marks)
    return _table_element(target, table, results, {"value": unit})


def _joined_table(bridge: Bridge, together: Sequence[Answered]) -> dict[str, Any]:
    """The one table of several targets: a pivot with a column for each metric, or the state of all in one line."""
    first = together[0][0]
    results: Sequence[Result] = [result for _, found in together for result in found]
    if first.format == "summary":
        return _table_element(first, without_time(summary_table(results)), results, {})
    ranking, decides = UNRANKED, 0
    for target, found in reversed(together):
        if target.ranking.order is not None:
            ranking, decides = target.ranking, next(place for place, one in enumerate(results) if one is found[0])
    table, results = pivot_table(results, first.by, ranking, decides)
    config = dict(zip(column_names(results), [_column_config(bridge, result) for result in results], strict=True))
    return _table_element(first, without_time(table), results, config)


def _column_config(bridge: Bridge, result: Result) -> dict[str, str]:
    """A metric's column: its unit, and its short title where the panel gives it no other name."""
    metric = bridge.catalogue.metrics.get(bridge.catalogue.aliases.get(result.query.metric, result.query.metric))
    if metric is None:
        return {}
    return {"unit": metric.entry.unit, "displayNameFromDS": metric.entry.short_title}


def _table_element(
    target: Target, table: Table, results: Sequence[Result], config: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """A table as Grafana's converter reads it. `config` has the further properties of a column by its name."""
    columns = [
        {"text": name, "type": _column_type(name, column, table)} | _MARK_CONFIG.get(name, {}) | dict(config.get(name, {}))
        for name, column in table.columns
    ]
    notices = [notice for result in results for notice in notice_objects(all_notices(result))]
    meta: dict[str, Any] = {"notices": notices} if notices else {}
    if counts := [found for result in results if (found := series_counts(result))]:
        meta["custom"] = counts[0]
    rows = orjson.Fragment(b"".join(json_arrays(table)))
    return {"type": "table", "refId": target.ref_id, "columns": columns, "rows": rows, "meta": meta}


_MARK_CONFIG: Mapping[str, dict[str, str]] = {"age_s": {"unit": "s"}}


def _column_type(name: str, column: Column, table: Table) -> str:
    if name in table.instants:
        return "time"
    return "string" if isinstance(column, Coded) else "number"


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


def annotation_objects(result: Result, annotation: Mapping[str, Any], more: Sequence[Notice] = ()) -> list[dict[str, Any]]:
    """Events as annotations of plugin 0.2 and SimpleJSON.

    The list has no other place for remarks. So a warning is an annotation, too, at the instant from which the events are
    complete, and so are `more`.
    """
    rows = [{**row, "tags": row["tags"].split(",") if row["tags"] else []} for row in event_rows(result)]
    warnings = [notice.text for notice in all_notices(result) if notice.severity != "info"] + [notice.text for notice in more]
    at_ms = max(result.range.from_ms, result.query.from_ms)
    remarks = [
        dict(zip(EVENT_COLUMNS, (at_ms, None, "Not all is shown", text, ["bridge"], None), strict=True)) for text in warnings
    ]
    return [{**row, "annotation": annotation} for row in (*remarks, *rows)]
