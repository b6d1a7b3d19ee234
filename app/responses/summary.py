"""The state of many metrics in one line, for the top of a dashboard: the worst first, whose fault it is, and how old."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from app.clock import age_text
from app.model import Result
from app.responses.marks import Mark, newest_marks, result_mark, worst_status
from app.responses.table import Coded, Column, Table

#: what an answer may be old without a word: how long the bridge serves it again by default
_USUAL_AGE_S = 10


def summary_table(results: Sequence[Result]) -> Table:
    """One row: time (the end of the window), status (the worst), age_s (the oldest), summary (the line)."""
    marks = [overall_mark(result) for result in results]
    ages_s = [mark.age_s for mark in marks if mark.age_s is not None]
    each, at_ms = np.arange(1), np.array([results[0].query.to_ms], dtype=np.int64)
    columns: list[tuple[str, Column]] = [("time", at_ms), ("status", Coded(each, [worst_status(mark.status for mark in marks)]))]
    columns += [("age_s", np.array([max(ages_s, default=np.nan)])), ("summary", Coded(each, [summary_line(results, marks)]))]
    return Table(tuple(columns))


def overall_mark(result: Result) -> Mark:
    """The mark of a result, with the worst of its rows."""
    marks = [result_mark(result), *newest_marks(result).values()]
    ages_s = [mark.age_s for mark in marks if mark.age_s is not None]
    return Mark(worst_status(mark.status for mark in marks), max(ages_s, default=None), marks[0].reason)


def summary_line(results: Sequence[Result], marks: Sequence[Mark]) -> str:
    """`3 of 9 metrics older than 10 s: rts, 4 min`; of several kinds the worst first.

    What happens now and then may not have happened: such a metric without a row is fresh, and the line says that it has none.
    """
    parts = list(_parts_of(results, marks)) or [_fresh_text(marks)]
    silent = [result for result, mark in zip(results, marks, strict=True) if _is_empty(result, mark) and not result.sampled]
    return "; ".join([*parts, *([f"nothing in this range: {_names_of(silent)}"] if silent else [])])


def _fresh_text(marks: Sequence[Mark]) -> str:
    """`all 9 metrics are fresh`, and how old the oldest figure is where that is more than usual: some state is written rarely."""
    text = f"all {len(marks)} metrics are fresh" if len(marks) > 1 else "fresh"
    oldest_s = max((mark.age_s for mark in marks if mark.age_s is not None), default=0.0)
    return text if oldest_s <= _USUAL_AGE_S else f"{text}, the oldest figure is {_spaced_age(oldest_s)} old"


def _is_empty(result: Result, mark: Mark) -> bool:
    return mark.status == "fresh" and not len(result.frame)


def _parts_of(results: Sequence[Result], marks: Sequence[Mark]) -> Iterator[str]:
    found = list(zip(results, marks, strict=True))
    total = f"of {len(found)} metrics"
    if failed := [result for result, mark in found if mark.status == "error"]:
        yield f"{len(failed)} {total} without an answer: {_sources_of(failed)}"
    if old := [(result, mark) for result, mark in found if mark.status == "stale"]:
        ages_s = [mark.age_s or 0.0 for _, mark in old]
        how = f"older than {_USUAL_AGE_S} s" if min(ages_s) > _USUAL_AGE_S else "stale"
        yield f"{len(old)} {total} {how}: {_sources_of([result for result, _ in old])}, {_spaced_age(max(ages_s))}"
    if incomplete := [result for result, mark in found if mark.status == "partial"]:
        yield f"{len(incomplete)} {total} incomplete: {_sources_of(incomplete)}"
    if missing := [result for result, mark in found if _is_empty(result, mark) and result.sampled]:
        yield f"{len(missing)} {total} without data: {_names_of(missing)}"


def _sources_of(results: Sequence[Result]) -> str:
    """The sources that failed or whose older answers stand in; where none did, the metrics."""
    sources = sorted({report.source for result in results for report in result.asked if report.error or report.stale is not None})
    return _listed(sources) if sources else _names_of(results)


def _names_of(results: Sequence[Result]) -> str:
    return _listed([result.query.metric for result in results])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _spaced_age(age_s: float) -> str:
    """`4 min`."""
    return re.sub(r"(\d)([a-z])", r"\1 \2", age_text(age_s * 1000))
