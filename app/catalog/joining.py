"""Checks at load time whether the reads of a metric fit each other and the metric: shared buckets, counted answers, ages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.catalog.entries import AGE_UNITS, Metric, OverTime
from app.model import Parts
from app.sources.off import OffRead

#: How the two parts of a bucket must be merged, for each figure over time.
_MERGE_NEEDED: Mapping[OverTime, Parts] = {
    "sum": "sum",
    "rate": "sum",
    "max": "max",
    "avg": "mean",
    "ratio": "mean",
    "quantile": "none",
}


def counting_problems(metric: Metric) -> Iterator[tuple[str, str]]:
    """(key, problem) of a metric that wants a least number of answers and has a read that does not tell how many there are."""
    if metric.entry.least > 1 and not metric.counts_answers:
        yield "least", "is for averages and ratios over time; each SQL read needs `parts: mean`, a live one a mean of events"


def age_problems(metric: Metric) -> Iterator[tuple[str, str]]:
    """(key, problem) of an age in a unit that is none of time."""
    if metric.is_age and not metric.age_scale:
        yield "unit", f"{metric.entry.unit!r} is no unit of an age (`age`, `age_of`); allowed: {', '.join(AGE_UNITS)}"


def joining_problems(metric: Metric) -> Iterator[tuple[str, str]]:
    """(key, problem) of a metric whose history and live read cannot share a bucket.

    A sampled metric cannot fail: its bucket is its newest sample. Nor can a live read that knows only the present.
    """
    history, live = metric.history, metric.live
    if history is None or live is None or metric.sampled or not live.ranged:
        return
    if isinstance(history, OffRead) or isinstance(live, OffRead):
        return
    over_time = metric.entry.over_time
    needed, given = _MERGE_NEEDED[over_time], history.given_parts
    if not history.cuts_buckets and needed != "none":
        yield "history", f"cannot answer for a part of a bucket; `over_time: {over_time}` beside a live read needs that"
    elif history.cuts_buckets and given is None:
        yield "history.parts", f"is missing (how two parts of one bucket become one); `over_time: {over_time}` needs {needed}"
    elif history.cuts_buckets and given != needed:
        yield "history.parts", f"{given!r} does not go with `over_time: {over_time}`; allowed: {needed}"
    elif live.given_parts != needed:
        yield "live", f"gives {live.given_parts!r} for a part of a bucket, the history {needed!r}: they cannot be put together"
