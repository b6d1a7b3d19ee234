"""Results as Grafana frames: schema and data, one for each series."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from app.catalog import Catalogue
from app.model import Labels, Result, Times, Values
from app.responses.marks import MARK_COLUMNS, Mark, empty_mark, newest_marks
from app.responses.series import (
    all_notices,
    begins_early,
    json_text,
    notice_objects,
    series_counts,
    series_legend,
    title_and_unit,
)

_MARK_TYPES = {"status": "string", "age_s": "number", "reason": "string"}


def frame_elements(catalogue: Catalogue, result: Result, several: bool, marks: bool = False) -> Iterator[bytes]:
    """One Grafana frame per series as JSON; one without rows if there is nothing to show.

    With `marks` each frame has the fields of a mark, too, and one of nulls stands for nothing to show.
    """
    title, unit = title_and_unit(catalogue, result.query.metric)
    runs = list(result.frame.runs()) if result.error is None else []
    known = newest_marks(result) if marks else {}
    meta = _frame_meta(result)
    notices = notice_objects(all_notices(result))
    for place, (labels, times, values) in enumerate(runs or [_nothing(result, marks)]):
        fields = _value_fields(series_legend(title, labels, several), unit, labels)
        columns: list[Any] = [np.ascontiguousarray(times), np.ascontiguousarray(values)]
        if marks:
            fields += [{"name": name, "type": kind, "config": {}} for name, kind in _MARK_TYPES.items()]
            columns += _mark_cells(known.get(labels) or empty_mark(result), len(times))
        own = meta | {"notices": notices} if notices and not place else meta
        schema = {"refId": result.query.ref_id, "name": result.query.metric, "meta": own, "fields": fields}
        yield json_text({"schema": schema, "data": {"values": columns}})


def _frame_meta(result: Result) -> dict[str, Any]:
    custom = {"status": result.status, "age_s": round(result.age_s, 3), **begins_early(result), **series_counts(result)}
    return {"type": "timeseries-multi", "typeVersion": [0, 1], "custom": custom}


def _value_fields(legend: str, unit: str, labels: Labels) -> list[dict[str, Any]]:
    return [
        {"name": "time", "type": "time", "config": {}},
        {"name": "value", "type": "number", "labels": dict(labels), "config": {"displayNameFromDS": legend, "unit": unit}},
    ]


def _nothing(result: Result, marks: bool) -> tuple[Labels, Times, Values]:
    if not marks:
        return (), np.empty(0, np.int64), np.empty(0)
    return (), np.array([result.query.to_ms], np.int64), np.array([np.nan])


def _mark_cells(mark: Mark, count: int) -> list[list[Any]]:
    """A column for each field of the mark."""
    return [[mark[place]] * count for place in range(len(MARK_COLUMNS))]
