"""Results as the pieces that several contracts send: Grafana frames, facts for `meta`, legends, texts of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from app.catalog import Catalogue
from app.model import Labels, Notice, Result, Times, Values, instant_text

#: up to here a whole number is the same as float and as int
_EXACT = 2.0**53
#: longer grids are not worth their memory
_GRID = 2000


def texts(column: Times | Values) -> list[bytes]:
    """Each number as JSON writes it (NaN is null). One encoding for the whole column."""
    encoded = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)
    return encoded[1:-1].split(b",") if len(column) else []


def pairs(times: Times, values: Values) -> bytes:
    """`[[value, time], ...]` as JSON: NaN is null, an epoch in ms and a whole number are integers.

    A panel's series share their grid, so its times are written once for all of them.
    """
    if not len(times):
        return b"[]"
    whole = np.empty((len(times), 2), np.int64)
    with np.errstate(invalid="ignore"):
        whole[:, 0] = values
    if (whole[:, 0] == values).all() and np.abs(values).max() < _EXACT:
        whole[:, 1] = times
        return orjson.dumps(whole, option=orjson.OPT_SERIALIZE_NUMPY)
    return _template(times) % tuple(texts(values))


def _template(times: Times) -> bytes:
    """The pairs with a `%b` where each value goes."""
    count, first = len(times), int(times[0])
    step_ms = (int(times[-1]) - first) // max(count - 1, 1)
    if 1 < count <= _GRID and (np.diff(times) == step_ms).all():
        return _grid_template(first, step_ms, count)
    return _with_times(times)


@lru_cache(64)
def _grid_template(first_ms: int, step_ms: int, count: int) -> bytes:
    return _with_times(first_ms + step_ms * np.arange(count, dtype=np.int64))


def _with_times(times: Times) -> bytes:
    return b"[[%b,%b]]" % (b"%b", b"],[%b,".join(texts(times)))


def notice_objects(notices: Sequence[Notice]) -> list[dict[str, str]]:
    """Notices as Grafana's `meta.notices`."""
    return [{"severity": notice.severity, "text": notice.text} for notice in notices]


def all_notices(result: Result) -> tuple[Notice, ...]:
    """The result's remarks, its error among them."""
    return (Notice("error", result.error.message),) if result.error is not None else result.frame.notices


def legend(title: str, labels: Labels, several: bool) -> str:
    """What tells a series from its neighbours: its label values; the metric's title where there are none or several metrics."""
    values = " ".join(value or "(none)" for _, value in labels)
    return f"{title} {values}".strip() if several or not values else values


def title_and_unit(catalogue: Catalogue, name: str) -> tuple[str, str]:
    """A metric's title and unit; its bare name where the catalogue has none."""
    metric = catalogue.metrics.get(catalogue.aliases.get(name, name))
    return (metric.entry.title, metric.entry.unit) if metric else (name, "short")


def frame_elements(catalogue: Catalogue, result: Result, several: bool) -> list[dict[str, Any]]:
    """One Grafana frame (schema and data) per series; one without rows where there is nothing to show."""
    title, unit = title_and_unit(catalogue, result.query.metric)
    notices = notice_objects(all_notices(result))
    runs = list(result.frame.runs()) if result.error is None else []
    if not runs:
        return [_frame(result, title, unit, (), np.empty(0, np.int64), np.empty(0), notices, several)]
    return [
        _frame(result, title, unit, labels, times, values, notices if place == 0 else [], several)
        for place, (labels, times, values) in enumerate(runs)
    ]


def _frame(
    result: Result,
    title: str,
    unit: str,
    labels: Labels,
    times: Times,
    values: Values,
    notices: list[dict[str, str]],
    several: bool,
) -> dict[str, Any]:
    custom = {"status": result.status, "age_s": round(result.age_s, 3)}
    meta: dict[str, Any] = {"type": "timeseries-multi", "typeVersion": [0, 1], "custom": custom}
    if notices:
        meta["notices"] = notices
    config = {"displayNameFromDS": legend(title, labels, several), "unit": unit}
    fields = [
        {"name": "time", "type": "time", "config": {}},
        {"name": "value", "type": "number", "labels": dict(labels), "config": config},
    ]
    schema = {"refId": result.query.ref_id, "name": result.query.metric, "meta": meta, "fields": fields}
    return {"schema": schema, "data": {"values": [np.ascontiguousarray(times), np.ascontiguousarray(values)]}}


def facts(catalogue: Catalogue, result: Result) -> dict[str, Any]:
    """What `meta.metrics` says of one metric's answer."""
    title, unit = title_and_unit(catalogue, result.query.metric)
    return {
        "title": title,
        "unit": unit,
        "step_ms": result.range.step_ms,
        "status": result.status,
        "age_s": round(result.age_s, 3),
        "notices": notice_objects(all_notices(result)),
        "sources": [
            {
                "name": asked.source,
                "part": asked.part,
                "ms": round(asked.seconds * 1000, 2),
                "error": asked.error.message if asked.error else None,
                "stale": asked.stale,
                "age_s": round(asked.age_s, 3),
            }
            for asked in result.asked
        ],
    }


def event_rows(result: Result) -> list[dict[str, Any]]:
    """Events as rows: time, timeEnd (ms), title, text, tags (separated by commas), id."""
    text, count = result.frame.text, len(result.frame)

    def column(name: str) -> Sequence[str | None]:
        return text.get(name) or (None,) * count

    ends = [int(float(end)) if end else None for end in column("time_end")]
    cells = zip(result.frame.time.tolist(), ends, *(column(name) for name in ("title", "text", "tags", "id")), strict=True)
    return [dict(zip(("time", "timeEnd", "title", "text", "tags", "id"), row, strict=True)) for row in cells]


def window_text(result: Result) -> str:
    """What was asked, for the query inspector."""
    query, span = result.query, result.range
    by = f" by {', '.join(query.by)}" if query.by else ""
    return f"{query.metric}{by}, {instant_text(span.from_ms)} to {instant_text(span.to_ms)}, step {span.step_ms // 1000}s"
