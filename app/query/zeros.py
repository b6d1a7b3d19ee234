"""Zeros where nothing happened: a count or a total of a bucket without rows, where the stores have seen the whole of the bucket.

A bucket without a row has two meanings: nothing happened, or nobody knows. It is 0 only where the history or the live store
answers for all of it: not before the history's first row, not after its end where it lags behind, not where a store has failed or
an older answer ends, and not in the future. The open bucket is 0 up to now. The series are those that have a row in the window;
without labels there is one in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.model import Frame, Notice, Times, Values
from app.query.parts import SourceAnswer
from app.query.plan import Plan

#: more points are not filled up: an answer of few rows would become one of too many
MOST_POINTS = 200_000


@dataclass(frozen=True, slots=True)
class Span:
    """The instants [from_ms, to_ms), of which a store has seen everything."""

    from_ms: int
    to_ms: int


def zero_buckets(plan: Plan, parts: Sequence[SourceAnswer], frame: Frame, begins_ms: int | None, now_ms: int) -> Times:
    """The starts of the buckets in which a missing row means that nothing happened."""
    span = plan.range
    if not plan.metric.entry.zeros or plan.query.strict or not len(span):
        return np.empty(0, dtype=np.int64)
    spans = _joined(sorted(_known_spans(plan, parts, frame, begins_ms, now_ms), key=lambda one: one.from_ms))
    starts = np.arange(span.from_ms, min(span.to_ms, now_ms), span.step_ms, dtype=np.int64)
    ends = np.minimum(starts + span.step_ms, now_ms)
    known = np.zeros(len(starts), dtype=np.bool_)
    for one in spans:
        known |= (starts >= one.from_ms) & (ends <= one.to_ms)
    return starts[known]


def _known_spans(plan: Plan, parts: Sequence[SourceAnswer], frame: Frame, begins_ms: int | None, now_ms: int) -> Iterator[Span]:
    for part in parts:
        found, statement = part.frame, part.statement
        if found is None or statement is None or found.partial or part.asked.part == "fallback":
            continue
        known = found.provenance
        ends = [statement.range.to_ms] + ([found.covers_to_ms] if found.covers_to_ms is not None else [])
        if known.stale is not None:
            ends.append(known.asked_ms)
        begins = [statement.range.from_ms] + ([found.covers_from_ms] if found.covers_from_ms is not None else [])
        if part.asked.part == "history":
            first_ms = begins_ms if begins_ms is not None else int(frame.time.min()) if len(frame) else None
            if first_ms is None:
                continue
            begins.append(first_ms)
            if plan.metric.live is None:
                # Rows of the last moments may still be on their way.
                ends.append(now_ms - plan.metric.entry.settle_s * 1000)
        yield Span(max(begins), min(ends))


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Spans that meet, as one."""
    found = list[Span]()
    for span in spans:
        if span.from_ms >= span.to_ms:
            continue
        if found and span.from_ms <= found[-1].to_ms:
            found[-1] = Span(found[-1].from_ms, max(found[-1].to_ms, span.to_ms))
        else:
            found.append(span)
    return found


def is_too_much(frame: Frame, buckets: Times) -> bool:
    """Whether the frame would have too many points with zeros."""
    return len(frame.series) * len(buckets) > MOST_POINTS


def fill_zeros(frame: Frame, buckets: Times, by: Sequence[str]) -> Frame:
    """The frame with 0 in each of the buckets in which a series has no row. If that is too much, it stays as it is, and a remark
    says so."""
    series = frame.series if frame.series or by else ((),)
    if not len(buckets) or not series:
        return frame
    if is_too_much(frame, buckets):
        text = f"{len(series)} series of {len(buckets)} buckets: buckets in which nothing happened are left out, not shown as 0"
        return frame.remark(Notice("info", text))
    known = [(times, values) for _, times, values in frame.runs()] or [(Frame().time, Frame().value)]
    filled = [_filled_run(times, values, buckets) for times, values in known]
    return replace(
        frame,
        time=np.concatenate([times for times, _ in filled]),
        value=np.concatenate([values for _, values in filled]),
        weight=Frame().weight,
        series=series,
        offsets=(0, *np.cumsum([len(times) for times, _ in filled]).tolist()),
    )


def _filled_run(times: Times, values: Values, buckets: Times) -> tuple[Times, Values]:
    missing = np.setdiff1d(buckets, times, assume_unique=True)
    every = np.concatenate((times, missing))
    order = np.argsort(every, kind="stable")
    return every[order], np.concatenate((values, np.zeros(len(missing))))[order]
