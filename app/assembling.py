"""The parts of an answer as one: joined at the seam, cut to the range, thinned, marked. Pure functions over frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.catalog import Plan
from app.downsample import thin
from app.errors import SourceUnavailable
from app.model import Asked, Frame, Notice, PartName, Result, age_text, instant_text
from app.splice import cut, last, newest, seam_ms, splice

#: up to so many steps, or resolutions of the metric, back a value is an alert's "now" where nobody tells of now
_NOW_STEPS, _NOW_RESOLUTIONS = 2, 6
#: an answer's ages are whole milliseconds
_ROUNDING_MS = 1


@dataclass(frozen=True, slots=True)
class Part:
    """What became of one statement: a frame, or the error in `asked`."""

    asked: Asked
    frame: Frame | None = None


def assemble(plan: Plan, parts: Sequence[Part], now_ms: int, done_ms: int | None = None) -> Result:
    """The parts as one answer: joined at the seam, cut to the range, thinned, marked. An error when there is nothing to show.

    `now_ms` is the request's instant, `done_ms` that of the answer: a part may have aged while another was waited for.
    """
    done_ms = now_ms if done_ms is None else done_ms
    parts = [_aged(part, done_ms) for part in parts]
    asked = tuple(part.asked for part in parts)
    frames = {part.asked.part: part.frame for part in parts if part.frame is not None}
    failures = [part.asked.error for part in parts if part.asked.error is not None and not _unneeded(part, frames)]
    if failures and (plan.query.strict or not frames):
        return Result(plan.query, error=failures[0], status="error", range=plan.range, asked=asked)
    frame, remarks = _joined(plan, frames, now_ms)
    stale = stale_remarks(parts, done_ms)
    missing = _missing(plan, parts, frame)
    cut_short = any(found.partial for found in frames.values())
    if plan.query.strict and (remarks or stale or cut_short):
        reason = (*remarks, *stale, *frame.notices)[0].text
        return Result(
            plan.query, error=SourceUnavailable(plan.metric.name, reason), status="error", range=plan.range, asked=asked
        )
    shown = _shown(plan, frame, bool(stale), now_ms)
    oldest_ms = min((found.asked_ms for found in frames.values()), default=now_ms)
    return Result(
        plan.query,
        shown.remark(*plan.notices, *stale, *missing, *remarks),
        status="partial" if failures or remarks or cut_short else "stale" if stale else "fresh",
        range=plan.range,
        asked=asked,
        age_s=max(done_ms - oldest_ms, 0) / 1000,
        good_to_ms=_good_to_ms(plan, frames),
        grid_ms=plan.thin_ms or plan.range.step_ms,
    )


def _good_to_ms(plan: Plan, frames: Mapping[PartName, Frame]) -> int | None:
    """As long as every part is fresh, the plan is the same, and no history has come to end too early to be whole."""
    ends = [frame.fresh_to_ms for frame in frames.values()]
    known = [end for end in ends if end is not None]
    if not known or len(known) < len(ends):
        return None
    if "live" not in frames:
        # Nothing goes on where the history ends: with the next bucket it is one too short.
        ends_ms = [frame.covers_to_ms for frame in frames.values() if frame.covers_to_ms is not None]
        known += [end_ms + plan.range.step_ms for end_ms in ends_ms if end_ms < plan.range.to_ms]
    return min(plan.good_to_ms, *known)


def _unneeded(part: Part, frames: Mapping[PartName, Frame]) -> bool:
    """A fallback that failed while an older answer stands for the main part: nothing is missing."""
    return part.asked.part == "fallback" and "history" in frames


def _aged(part: Part, done_ms: int) -> Part:
    """A part that was fresh when it was had, and is no more."""
    frame = part.frame
    if frame is None or frame.stale is not None or frame.fresh_to_ms is None or done_ms <= frame.fresh_to_ms + _ROUNDING_MS:
        return part
    reason = "it grew old while the other parts were waited for"
    return Part(replace(part.asked, stale=reason), replace(frame, stale=reason))


def stale_remarks(parts: Sequence[Part], done_ms: int) -> tuple[Notice, ...]:
    """One remark for each part that an older answer stands in for: how old, as of when, and why."""
    return tuple(
        Notice(
            "warning",
            f"{part.asked.source}: STALE, {age_text(done_ms - part.frame.asked_ms)} old, as of "
            f"{instant_text(part.frame.asked_ms)}: {part.frame.stale}",
        )
        for part in parts
        if part.frame is not None and part.frame.stale is not None
    )


def _shown(plan: Plan, frame: Frame, stale: bool, now_ms: int) -> Frame:
    """The rows of the range, thinned, or the newest of each series. Of a stale answer whose last values lie before the range
    they are shown all the same, at their own time: a blank panel would say less."""
    if plan.query.strict and plan.query.instant:
        return _now(plan, frame, now_ms)
    inside = cut(frame, plan.range.from_ms, plan.range.to_ms)
    if stale and not len(inside) and len(frame):
        inside = newest(cut(frame, 0, plan.range.to_ms))
    if plan.thin_ms:
        inside = thin(inside, plan.thin_ms)
    return newest(inside) if plan.query.instant else inside


def _now(plan: Plan, frame: Frame, now_ms: int) -> Frame:
    """An alert's newest values. It compares them without looking at their time: what ended before is no value of now, and where
    the newest is known to have none (no margin is used any more) an older one is not the truth. What Redis tells of now is in the
    open bucket."""
    back_ms = max(_NOW_STEPS * plan.range.step_ms, _NOW_RESOLUTIONS * plan.metric.entry.resolution_s * 1000)
    since_ms = min(now_ms, plan.range.to_ms) - back_ms
    if plan.live is not None and plan.metric.sampled:
        since_ms = plan.range.to_ms - plan.range.step_ms
    return last(cut(frame, since_ms, plan.range.to_ms))


def _joined(plan: Plan, frames: Mapping[PartName, Frame], now_ms: int) -> tuple[Frame, tuple[Notice, ...]]:
    """The main part (history or its fallback) with the live edge after it, and what is missing between the two."""
    main, live = frames.get("history", frames.get("fallback")), frames.get("live")
    if main is None:
        return live if live is not None else Frame(asked_ms=now_ms), ()
    if live is None:
        return main, _gap(plan, main.covers_to_ms, min(now_ms, plan.range.to_ms))
    seam = seam_ms(plan.range.step_ms, plan.live_from_ms, plan.open_ms, main.covers_to_ms)
    return splice(main, live, seam), _gap(plan, main.covers_to_ms, seam)


def _gap(plan: Plan, covers_to_ms: int | None, needed_to_ms: int) -> tuple[Notice, ...]:
    """A remark where the history ends before it is needed to: what lies between is known to be incomplete."""
    if covers_to_ms is None or needed_to_ms - covers_to_ms < plan.range.step_ms:
        return ()
    missing_s = (needed_to_ms - covers_to_ms) / 1000
    text = f"{plan.metric.name}: the history ends at {instant_text(covers_to_ms)}; the {missing_s:.0f}s after it are incomplete"
    return (Notice("warning", text),)


def _missing(plan: Plan, parts: Sequence[Part], frame: Frame) -> tuple[Notice, ...]:
    """One remark for each part that failed, saying what stands in its place."""
    stand_in = next((part.asked.source for part in parts if part.asked.part == "fallback" and part.frame is not None), None)
    return tuple(Notice("warning", _remark(part.asked, stand_in, frame)) for part in parts if part.asked.error is not None)


def _remark(asked: Asked, stand_in: str | None, frame: Frame) -> str:
    text = str(asked.error)
    if asked.part == "fallback":
        return f"{text}; this fallback is missing too"
    if stand_in is not None:
        return f"{text}; answered by the fallback {stand_in}"
    if asked.part == "live":
        until = f"the newest point is {instant_text(int(frame.time.max()))}" if len(frame) else "nothing is known"
        return f"{text}; the live edge is missing, {until}"
    return f"{text}; the history is missing, only the live edge is shown"
