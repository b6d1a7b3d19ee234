"""Every answer is checked against its question before it is used.

A connection that serves one question after another can mix them up, in any store; so can a shared cache, a file, or a wrong
statement of the catalogue. The check needs the question only: the labels, the range and its grid, the form of a frame. It makes a
few passes over whole columns.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from app.errors import SourceForeign
from app.model import Fetch, Flags, Frame, Statement, TimeRange, Times

_log = logging.getLogger(__name__)

#: The column of an event that says when it ended, epoch ms as text.
_END = "time_end"


class Checked:
    """Innermost. Raises SourceForeign for an answer that does not fit its question, and logs why."""

    def __init__(self, source: str, fetch: Fetch) -> None:
        self._source = source
        self._fetch = fetch

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        frame = await self._fetch(statement)
        problem = misfit(statement, frame)
        if problem is not None:
            _log.warning("%s: %s: an answer is not believed: %s", self._source, statement.metric, problem)
            raise SourceForeign(self._source, f"answered what was not asked: {problem}")
        return frame


def misfit(statement: Statement, frame: Frame) -> str | None:
    """Why this frame cannot be the answer to that question; None where it can."""
    return _shape_problem(frame) or _question_problem(statement, frame)


def _shape_problem(frame: Frame) -> str | None:
    """What is wrong with the frame itself: types and lengths of its columns, begin and end of its series."""
    rows = len(frame.time)
    if frame.time.dtype != np.int64 or frame.value.dtype != np.float64:
        return f"its columns are {frame.time.dtype} and {frame.value.dtype} in place of int64 and float64"
    lengths = {"value": len(frame.value), **{name: len(cells) for name, cells in frame.text.items()}}
    if len(frame.weight):
        lengths["weight"] = len(frame.weight)
    for name, length in lengths.items():
        if length != rows:
            return f"its column {name!r} has {length} rows in place of {rows}"
    offsets = frame.offsets
    if len(offsets) != len(frame.series) + 1 or offsets[0] != 0 or offsets[-1] != rows:
        return f"its {len(frame.series)} series do not share out its {rows} rows"
    if any(first >= last for first, last in pairwise(offsets)):
        return "one of its series has no rows"
    return None


def _question_problem(statement: Statement, frame: Frame) -> str | None:
    """What does not fit the question: other labels, or times outside its range or grid."""
    if not len(frame):
        return None
    if frame.text:
        return _events_problem(statement.range, frame)
    return _labels_problem(statement.labels, frame) or _times_problem(statement.range, frame)


def _labels_problem(asked: Sequence[str], frame: Frame) -> str | None:
    names = tuple(sorted(asked))
    for labels in frame.series:
        found = tuple(name for name, _ in labels)
        if found != names:
            return f"a series has the labels {', '.join(found) or 'none'} in place of {', '.join(names) or 'none'}"
    if any(former >= latter for former, latter in pairwise(frame.series)):
        return "its series are not sorted, or one is there twice"
    return None


def _times_problem(span: TimeRange, frame: Frame) -> str | None:
    times = frame.time
    ascends = times[1:] > times[:-1]
    # From one series to the next they need not ascend.
    ascends[np.array(frame.offsets[1:-1], dtype=np.intp) - 1] = True
    if not ascends.all():
        return "the times of a series do not ascend, or one is there twice"
    # A range that begins inside a bucket has that bucket's start for its first time.
    begins_ms = span.bucket_ms(span.from_ms)
    for farthest in (int(times.min()), int(times.max())):
        if not begins_ms <= farthest < span.to_ms:
            return f"the time {farthest} is not in the asked range, {begins_ms} <= time < {span.to_ms}"
    between = _first_wrong(times, off_grid(span, times))
    if between is not None:
        return f"the time {between} is the start of no bucket; they are {span.step_ms} ms wide and one starts at {begins_ms}"
    return None


def off_grid(span: TimeRange, times: Times) -> Flags:
    """Which times are not the start of a bucket of this range."""
    since = times - span.origin_ms
    # Many times faster than the remainder.
    off: Flags = since // span.step_ms * span.step_ms != since
    return off


def _first_wrong(times: Times, wrong: Flags) -> int | None:
    return int(times[wrong.argmax()]) if wrong.any() else None


def _events_problem(span: TimeRange, frame: Frame) -> str | None:
    """Events are one run in order of time, inside the range; one that lasts into the range may begin before it."""
    if frame.series != ((),):
        return "events came with labels"
    if (frame.time[1:] < frame.time[:-1]).any():
        return "the times of the events do not ascend"
    outside = (frame.time < span.from_ms) | (frame.time >= span.to_ms)
    for row in np.flatnonzero(outside).tolist():
        if frame.time[row] >= span.to_ms or not _reaches_into(frame, row, span.from_ms):
            return f"the time {frame.time[row]} of an event is not in the asked range, {span.from_ms} <= time < {span.to_ms}"
    return None


def _reaches_into(frame: Frame, row: int, from_ms: int) -> bool:
    end = frame.text.get(_END, (None,) * len(frame))[row]
    return end is not None and end.lstrip("-").isdigit() and int(end) >= from_ms
