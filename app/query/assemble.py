"""The parts of an answer as one result: joined at the seam, cut to the range, thinned, marked. Pure functions over frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from app.clock import age_text, instant_text
from app.errors import BridgeError, SourceUnavailable
from app.model import NOT_RANKED, PEOPLES_ALL, Frame, Notice, PartName, Present, Ranked, Result, SourceReport, Status, Times
from app.query.ages import grow_ages
from app.query.parts import SourceAnswer
from app.query.plan import Plan
from app.query.ranking import rank_series, ranking_remarks
from app.query.zeros import NO_BUCKETS, fill_newest_zero, fill_zeros, is_too_much, zero_buckets
from app.series import clip, last, merge, newest, null_below, seam_ms, splice, thin

#: how many steps, or resolutions of the metric, back a value still counts as an alert's "now" without a live read
_NOW_STEPS, _NOW_RESOLUTIONS = 2, 6
#: ages are rounded to whole milliseconds
_ROUNDING_MS = 1
#: how far a store may be behind without a remark, unless a metric's `settle_s` is longer
USUAL_LAG_MS = 300_000
#: how many filters and values a remark names, and how many characters of each
_FILTERS_NAMED, _VALUES_NAMED, _LONGEST_NAMED = 3, 3, 60


def assemble_result(
    plan: Plan, parts: Sequence[SourceAnswer], now_ms: int, done_ms: int | None = None, begins_ms: int | None = None
) -> Result:
    """The parts as one result. An error when there is nothing to show.

    `now_ms` is the request's instant, `done_ms` the answer's: a part may have aged. The history has data from `begins_ms` on.
    """
    done_ms = now_ms if done_ms is None else done_ms
    parts = [_mark_aged(part, done_ms) for part in parts]
    asked = tuple(part.asked for part in parts)
    at_ms = _present_ms(plan, now_ms, done_ms)
    frames = {part.asked.part: _as_of(plan, part, part.frame, now_ms, at_ms) for part in parts if part.frame is not None}
    failures = [part.asked.error for part in parts if part.asked.error is not None and not _is_unneeded(part, frames)]
    if failures and (plan.query.strict or not frames):
        return _failed(plan, failures[0], asked)
    frame, remarks = _join_parts(plan, frames, now_ms)
    frame = null_below(frame, max(plan.metric.entry.least, plan.query.least))
    stale = stale_remarks(parts, done_ms)
    missing = failure_remarks(plan, parts, frame)
    cut_short = any(found.partial for found in frames.values())
    if plan.query.strict and (remarks or stale or cut_short):
        return _failed(plan, _incomplete(plan, (*remarks, *stale, *frame.notices)), asked)
    status: Status = "partial" if failures or remarks or cut_short else "stale" if stale else "fresh"
    empty = zero_buckets(plan, parts, frame, begins_ms, now_ms) if plan.metric.entry.zeros else NO_BUCKETS
    shown, ranked = _shown_series(plan, frame, bool(stale), now_ms, empty)
    known = clip(frame, plan.range.from_ms, plan.range.to_ms) if len(empty) else shown
    unmatched = () if failures or cut_short else unmatched_remarks(plan, known)
    if ranked is not NOT_RANKED:
        missing += ranking_remarks(plan.metric.name, plan.query.ranking, ranked, status == "partial")
    return Result(
        plan.query,
        shown.remark(*plan.notices, *stale, *missing, *remarks, *unmatched),
        status=status,
        range=plan.range,
        asked=asked,
        age_s=max(done_ms - min((found.provenance.asked_ms for found in frames.values()), default=now_ms), 0) / 1000,
        valid_until_ms=_valid_until_ms(plan, frames),
        grid_ms=plan.grid_ms,
        ranked=ranked,
        present=_present_of(plan, frames.get("live"), now_ms, at_ms),
        sampled=plan.metric.sampled,
    )


def _failed(plan: Plan, failure: BridgeError, asked: tuple[SourceReport, ...]) -> Result:
    return Result(plan.query, error=failure, status="error", range=plan.range, asked=asked)


def _incomplete(plan: Plan, said: Sequence[Notice]) -> SourceUnavailable:
    """What an alert rule gets in place of an old or incomplete answer."""
    reason = said[0].text if said else "its source says that the answer is incomplete"
    return SourceUnavailable(plan.metric.name, reason)


def _present_of(plan: Plan, live: Frame | None, now_ms: int, at_ms: int) -> Present:
    """What tells of newest values whether they are of now. A quantity has a value at any time; of what happens now and then the
    newest value is that of the last time, however long ago that was."""
    since_ms = _now_since_ms(plan, now_ms) if plan.metric.sampled else 0
    return Present(at_ms, since_ms, live.written_ms if live is not None else {})


def _present_ms(plan: Plan, now_ms: int, done_ms: int) -> int:
    """The instant that newest values and ages are of. In a window that has passed, that is its end."""
    return done_ms if plan.range.to_ms > now_ms else min(done_ms, plan.query.to_ms)


def _as_of(plan: Plan, part: SourceAnswer, frame: Frame, now_ms: int, at_ms: int) -> Frame:
    """A frame in the metric's own terms; ages as of `at_ms`."""
    own = _as_metric(plan, part, frame, now_ms)
    return grow_ages(plan, part.asked.part, own, at_ms) if plan.metric.is_age else own


def _as_metric(plan: Plan, part: SourceAnswer, frame: Frame, now_ms: int) -> Frame:
    """A frame in the metric's own terms: a live value of the present gets the open bucket's time, and where the read gives an
    amount for each bucket and the metric is a rate, the value is divided by the bucket's seconds."""
    statement = part.statement
    is_present = frame.provenance.stale is None or plan.metric.is_age
    if part.asked.part == "live" and not plan.metric.live_is_ranged and is_present and len(frame):
        # A stale value keeps its own time; an age goes on.
        return replace(frame, time=np.full(len(frame), plan.open_ms, dtype=np.int64))
    if statement is None or statement.read is None or plan.metric.entry.over_time != "rate":
        return frame
    if statement.read.given_parts != "sum":
        return frame
    # The open bucket has lasted until now.
    lasted_ms = np.minimum(plan.range.step_ms, np.maximum(now_ms - frame.time, 1000))
    return replace(frame, value=frame.value * 1000 / lasted_ms)


def _valid_until_ms(plan: Plan, frames: Mapping[PartName, Frame]) -> int | None:
    """Until every part is fresh, the plan is the same, and the history still reaches far enough. An age is new in each answer."""
    if plan.metric.is_age:
        return None
    ends = [frame.provenance.fresh_until_ms for frame in frames.values()]
    known = [end for end in ends if end is not None]
    if not known or len(known) < len(ends):
        return None
    if "live" not in frames:
        # No live edge follows the history: after that it ends too early.
        ends_ms = [frame.covers_to_ms for frame in frames.values() if frame.covers_to_ms is not None]
        known += [end_ms + _allowed_gap_ms(plan) for end_ms in ends_ms if end_ms < plan.range.to_ms]
    return min(plan.valid_until_ms, *known)


def _is_unneeded(part: SourceAnswer, frames: Mapping[PartName, Frame]) -> bool:
    """Whether a fallback failed while an older answer stands in for the main part: then nothing is missing."""
    return part.asked.part == "fallback" and "history" in frames


def _mark_aged(part: SourceAnswer, done_ms: int) -> SourceAnswer:
    """Mark a part that was fresh when it arrived and is no longer."""
    frame = part.frame
    until_ms = frame.provenance.fresh_until_ms if frame is not None else None
    if frame is None or until_ms is None or done_ms <= until_ms + _ROUNDING_MS:
        return part
    reason = "it grew old while the other parts were waited for"
    return SourceAnswer(replace(part.asked, stale=reason), frame.with_provenance(stale=reason))


def _shown_series(plan: Plan, frame: Frame, stale: bool, now_ms: int, empty: Times) -> tuple[Frame, Ranked]:
    """The rows of the range, thinned, or the newest of each series; ordered and cut as asked. A stale answer whose last values
    lie before the range is shown with those values at their own time, because a blank panel would say less."""
    inside = clip(frame, plan.range.from_ms, plan.range.to_ms)
    if stale and not len(inside) and len(frame):
        inside = newest(clip(frame, 0, plan.range.to_ms))
    # Of very many series the few that are shown get their zeros at last. Until then one in each decides on the order.
    is_late = plan.query.ranking.top is not None and is_too_much(inside, empty)
    if len(empty):
        with_zeros = fill_newest_zero if plan.query.instant or is_late else fill_zeros
        inside = with_zeros(inside, empty, plan.query.by)
    shown, ranked = inside, NOT_RANKED
    if plan.query.instant:
        shown = _rows_of_now(plan, frame, now_ms) if plan.query.strict else newest(inside)
    if plan.query.ranking.order is not None:
        shown, ranked = rank_series(shown, inside, plan.query.ranking)
        ranked = replace(ranked, total=max(ranked.total, plan.ranked_of))
    if is_late and not plan.query.instant:
        shown = fill_zeros(shown, empty, plan.query.by)
    return thin(shown, plan.thin_ms) if plan.thin_ms else shown, ranked


def _rows_of_now(plan: Plan, frame: Frame, now_ms: int) -> Frame:
    """Instant values for alert rules. Grafana ignores their timestamps, so a series that ended earlier yields nothing, and one
    whose last point is null yields null, not an older value. The live value of a sampled metric is in the open bucket."""
    return last(clip(frame, _now_since_ms(plan, now_ms), plan.range.to_ms))


def _now_since_ms(plan: Plan, now_ms: int) -> int:
    """From when on a value counts as now."""
    if plan.live is not None and plan.metric.sampled:
        return plan.range.to_ms - plan.range.step_ms
    if plan.metric.entry.over_time not in ("last", "rate"):
        return 0  # what happens now and then may not have happened since: its newest value stays the newest
    back_ms = max(_NOW_STEPS * plan.range.step_ms, _NOW_RESOLUTIONS * plan.metric.entry.resolution_s * 1000)
    return min(now_ms, plan.range.to_ms) - back_ms


def _join_parts(plan: Plan, frames: Mapping[PartName, Frame], now_ms: int) -> tuple[Frame, tuple[Notice, ...]]:
    """The main part (history or its fallback) with the live edge after it, and remarks on what is missing between the two."""
    main, live = frames.get("history", frames.get("fallback")), frames.get("live")
    if main is None:
        return _whole_buckets(plan, live) if live is not None else (Frame(), ())
    if live is None:
        return main, _gap_remarks(plan, main.covers_to_ms, min(now_ms, plan.range.to_ms))
    if plan.metric.joins_inside:
        lost = (*_gap_remarks(plan, main.covers_to_ms, plan.seam_ms), *_seam_remarks(plan, live, now_ms))
        return merge(main, live, plan.seam_ms, plan.range, plan.metric.part_merge), lost
    if not plan.metric.sampled and plan.metric.live_is_ranged:
        return _answered_alone(plan, main, live)
    seam = seam_ms(plan.range.step_ms, plan.seam_ms, plan.open_ms, main.covers_to_ms)
    return splice(main, live, seam), _gap_remarks(plan, main.covers_to_ms, seam)


def later_seam_ms(plan: Plan, parts: Sequence[SourceAnswer]) -> int | None:
    """The seam for a live store that begins later than the planned seam; None where the planned one is right."""
    live = next((part.frame for part in parts if part.asked.part == "live"), None)
    if not plan.metric.joins_inside or plan.history is None or live is None:
        return None
    if live.covers_from_ms is None or live.covers_from_ms <= max(plan.seam_ms, plan.range.from_ms):
        return None
    row_ms = plan.metric.entry.resolution_s * 1000
    return -(-live.covers_from_ms // row_ms) * row_ms


def _seam_remarks(plan: Plan, live: Frame, now_ms: int) -> tuple[Notice, ...]:
    """A remark where the live store begins so late that the history may not be complete up to there yet."""
    begins_ms = max(live.covers_from_ms or 0, plan.seam_ms)
    settled_ms = now_ms - plan.metric.entry.settle_s * 1000
    if begins_ms <= settled_ms and begins_ms == plan.seam_ms:
        return ()
    source = plan.live.source if plan.live is not None else plan.metric.name
    text = (
        f"{plan.metric.name}: {source} has everything from {instant_text(begins_ms)} on; the history is sure up to "
        f"{instant_text(settled_ms)} only, so what lies between may be incomplete"
    )
    return (Notice("warning", text),)


def _answered_alone(plan: Plan, main: Frame, live: Frame) -> tuple[Frame, tuple[Notice, ...]]:
    """A figure without parts: the live read answers for the buckets that it has seen whole, the history for those before."""
    seam = max(plan.seam_ms, _first_whole_ms(plan, live))
    joined = splice(main, live, seam)
    if seam > plan.seam_ms and plan.history is not None:
        until = instant_text(plan.history.range.to_ms)
        text = (
            f"{plan.metric.name}: the bucket of {instant_text(plan.seam_ms)} is answered by {plan.history.source}, until {until}"
        )
        joined = joined.remark(Notice("info", text))
    return joined, _gap_remarks(plan, main.covers_to_ms, plan.seam_ms)


def _whole_buckets(plan: Plan, live: Frame) -> tuple[Frame, tuple[Notice, ...]]:
    """The buckets that a live store alone has seen whole, with a remark on where they begin. If that is none, the last bucket
    stays, with a warning."""
    first_ms = _first_whole_ms(plan, live)
    if live.covers_from_ms is None or first_ms <= plan.range.from_ms:
        return live, ()
    source = plan.live.source if plan.live is not None else plan.metric.name
    text = f"{plan.metric.name}: {source} has everything from {instant_text(live.covers_from_ms)} on; nothing before is shown"
    last_ms = plan.range.to_ms - plan.range.step_ms
    if first_ms > last_ms:
        return clip(live, last_ms, plan.range.to_ms), (Notice("warning", text),)
    return clip(live, first_ms, plan.range.to_ms).remark(Notice("info", text)), ()


def _first_whole_ms(plan: Plan, live: Frame) -> int:
    """The first bucket that the live store has seen whole."""
    if live.covers_from_ms is None:
        return plan.range.from_ms
    bucket_ms = plan.range.bucket_ms(live.covers_from_ms)
    return bucket_ms if bucket_ms == live.covers_from_ms else bucket_ms + plan.range.step_ms


def _gap_remarks(plan: Plan, covers_to_ms: int | None, needed_to_ms: int) -> tuple[Notice, ...]:
    """A remark where the history ends too early."""
    return gap_remarks(plan.metric.name, covers_to_ms, needed_to_ms, _allowed_gap_ms(plan))


def _allowed_gap_ms(plan: Plan) -> int:
    """How far before it is needed the history may end: less than a bucket, and no longer than its rows usually take.

    Beside a live read of ranges the seam is `settle_s` ago already. What a figure over all events lacks before it is missing.
    """
    metric = plan.metric
    if metric.live_is_ranged and not metric.sampled:
        return 0
    return min(plan.range.step_ms, max(USUAL_LAG_MS, metric.entry.settle_s * 1000))


def stale_remarks(parts: Sequence[SourceAnswer], done_ms: int) -> tuple[Notice, ...]:
    """One remark for each part whose answer is stale: how old, as of when, and why."""
    return tuple(
        Notice(
            "warning",
            f"{part.asked.source}: STALE, {age_text(done_ms - known.asked_ms)} old, as of "
            f"{instant_text(known.asked_ms)}: {known.stale}",
        )
        for part in parts
        if part.frame is not None and (known := part.frame.provenance).stale is not None
    )


def gap_remarks(name: str, covers_to_ms: int | None, needed_to_ms: int, allowed_ms: int = USUAL_LAG_MS) -> tuple[Notice, ...]:
    """A remark where a store's data ends so long before it is needed."""
    if covers_to_ms is None or needed_to_ms - covers_to_ms < max(allowed_ms, 1):
        return ()
    missing_s = (needed_to_ms - covers_to_ms) / 1000
    text = f"{name}: the history ends at {instant_text(covers_to_ms)}; the {missing_s:.0f}s after it are incomplete"
    return (Notice("warning", text),)


def unmatched_remarks(plan: Plan, shown: Frame) -> tuple[Notice, ...]:
    """A remark on an empty answer to a question with named values: one of them may be misspelt, or not exist yet."""
    named = [matcher for matcher in plan.query.where if matcher.operator in ("=", "=|")]
    if len(shown) or not named:
        return ()
    filters = " and ".join(f"{matcher.label}={_first_values(matcher.values)}" for matcher in named[:_FILTERS_NAMED])
    hint = _filter_hint([value for matcher in named for value in matcher.values])
    return (Notice("info", f"{plan.metric.name}: no series with {filters} in this range{hint}"),)


def _filter_hint(values: Sequence[str]) -> str:
    if any(value in PEOPLES_ALL for value in values):
        return "; everything is __all, or =~ and an expression"
    if any(value != value.strip() for value in values):
        return "; a value begins or ends with a blank: write %2B for a + in a URL"
    return ""


def _first_values(values: Sequence[str]) -> str:
    first = ", ".join(value[:_LONGEST_NAMED] for value in values[:_VALUES_NAMED])
    return first if len(values) <= _VALUES_NAMED else f"{first} and {len(values) - _VALUES_NAMED} more"


def failure_remarks(plan: Plan, parts: Sequence[SourceAnswer], frame: Frame) -> tuple[Notice, ...]:
    """One remark for each part that failed, with what stands in for it."""
    stand_in = next((part.asked.source for part in parts if part.asked.part == "fallback" and part.frame is not None), None)
    return tuple(Notice("warning", _failure_text(part.asked, stand_in, frame)) for part in parts if part.asked.error is not None)


def _failure_text(asked: SourceReport, stand_in: str | None, frame: Frame) -> str:
    text = str(asked.error)
    if asked.part == "fallback":
        return f"{text}; this fallback is missing too"
    if stand_in is not None:
        return f"{text}; answered by the fallback {stand_in}"
    if asked.part == "live":
        until = f"the newest point is {instant_text(int(frame.time.max()))}" if len(frame) else "nothing is known"
        return f"{text}; the live edge is missing, {until}"
    return f"{text}; the history is missing, only the live edge is shown"
