"""A Query to the Statements that answer it: the step, the aligned range, the seam between history and live edge, the limits.

The step. An explicit step is kept, raised to a multiple of the metric's resolution; of amounts that add up, to as many steps as
leave no more points than are asked for, since thinning would lose some. Without one it is the first of a ladder that
keeps a series within `max_points`; a sampled quantity is asked up to four times finer than that and thinned afterwards, so that
its extremes survive. Every choice depends on the length of the range and never on its position, so a dashboard that slides along
keeps its grid.

The seam. With `now` the request's instant on the bridge's clock, the open bucket is the one that contains `now`. History is asked
for the buckets before it, the live read from the first bucket that may not have settled (`settle_s`, or the open bucket where the
live read knows only the present). `splice.seam_ms` then draws the line once both are in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.catalog.entries import Catalogue, Event, Metric
from app.errors import BadQuery, LimitExceeded
from app.model import Matcher, Notice, Query, Statement, TimeRange
from app.sources.base import SKEW_LIMIT_S, Ask, Read, accepts

_LADDER_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_DAY_S = 86400
_FINER = 4
_MOMENT_MS = round(SKEW_LIMIT_S * 1000)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for at most."""

    max_range_s: int = 400 * _DAY_S
    max_buckets: int = 11_000
    max_points: int = 1000
    max_targets: int = 50
    max_filters: int = 32
    max_filter_values: int = 500
    max_text: int = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """How one Query is answered. Ranges are aligned; statements that make no sense for the range are None."""

    query: Query
    metric: Metric
    range: TimeRange
    history: Statement | None
    live: Statement | None
    fallback: tuple[Statement, ...]
    #: the start of the bucket that contains now
    open_ms: int
    #: where the live statement begins
    live_from_ms: int
    #: width of the buckets in which a series is thinned, 0 where it fits
    thin_ms: int
    #: until then a question for the same window has this same plan (its statements' instant of asking aside)
    good_to_ms: int
    notices: tuple[Notice, ...] = ()


def plan_query(catalogue: Catalogue, query: Query, now_ms: int, limits: Limits) -> Plan:
    """The plan for one query. Raises BadQuery, UnknownName or LimitExceeded, each naming the field and what is allowed."""
    metric = catalogue.metric(query.metric)
    _check_labels(metric, query, limits)
    _check_range(query, limits)
    step_ms, notices = _step(metric, query, limits)
    thin_ms = _thin(query, step_ms)
    grid_ms = thin_ms or step_ms
    whole = TimeRange(query.from_ms // grid_ms * grid_ms, -(-_ends_ms(metric, query, now_ms) // step_ms) * step_ms, step_ms)
    _check_buckets(whole, limits)
    if thin_ms:
        notices += (_thinned(query, step_ms),)
    return _plan(metric, query, whole, now_ms, thin_ms, notices)


def _plan(metric: Metric, query: Query, whole: TimeRange, now_ms: int, thin_ms: int, notices: tuple[Notice, ...]) -> Plan:
    open_ms = now_ms // whole.step_ms * whole.step_ms
    live_from_ms = _live_from(metric, whole.step_ms, now_ms)
    end_ms = min(whole.to_ms, open_ms + whole.step_ms)
    # A growing figure's open bucket would be a partial number; an alert must not see one.
    if query.strict and metric.accumulates:
        end_ms = min(end_ms, open_ms)

    def statement(read: Read | None, from_ms: int, to_ms: int) -> Statement | None:
        if read is None or from_ms >= to_ms:
            return None
        asked_now = now_ms // 1000 * 1000 if to_ms > open_ms else 0
        found = read.statement(Ask(metric.name, TimeRange(from_ms, to_ms, whole.step_ms), query.by, query.where, asked_now))
        return replace(found, lane="alert" if query.strict else query.lane, scope=query.scope)

    # Of a window that was taken to end later than it says, nobody else's is known to mean the same.
    lengthened = query.to_ms <= open_ms < whole.to_ms
    closed_end_ms = min(end_ms, open_ms) if metric.live else end_ms
    return Plan(
        query=query,
        metric=metric,
        range=TimeRange(whole.from_ms, max(end_ms, whole.from_ms), whole.step_ms),
        history=statement(metric.history, whole.from_ms, closed_end_ms),
        live=statement(metric.live, max(live_from_ms, whole.from_ms), end_ms),
        fallback=tuple(found for read in metric.fallback if (found := statement(read, whole.from_ms, end_ms))),
        open_ms=open_ms,
        live_from_ms=live_from_ms,
        thin_ms=thin_ms,
        good_to_ms=now_ms if lengthened else min(open_ms, live_from_ms + _settling_ms(metric)) + whole.step_ms,
        notices=notices,
    )


def _ends_ms(metric: Metric, query: Query, now_ms: int) -> int:
    """The window's end. One that ends a moment before now means now: the asker's clock, or the way here, is that far off, and the
    live edge would be cut off whenever a bucket has closed in between."""
    meant = metric.live is not None and now_ms - _MOMENT_MS < query.to_ms <= now_ms
    return now_ms + 1 if meant else query.to_ms


def _live_from(metric: Metric, step_ms: int, now_ms: int) -> int:
    return (now_ms - _settling_ms(metric)) // step_ms * step_ms


def _settling_ms(metric: Metric) -> int:
    return metric.entry.settle_s * 1000 if metric.live and metric.live.ranged else 0


def _check_labels(metric: Metric, query: Query, limits: Limits) -> None:
    metric.known(query.by, "by")
    metric.known((matcher.label for matcher in query.where), "where")
    check_filters(query.where, limits)


def check_filters(where: Iterable[Matcher], limits: Limits) -> None:
    """Raise BadQuery or LimitExceeded for filters that are wrong in themselves: a bad expression, too many, too long."""
    where = tuple(where)
    if len(where) > limits.max_filters:
        raise LimitExceeded(f"where: {len(where)} filters; at most {limits.max_filters} are allowed")
    for matcher in where:
        if len(matcher.values) > limits.max_filter_values:
            raise LimitExceeded(
                f"where: {matcher.label}: {len(matcher.values)} values; at most {limits.max_filter_values} are allowed"
            )
        if any(len(value) > limits.max_text for value in matcher.values):
            raise LimitExceeded(f"where: {matcher.label}: a value is over {limits.max_text} characters")
        accepts(matcher)


def _check_range(query: Query, limits: Limits) -> None:
    if query.from_ms >= query.to_ms:
        raise BadQuery(f"from: {query.from_ms} is not before to: {query.to_ms}; allowed: from < to")
    if query.from_ms < 0:
        raise BadQuery(f"from: {query.from_ms} is before 1970; allowed: epoch ms or s, ISO 8601, now-6h")
    if query.to_ms - query.from_ms > limits.max_range_s * 1000:
        days = limits.max_range_s / _DAY_S
        raise LimitExceeded(
            f"from, to: the range is {(query.to_ms - query.from_ms) / 86_400_000:.1f} days; at most {days:g} days"
        )
    if query.max_points < 1:
        raise BadQuery(f"maxDataPoints: {query.max_points} is not allowed; allowed: 1 to {limits.max_points}")


def _step(metric: Metric, query: Query, limits: Limits) -> tuple[int, tuple[Notice, ...]]:
    resolution_s = metric.entry.resolution_s
    if query.step_ms is None:
        return _auto_step_s(metric, query, limits) * 1000, ()
    if query.step_ms < 1:
        raise BadQuery(f"step: {query.step_ms} ms is not allowed; allowed: a duration of 1s or more, or auto")
    if query.step_ms > limits.max_range_s * 1000:
        # Its one bucket would be asked for as a whole.
        raise LimitExceeded(f"step: {query.step_ms / _DAY_S / 1000:.6g} days; at most {limits.max_range_s / _DAY_S:g} days")
    step_ms, why = -(-query.step_ms // (1000 * resolution_s)) * resolution_s * 1000, f"comes every {resolution_s}s"
    if (times := _too_many_times(metric, query, step_ms)) > 1:
        step_ms, why = times * step_ms, f"adds up, so none of its points is left out to stay within {query.max_points}"
    if step_ms == query.step_ms:
        return step_ms, ()
    remark = f"step {query.step_ms / 1000:g}s raised to {step_ms / 1000:g}s: {metric.name} {why}"
    return step_ms, (Notice("info", remark),)


def _too_many_times(metric: Metric, query: Query, step_ms: int) -> int:
    """How many steps have to be one, so that no amount is thinned away: whoever adds the points up must get the whole."""
    if not metric.accumulates or query.strict or query.instant:
        return 1
    return -(-(query.to_ms - query.from_ms) // (step_ms * query.max_points))


def _auto_step_s(metric: Metric, query: Query, limits: Limits) -> int:
    length_s = -(-(query.to_ms - query.from_ms) // 1000)
    wanted = min(query.max_points * (_FINER if metric.sampled and not query.strict else 1), limits.max_buckets // 2)
    resolution_s = metric.entry.resolution_s
    for step_s in _LADDER_S:
        if step_s % resolution_s == 0 and length_s <= step_s * wanted:
            return step_s
    days = -(-length_s // (_DAY_S * wanted))
    return -(-days * _DAY_S // resolution_s) * resolution_s


def _thin(query: Query, step_ms: int) -> int:
    """The width of thinning buckets: two points a bucket and a partial bucket at either end stay within max_points."""
    length_ms = query.to_ms - query.from_ms
    if query.strict or -(-length_ms // step_ms) <= query.max_points:
        return 0
    buckets = max(query.max_points // 2 - 2, 1)
    return -(-length_ms // (buckets * step_ms)) * step_ms


def _thinned(query: Query, step_ms: int) -> Notice:
    text = (
        f"thinned to {query.max_points} points a series: the lowest and highest {step_ms // 1000}s value of each stretch are kept"
    )
    return Notice("info", text)


def _check_buckets(whole: TimeRange, limits: Limits) -> None:
    if len(whole) > limits.max_buckets + 2:
        least_s = -(-(whole.to_ms - whole.from_ms) // (limits.max_buckets * 1000))
        raise LimitExceeded(
            f"step: {whole.step_ms // 1000}s over this range makes {len(whole)} points a series; at most {limits.max_buckets}: "
            f"use a step of {least_s}s or more"
        )


def plan_events(event: Event, from_ms: int, to_ms: int, where: tuple[Matcher, ...], limits: Limits) -> Statement:
    """The statement that reads events in [from_ms, to_ms). Raises as `plan_query` does."""
    _check_range(Query(event.name, from_ms, to_ms), limits)
    check_filters(where, limits)
    whole = TimeRange(from_ms // 1000 * 1000, -(-to_ms // 1000) * 1000, 1000)
    return event.read.statement(Ask(event.name, whole, (), where))
