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

from app.model import Frame, Indices, Labels, Notice, Times
from app.query.parts import SourceAnswer
from app.query.plan import Plan

#: more points are not filled up: an answer of few rows would become one of too many
MOST_POINTS = 200_000
NO_BUCKETS: Times = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Span:
    """The instants [from_ms, to_ms), of which a store has seen everything."""

    from_ms: int
    to_ms: int


def zero_buckets(plan: Plan, parts: Sequence[SourceAnswer], frame: Frame, begins_ms: int | None, now_ms: int) -> Times:
    """The starts of the buckets in which a missing row means that nothing happened, for a metric that has zeros."""
    span = plan.range
    if plan.query.strict or not len(span):
        return NO_BUCKETS
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
                # Rows of the last moments may still have been on their way when the store was asked.
                ends.append(min(known.asked_ms, now_ms) - plan.metric.entry.settle_s * 1000)
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
    if is_too_much(frame, buckets):
        size = f"{len(frame.series)} series of {len(buckets)} buckets"
        text = f"{size}: buckets in which nothing happened are left out, not shown as 0"
        return frame.remark(Notice("info", text))
    series = _all_series(frame, by)
    missing = np.ones((len(series), len(buckets)), dtype=np.bool_)
    missing[_filled_buckets(frame, buckets)] = False
    owners, places = np.nonzero(missing)
    return _with_zeros(frame, series, owners, buckets[places])


def fill_newest_zero(frame: Frame, buckets: Times, by: Sequence[str]) -> Frame:
    """The frame with one 0 in each series, in the newest of the buckets in which it has no row.

    That is enough for its newest value, its extremes and its sum, however many series and buckets there are.
    """
    series = _all_series(frame, by)
    owners, places = _filled_buckets(frame, buckets)
    behind = np.cumsum(np.bincount(owners, minlength=len(series)))[owners] - 1 - np.arange(len(owners))
    # Rows without a gap up to the last bucket: each is as far from it as there are rows behind it.
    unbroken = np.bincount(owners[places + behind == len(buckets) - 1], minlength=len(series))
    newest = len(buckets) - 1 - unbroken
    quiet = np.flatnonzero(newest >= 0)
    return _with_zeros(frame, series, quiet, buckets[newest[quiet]])


def _all_series(frame: Frame, by: Sequence[str]) -> tuple[Labels, ...]:
    """The series that have a row; without labels there is one in any case."""
    return frame.series if frame.series or by else ((),)


def _filled_buckets(frame: Frame, buckets: Times) -> tuple[Indices, Indices]:
    """Of each row in one of the buckets the index of its series and of its bucket."""
    owners = np.repeat(np.arange(len(frame.series)), np.diff(frame.offsets))
    if not len(buckets):
        return owners[:0], owners[:0]
    places = np.minimum(np.searchsorted(buckets, frame.time), len(buckets) - 1)
    found = buckets[places] == frame.time
    return owners[found], places[found]


def _with_zeros(frame: Frame, series: tuple[Labels, ...], owners: Indices, times: Times) -> Frame:
    """The frame with a 0 at each of the times, in the series of that index."""
    if not len(times):
        return frame
    known = np.repeat(np.arange(len(frame.series)), np.diff(frame.offsets))
    every, moments = np.concatenate((known, owners)), np.concatenate((frame.time, times))
    order = np.lexsort((moments, every))
    return replace(
        frame,
        time=moments[order],
        value=np.concatenate((frame.value, np.zeros(len(times))))[order],
        weight=Frame().weight,
        series=series,
        offsets=(0, *np.cumsum(np.bincount(every, minlength=len(series))).tolist()),
    )
