"""Answers as bytes, for other replicas and for the next life of this one: a JSON head, then the columns as they are in memory."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson

from app.model import Frame, Matcher, Notice, Statement, TimeRange

#: Goes up when the form changes; what another version wrote is not read.
VERSION = 1
_HEAD = struct.Struct("<BI")


def pack(statement: Statement, frame: Frame) -> bytes:
    """The answer together with the question that it answers."""
    head = orjson.dumps(
        {
            "question": question(statement),
            "rows": len(frame),
            "series": frame.series,
            "offsets": frame.offsets,
            "text": frame.text,
            "notices": [(notice.severity, notice.text) for notice in frame.notices],
            "covers": frame.covers_to_ms,
            "asked": frame.asked_ms,
        }
    )
    columns = frame.time.astype("<i8", copy=False).tobytes() + frame.value.astype("<f8", copy=False).tobytes()
    return _HEAD.pack(VERSION, len(head)) + head + columns


def unpack(packed: bytes) -> tuple[Statement, Frame]:
    """What `pack` made. Raises ValueError for anything else."""
    try:
        version, length = _HEAD.unpack_from(packed)
        if version != VERSION:
            raise ValueError(f"written by another version ({version})")
        head = orjson.loads(packed[_HEAD.size : _HEAD.size + length])
        return _statement(head["question"]), _frame(head, packed[_HEAD.size + length :])
    except (struct.error, KeyError, TypeError, IndexError) as problem:
        raise ValueError(f"damaged: {type(problem).__name__}: {problem}") from problem


def question(statement: Statement) -> list[Any]:
    """What makes a question this one and no other, as JSON has it (`Statement.key`, field by field)."""
    source, text, bound, span, labels, where, is_open, scope = statement.key
    return [source, text, bound, _plain(span), labels, [_plain(matcher) for matcher in where], is_open, scope]  # type: ignore[attr-defined]  # Statement.key


def _plain(value: Any) -> list[Any]:
    return [getattr(value, name) for name in value.__slots__]


def _frame(head: dict[str, Any], columns: bytes) -> Frame:
    rows = head["rows"]
    if len(columns) != rows * 16:
        raise ValueError(f"damaged: {len(columns)} bytes of columns for {rows} rows")
    return Frame(
        time=np.frombuffer(columns, "<i8", rows),
        value=np.frombuffer(columns, "<f8", rows, rows * 8),
        series=tuple(tuple((name, value) for name, value in labels) for labels in head["series"]),
        offsets=tuple(head["offsets"]),
        text={name: tuple(cells) for name, cells in head["text"].items()},
        notices=tuple(Notice(severity, text) for severity, text in head["notices"]),
        covers_to_ms=head["covers"],
        asked_ms=head["asked"],
    )


def _statement(found: list[Any]) -> Statement:
    source, text, bound, span, labels, where, is_open, scope = found
    return Statement(
        source=source,
        metric="",
        text=text,
        params=tuple((name, _bound(value)) for name, value in bound),
        range=TimeRange(*span),
        labels=tuple(labels),
        where=tuple(Matcher(label, operator, tuple(values)) for label, operator, values in where),
        now_ms=int(is_open),
        scope=scope,
    )


def _bound(value: Any) -> Any:
    return tuple(_bound(item) for item in value) if isinstance(value, list) else value
