"""Answers as bytes, for other replicas and for the next run of this one: a JSON head, then the columns as they are in memory."""

from __future__ import annotations

import struct
from typing import Annotated

import msgspec
import numpy as np

from app.model import Frame, Labels, Matcher, Notice, Provenance, Statement, TimeRange

#: Goes up when the form changes. Bytes of another version are not read.
VERSION = 6
_HEAD = struct.Struct("<BI")

_Scalar = str | bool | int | float | None
_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
_Instant = Annotated[int, msgspec.Meta(ge=-(1 << 62), lt=1 << 62)]


class _Window(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A `TimeRange` whose fields are in bounds."""

    from_ms: _Instant
    to_ms: _Instant
    step_ms: Annotated[int, msgspec.Meta(gt=0, lt=1 << 62)]
    origin_ms: _Count


class _Question(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`Statement.question`, field by field. Lists of bound values are tuples."""

    source: str
    text: str
    params: tuple[tuple[str, _Scalar | tuple[_Scalar, ...]], ...]
    range: _Window
    labels: tuple[str, ...]
    where: tuple[Matcher, ...]
    is_open: bool
    thin_ms: _Count
    thin_to_ms: _Instant


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON before the columns."""

    question: _Question
    rows: _Count
    weighs: bool
    series: tuple[Labels, ...]
    offsets: tuple[_Count, ...]
    text: dict[str, tuple[str | None, ...]]
    notices: tuple[Notice, ...]
    covers_from: _Instant | None
    covers_to: _Instant | None
    behind: _Count
    written: tuple[tuple[Labels, _Instant], ...]
    asked: _Instant


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Head)


def pack(statement: Statement, frame: Frame) -> bytes:
    """An answer and its question as bytes. Raises UnicodeEncodeError for half a surrogate pair, which has no UTF-8."""
    head = _ENCODER.encode(
        _Head(
            question=_question(statement),
            rows=len(frame),
            weighs=bool(len(frame.weight)),
            series=frame.series,
            offsets=frame.offsets,
            text=dict(frame.text),
            notices=frame.notices,
            covers_from=frame.covers_from_ms,
            covers_to=frame.covers_to_ms,
            behind=frame.behind_ms,
            written=tuple(frame.written_ms.items()),
            asked=frame.provenance.asked_ms,
        )
    )
    figures = (frame.value, frame.weight)
    columns = frame.time.astype("<i8", copy=False).tobytes() + b"".join(
        one.astype("<f8", copy=False).tobytes() for one in figures
    )
    return _HEAD.pack(VERSION, len(head)) + head + columns


def unpack(packed: bytes) -> tuple[Statement, Frame]:
    """The question and the answer that `pack` was given. Raises ValueError for anything else.

    Only the form is checked here; `checked.misfit` tells whether the answer fits its question.
    """
    try:
        version, length = _HEAD.unpack_from(packed)
    except struct.error as problem:
        raise ValueError(f"damaged: {problem}") from problem
    if version != VERSION:
        raise ValueError(f"written by another version ({version})")
    columns = memoryview(packed)[_HEAD.size + length :]
    try:
        head = _DECODER.decode(packed[_HEAD.size : _HEAD.size + length])
    except ValueError as problem:
        raise ValueError(f"damaged: {problem}") from problem
    return _statement_from(head.question), _frame_from(head, columns)


def question_bytes(statement: Statement) -> bytes:
    """The question as bytes, equal for equal questions. Raises UnicodeEncodeError as `pack` does."""
    return _ENCODER.encode(_question(statement))


def _question(statement: Statement) -> _Question:
    source, text, bound, span, *rest = statement.question
    return _Question(source, text, bound, _Window(span.from_ms, span.to_ms, span.step_ms, span.origin_ms), *rest)  # type: ignore[arg-type, attr-defined]  # Statement.question


def _frame_from(head: _Head, columns: memoryview) -> Frame:
    rows = head.rows
    if len(columns) != rows * (24 if head.weighs else 16):
        raise ValueError(f"damaged: {len(columns)} bytes of columns for {rows} rows")
    return Frame(
        time=np.frombuffer(columns, "<i8", rows),
        value=np.frombuffer(columns, "<f8", rows, rows * 8),
        weight=np.frombuffer(columns, "<f8", rows if head.weighs else 0, rows * 16 if head.weighs else 0),
        series=head.series,
        offsets=head.offsets,
        text=head.text,
        notices=head.notices,
        covers_to_ms=head.covers_to,
        covers_from_ms=head.covers_from,
        behind_ms=head.behind,
        written_ms=dict(head.written),
        provenance=Provenance(asked_ms=head.asked),
    )


def _statement_from(found: _Question) -> Statement:
    span = found.range
    return Statement(
        source=found.source,
        metric="",
        text=found.text,
        params=found.params,
        range=TimeRange(span.from_ms, span.to_ms, span.step_ms, span.origin_ms),
        labels=found.labels,
        where=found.where,
        now_ms=int(found.is_open),
        thin_ms=found.thin_ms,
        thin_to_ms=found.thin_to_ms,
    )
