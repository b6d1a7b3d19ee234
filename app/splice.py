"""Joining history and live edge into one series. Pure functions over columns.

The rule, written once: **history answers for the buckets before the seam, the live read for those from the seam on.** The seam is
the start of a bucket; a point belongs to the bucket of its own time; so no point can be there twice and none between the two
can be lost, whatever the stores' clocks say:

- a bucket is closed once the bridge's clock is past its end; the bridge's clock alone decides which bucket is open;
- a live read of the present instant answers for the open bucket only: the seam is the open bucket;
- a live read that knows a range takes over where the history is complete no more: at the instant the history says it covers (a
  snapshot's time), else `settle_s` before now, which leaves late rows and skewed clocks that long to arrive;
- rows that a store dates at or after the seam (its clock runs ahead) are left to the live read; rows that arrive later than
  `settle_s` are in the answer from the next asking on, because closed buckets are asked again.
"""

from __future__ import annotations

import numpy as np

from app.model import Frame, Labels, Notice, Times, Values, frame_of_runs


def seam_ms(step_ms: int, live_from_ms: int, open_ms: int, covers_to_ms: int | None) -> int:
    """The first bucket that the live read answers for; never before the live read begins, never after the open bucket."""
    if covers_to_ms is None:
        return live_from_ms
    return min(max(covers_to_ms // step_ms * step_ms, live_from_ms), open_ms)


def cut(frame: Frame, from_ms: int, to_ms: int) -> Frame:
    """The rows with from_ms <= time < to_ms; series without any are left out."""
    inside = (frame.time >= from_ms) & (frame.time < to_ms)
    return frame if inside.all() else frame.select(inside)


def splice(history: Frame, live: Frame, seam: int) -> Frame:
    """History before the seam and live from it on, as one frame; labels that only one side has are kept."""
    before, after = cut(history, 0, seam), live.select(live.time >= seam)
    joined: dict[Labels, list[tuple[Times, Values]]] = {}
    for labels, times, values in (*before.runs(), *after.runs()):
        joined.setdefault(labels, []).append((times, values))
    runs = [
        (labels, np.concatenate([times for times, _ in parts]), np.concatenate([values for _, values in parts]))
        for labels, parts in joined.items()
    ]
    notices: tuple[Notice, ...] = tuple(dict.fromkeys((*history.notices, *live.notices)))
    asked_ms = min(history.asked_ms, live.asked_ms)
    return frame_of_runs(runs, notices=notices, covers_to_ms=history.covers_to_ms, asked_ms=asked_ms)


def last(frame: Frame) -> Frame:
    """The last point of each series, null or not: one row per label set."""
    return frame.at(np.array(frame.offsets[1:], dtype=np.intp) - 1)


def newest(frame: Frame) -> Frame:
    """The last point of each series that is not null (the last point where all are): one row per label set."""
    keep = np.zeros(len(frame), dtype=np.bool_)
    for place in range(len(frame.series)):
        first, last = frame.offsets[place], frame.offsets[place + 1]
        known = np.flatnonzero(~np.isnan(frame.value[first:last]))
        keep[first + known[-1] if len(known) else last - 1] = True
    return frame.select(keep)
