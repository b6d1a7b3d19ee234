"""Parts of responses that several contracts share: Grafana frames, facts for `meta`, legends, texts of numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from app.catalog import Catalogue
from app.clock import instant_text
from app.model import Frame, Indices, Labels, Notice, Result, Times, Values
from app.query.events import ends_ms

#: below this a whole number is the same as float and as int
_EXACT = 2.0**53
#: points that are encoded in one step
_TOGETHER = 5_000
_COMMA = ord(",")
#: what stands between two pairs
_BETWEEN = np.void(b"],[")


def json_text(content: Any) -> bytes:
    """JSON; NaN and infinity become null."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def number_texts(column: Times | Values) -> list[bytes]:
    """Each number as JSON writes it (NaN is null). One encoding for the whole column."""
    encoded = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)
    return encoded[1:-1].split(b",") if len(column) else []


def json_pairs(frame: Frame) -> Iterator[bytes]:
    """`[[value, time], ...]` as JSON for each series: NaN is null, an epoch in ms an integer, so are values where all are whole.

    Series are encoded together, as many as take less than a millisecond.
    """
    first = 0
    while first < len(frame.series):
        last = max(bisect_right(frame.offsets, frame.offsets[first] + _TOGETHER) - 1, first + 1)
        rows = slice(frame.offsets[first], frame.offsets[last])
        ends = np.array(frame.offsets[first + 1 : last + 1]) - rows.start
        yield from _encode_pairs(frame.time[rows], frame.value[rows], ends)
        first = last


def _encode_pairs(times: Times, values: Values, ends: Indices) -> list[bytes]:
    """The pairs of the series that end before these rows.

    The encoder is fastest with one column of all numbers: value, time, value, time. In its text each time ends with two
    characters that are not needed: `.0`, or two zeros that were added for this. So `.0,` becomes `],[` in place.
    """
    with np.errstate(invalid="ignore"):
        whole = (values == np.floor(values)).all() and np.abs(values).max() < _EXACT
    column = np.empty(2 * len(times), np.int64 if whole else np.float64)
    column[0::2], column[1::2] = values, times * 100 if whole else times
    text = bytearray(orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY))
    commas = np.flatnonzero(np.frombuffer(text, np.uint8) == _COMMA)[1::2]
    # A view of every three neighbouring characters as one item.
    np.ndarray(len(text) - 2, "V3", text, strides=(1,))[commas - 2] = _BETWEEN
    closes = np.append(commas, len(text) - 1)[ends - 1]
    opens = np.concatenate(([0], closes[:-1])) + 1
    done = memoryview(text)
    return [b"".join((b"[[", done[begin : end - 2], b"]]")) for begin, end in zip(opens.tolist(), closes.tolist(), strict=True)]


def notice_objects(notices: Sequence[Notice]) -> list[dict[str, str]]:
    """Notices as Grafana's `meta.notices`."""
    return [{"severity": notice.severity, "text": notice.text} for notice in notices]


def all_notices(result: Result) -> tuple[Notice, ...]:
    """The result's notices; for a failed result, its error."""
    return (Notice("error", result.error.message),) if result.error is not None else result.frame.notices


def series_legend(title: str, labels: Labels, several: bool) -> str:
    """The label values of a series, with the metric's title if there are no labels or several metrics."""
    values = " ".join(value or "(none)" for _, value in labels)
    return f"{title} {values}".strip() if several or not values else values


def title_and_unit(catalogue: Catalogue, name: str) -> tuple[str, str]:
    """A metric's title and unit; its name if the catalogue does not have it."""
    metric = catalogue.metrics.get(catalogue.aliases.get(name, name))
    return (metric.entry.title, metric.entry.unit) if metric else (name, "short")


def metric_facts(catalogue: Catalogue, result: Result) -> dict[str, Any]:
    """The entry of one metric in `meta.metrics`."""
    title, unit = title_and_unit(catalogue, result.query.metric)
    return {
        "title": title,
        "unit": unit,
        "step_ms": result.range.step_ms,
        **begins_early(result),
        **series_counts(result),
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


def begins_early(result: Result) -> dict[str, int]:
    """The start of the first bucket if it is before the requested window: the sum of all buckets then covers more than the
    window."""
    early = result.error is None and result.range.from_ms < result.query.from_ms
    return {"covers_from": result.range.from_ms} if early else {}


def series_counts(result: Result) -> dict[str, int]:
    """How many series are shown and how many there are, where `top` was asked for."""
    if result.error is not None or result.query.ranking.top is None:
        return {}
    return {"series": len(result.ranked.keys), "series_total": result.ranked.total}


EVENT_COLUMNS = ("time", "timeEnd", "title", "text", "tags", "id")


def event_rows(result: Result) -> list[dict[str, Any]]:
    """Events as rows: time, timeEnd (ms), title, text, tags (separated by commas), id."""
    text, count = result.frame.text, len(result.frame)

    def column(name: str) -> Sequence[str | None]:
        return text.get(name) or (None,) * count

    ends = [int(end) if np.isfinite(end) else None for end in ends_ms(result.frame)]
    cells = zip(result.frame.time.tolist(), ends, *(column(name) for name in ("title", "text", "tags", "id")), strict=True)
    return [dict(zip(EVENT_COLUMNS, row, strict=True)) for row in cells]


def window_text(result: Result) -> str:
    """The query in words, for the query inspector."""
    query, span = result.query, result.range
    by = f" by {', '.join(query.by)}" if query.by else ""
    return f"{query.metric}{by}, {instant_text(span.from_ms)} to {instant_text(span.to_ms)}, step {span.step_ms // 1000}s"
