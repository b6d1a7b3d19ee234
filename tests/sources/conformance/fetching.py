"""Asking a source as the bridge does: one read, and a look at each answer before it is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.model import Frame, Labels, Matcher, Operator, Statement, TimeRange
from app.policies.checked import Checked
from app.sources.base import Ask, Read, Source
from tests.sources.conformance.kind import SPAN

Points = dict[int, float | None]


def statement_of(
    read: Read, by: tuple[str, ...] = (), where: tuple[Matcher, ...] = (), span: TimeRange = SPAN, thin_ms: int = 0
) -> Statement:
    """The question that the bridge asks with this read."""
    return replace(read.statement(Ask("amount", span, by, where)), thin_ms=thin_ms)


async def fetch(source: Source, read: Read, *asked: Any, **more: Any) -> Frame:
    """The answer to one question (see `statement_of`), checked."""
    return await Checked(source.name, source.fetch)(statement_of(read, *asked, **more))


def where(label: str, operator: Operator, *values: str) -> tuple[Matcher, ...]:
    """One filter."""
    return (Matcher(label, operator, values),)


def series_of(frame: Frame) -> dict[Labels, Points]:
    """A frame as a plain value: labels -> time -> value; None is null."""
    return {
        labels: {at: None if value != value else value for at, value in zip(times.tolist(), values.tolist(), strict=True)}
        for labels, times, values in frame.runs()
    }


def accounts_of(frame: Frame) -> list[str]:
    """The accounts of a frame that was asked by account."""
    return [dict(labels)["account"] for labels in frame.series]
