"""The remarks on an answer: what is old, what is missing and what stands in for it, and filters that nothing matches."""

from __future__ import annotations

from collections.abc import Sequence

from app.clock import age_text, instant_text
from app.model import PEOPLES_ALL, Frame, Notice, SourceReport
from app.query.parts import SourceAnswer
from app.query.plan import Plan

#: how far a store may be behind without a remark, unless a metric's `settle_s` is longer
USUAL_LAG_MS = 300_000
#: how many filters and values a remark names, and how many characters of each
_FILTERS_NAMED, _VALUES_NAMED, _LONGEST_NAMED = 3, 3, 60


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
