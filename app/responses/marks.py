"""The marks of an answer as data beside its figures: for clients and transformations that throw notices away.

A mark is a status (fresh, partial, stale, error), an age and a reason. A row has the mark of its result, and what is known of the
row itself: a newest value that is not of now is stale, however fresh its neighbours are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from app.clock import age_text, instant_text
from app.model import Labels, Result, Status
from app.responses.series import all_notices

#: from best to worst
STATUSES: tuple[Status, ...] = ("fresh", "partial", "stale", "error")
#: the columns of a mark, in the order of its fields
MARK_COLUMNS = ("status", "age_s", "reason")
#: a longer reason is cut: the notices have the whole
_LONGEST_REASON = 300


class Mark(NamedTuple):
    """What a row says of its figures. `reason` is empty where all is well, `age_s` None where there are no figures."""

    status: Status
    age_s: float | None
    reason: str


def result_mark(result: Result) -> Mark:
    """The mark of a whole result."""
    if result.error is not None:
        return Mark("error", None, short_reason([result.error.message]))
    texts = [notice.text for notice in all_notices(result) if notice.severity != "info"] if result.status != "fresh" else []
    return Mark(result.status, round(result.age_s, 3), short_reason(texts))


def row_mark(result: Result, whole: Mark, labels: Labels, time_ms: int) -> Mark:
    """The mark of the newest value of a series of an instant query; of any other query `whole`, that of the result."""
    if result.error is not None or not result.query.instant:
        return whole
    present = result.present
    written_ms = present.written_ms.get(labels)
    is_now = time_ms >= present.since_ms
    if is_now and written_ms is None:
        return whole
    age_ms = round(result.age_s * 1000)
    if written_ms is not None:
        age_ms = max(age_ms, present.at_ms - written_ms)
    if is_now:
        return Mark(whole.status, age_ms / 1000, whole.reason)
    if written_ms is None:
        age_ms = max(age_ms, present.at_ms - time_ms)
    text = f"the newest value is of {instant_text(present.at_ms - age_ms)}, {age_text(age_ms)} old"
    reason = short_reason([text, whole.reason] if whole.reason else [text])
    return Mark(worst_status((whole.status, "stale")), age_ms / 1000, reason)


def newest_marks(result: Result) -> dict[Labels, Mark]:
    """The mark of the newest value of each series."""
    if result.error is not None:
        return {}
    whole = result_mark(result)
    return {labels: row_mark(result, whole, labels, int(times[-1])) for labels, times, _ in result.frame.runs()}


def empty_mark(result: Result) -> Mark:
    """The mark of a result without a row: it says at least that there is no data."""
    whole = result_mark(result)
    if whole.reason:
        return whole
    return whole._replace(reason=short_reason([notice.text for notice in all_notices(result)] or ["no data in this window"]))


def worst_status(found: Iterable[Status]) -> Status:
    """The worst of some statuses; fresh where there is none."""
    return max(found, key=STATUSES.index, default="fresh")


def short_reason(texts: Sequence[str]) -> str:
    """Reasons as one text that fits a cell."""
    whole = "; ".join(dict.fromkeys(texts))
    return whole if len(whole) <= _LONGEST_REASON else f"{whole[: _LONGEST_REASON - 3]}..."
