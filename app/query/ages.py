"""Ages that go on: a metric that tells how old something is grows until the moment of the answer.

A source computes an age when it is asked. The answer may be served later: from the cache, while it is fresh, and as a stand-in
when the store fails. So the time since is added. Where nothing new has happened, an age is never smaller than the true one; what
has happened since cannot be known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from app.model import Frame, PartName, Times, Values
from app.query.plan import Plan
from app.series import clip, concatenate_frames, newest


def grow_ages(plan: Plan, part: PartName, frame: Frame, at_ms: int) -> Frame:
    """The frame of one part of a metric that is an age, as of `at_ms`.

    Values of the past are ages at their own time and stay, unless only the newest value is asked for, which stands for now.
    """
    if not len(frame) or not frame.provenance.asked_ms:
        return frame
    if part == "live":
        # It was computed for the second in which the source was asked.
        asked_ms = frame.provenance.asked_ms // 1000 * 1000
        return replace(frame, value=frame.value + _grown(plan, np.full(len(frame), asked_ms), at_ms))
    if plan.query.instant:
        return _aged(plan, frame, at_ms)
    if frame.provenance.stale is not None and plan.live is None and plan.open_ms < plan.range.to_ms:
        return _with_present(plan, frame, at_ms)
    # The bucket that was open when the source was asked goes on.
    is_open = frame.time + plan.range.step_ms > frame.provenance.asked_ms
    return replace(frame, value=np.where(is_open, _aged(plan, frame, at_ms).value, frame.value))


def _aged(plan: Plan, frame: Frame, at_ms: int) -> Frame:
    """Each value grown since the end of its bucket, at which it was computed, or since the source was asked."""
    computed_ms = np.minimum(frame.time + plan.range.step_ms, max(frame.provenance.asked_ms, int(frame.time.max())))
    return replace(frame, value=frame.value + _grown(plan, computed_ms, at_ms))


def _with_present(plan: Plan, frame: Frame, at_ms: int) -> Frame:
    """A stale history with one more point, now: else the last point of the curve would be taken for the present age."""
    past = clip(frame, 0, plan.open_ms)
    now = _aged(plan, newest(past), at_ms)
    whole = concatenate_frames((past, replace(now, time=np.full(len(now), plan.open_ms, dtype=np.int64))))
    return replace(frame, time=whole.time, value=whole.value, weight=whole.weight, series=whole.series, offsets=whole.offsets)


def _grown(plan: Plan, computed_ms: Times, at_ms: int) -> Values:
    """By how much ages have grown since, in the metric's unit."""
    return np.maximum(at_ms - computed_ms, 0) / 1000 * plan.metric.age_scale
