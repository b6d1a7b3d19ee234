"""A Query to the Statements that answer it: the step, the aligned range, the seam between history and live edge, the limits.

The step. An explicit step is kept, raised to a multiple of the metric's resolution. For amounts that add up it is raised until
the points are no more than asked for, because thinning would lose some. Without an explicit step it is the first of a ladder that
keeps a series within `max_points`; a sampled quantity is fetched as finely as possible and thinned afterwards, so that its
extremes survive. Every choice depends on the length of the range and never on its position, so a dashboard that slides along
keeps its grid. `step=range` is one bucket of exactly the asked window.

The seam. `now` is the request's instant on the bridge's clock, and the open bucket is the one that contains it. The history is
asked up to the seam, `settle_s` before now, and the live read from it on; `series` says which side answers for what.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.catalog.entries import Catalogue, Event, Metric
from app.errors import BadQuery, LimitExceeded
from app.model import SOURCES_TIMES, Matcher, Notice, Query, Statement, TimeRange
from app.query.limits import DAY_S, Limits, check_filters, check_labels, check_least, check_range
from app.sources.base import SKEW_LIMIT_S, Ask, Read

_LADDER_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
#: buckets of a series for a store that thins it itself
_THINNED_BUCKETS = 20_000
#: a stretch of thinning may reach before the window if it is narrower than the window divided by this
_NARROW = 20
#: width of one stretch that holds everything
_ALL_MS = 10**14
#: buckets for each point, where only the newest value of a series counts
_FEW = 4
#: seams lie on a grid this fine, so that all questions of a minute are equal
_SEAM_S = 60
_MOMENT_MS = round(SKEW_LIMIT_S * 1000)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one Query is answered. Ranges are aligned; a statement that the range does not need is None."""

    query: Query
    metric: Metric
    range: TimeRange
    history: Statement | None
    live: Statement | None
    fallback: tuple[Statement, ...]
    #: the start of the bucket that contains now
    open_ms: int
    #: history answers for what happened before, the live read for what happened from then on (see `series`)
    seam_ms: int
    #: the live read over the whole range, for when nothing else answers
    live_alone: Statement | None
    #: width of the stretches in which a series is thinned, 0 for none
    thin_ms: int
    #: the range begins on a multiple of this
    grid_ms: int
    #: until then the same window has the same plan, apart from the instant of asking in its statements
    valid_until_ms: int
    notices: tuple[Notice, ...] = ()
    #: asks from when on the history has data at all; None where nobody needs to know
    begins: Statement | None = None


def plan_query(catalogue: Catalogue, query: Query, now_ms: int, limits: Limits, seam_ms: int | None = None) -> Plan:
    """The plan for one query. `seam_ms` moves the seam, for a live store that begins later than the usual one.

    Raises BadQuery, UnknownName or LimitExceeded, each naming the field and what is allowed.
    """
    metric = catalogue.metric(query.metric)
    check_labels(metric, query, limits)
    check_range(query, limits)
    check_least(metric, query)
    grid = _exact_grid(metric, query) if query.exact else _aligned_grid(metric, query, now_ms, limits)
    return _plan_on_grid(metric, query, grid, now_ms, seam_ms)


@dataclass(frozen=True, slots=True)
class _Grid:
    """The buckets that a window touches, the multiple that it begins on, the width of thinning (0 for none), and remarks."""

    range: TimeRange
    begins_on_ms: int
    thin_ms: int = 0
    notices: tuple[Notice, ...] = ()


def _aligned_grid(metric: Metric, query: Query, now_ms: int, limits: Limits) -> _Grid:
    step_ms, notices = _choose_step(metric, query, limits)
    thin_ms = _thin_width_ms(query, step_ms)
    # A whole stretch is thinned alike on every refresh. Wide ones are not aligned: they would reach too far back.
    begins_on_ms = thin_ms if 0 < thin_ms * _NARROW < query.to_ms - query.from_ms else step_ms
    from_ms = query.from_ms // begins_on_ms * begins_on_ms
    to_ms = -(-_ends_ms(metric, query, now_ms) // step_ms) * step_ms
    if thin_ms:
        notices += (_thinned_remark(query, step_ms),)
    return _Grid(TimeRange(from_ms, to_ms, step_ms), begins_on_ms, thin_ms, notices)


def _exact_grid(metric: Metric, query: Query) -> _Grid:
    """The window itself as one bucket. A metric with rows of a minute is asked for whole minutes."""
    row_ms = metric.entry.resolution_s * 1000 if metric.entry.resolution_s > 1 and not metric.sampled else 1
    from_ms, to_ms = query.from_ms // row_ms * row_ms, -(-query.to_ms // row_ms) * row_ms
    return _Grid(TimeRange(from_ms, to_ms, to_ms - from_ms, from_ms), row_ms)


def _plan_on_grid(metric: Metric, query: Query, grid: _Grid, now_ms: int, moved_seam_ms: int | None) -> Plan:
    whole = grid.range
    open_ms = _open_ms(query, whole, now_ms)
    grid_ms = _seam_grid_ms(metric, whole)
    seam_ms = (now_ms - _settling_ms(metric)) // grid_ms * grid_ms if moved_seam_ms is None else moved_seam_ms
    end_ms = _end_ms(metric, query, whole, open_ms)
    past = metric.history if metric.live is not None else None
    spans = _split_spans(metric, whole, seam_ms, open_ms, end_ms, _minute_after(metric, now_ms))
    cache = metric.entry.cache.times() if metric.entry.cache is not None else SOURCES_TIMES

    def statement(read: Read | None, from_ms: int, to_ms: int, thin_ms: int = 0) -> Statement | None:
        from_ms = max(from_ms, whole.from_ms)
        if read is None or from_ms >= to_ms:
            return None
        asked_now = now_ms // 1000 * 1000 if to_ms == end_ms > open_ms and read is not past else 0
        asked = Ask(metric.name, replace(whole, from_ms=from_ms, to_ms=to_ms), query.by, query.where, asked_now)
        lane = "alert" if query.strict else query.lane
        thinned = (thin_ms, min(_thin_to_ms(metric, whole, now_ms), to_ms)) if thin_ms and read.thins else (0, 0)
        return replace(read.statement(asked), lane=lane, thin_ms=thinned[0], thin_to_ms=thinned[1], cache=cache)

    # We extended this window to now (`_ends_ms`). Another request for the same window may not be extended, so the response must
    # not be reused.
    lengthened = query.to_ms <= open_ms < whole.to_ms
    return Plan(
        query=query,
        metric=metric,
        range=replace(whole, to_ms=max(end_ms, whole.from_ms)),
        history=statement(metric.history, whole.from_ms, spans.history_to_ms, _store_thin_ms(metric, query, grid.thin_ms)),
        live=_of_this_minute(metric, whole, statement(metric.live, spans.live_from_ms, end_ms), now_ms),
        fallback=tuple(found for read in metric.fallback if (found := statement(read, whole.from_ms, end_ms))),
        open_ms=open_ms,
        seam_ms=seam_ms if metric.joins_inside else spans.live_from_ms,
        live_alone=statement(metric.live, whole.from_ms, end_ms) if metric.history and metric.live_is_ranged else None,
        thin_ms=grid.thin_ms,
        grid_ms=grid.begins_on_ms,
        valid_until_ms=now_ms
        if lengthened or query.exact
        else _valid_until_ms(metric, whole, open_ms, seam_ms + grid_ms, now_ms),
        notices=grid.notices,
        begins=None if query.strict else metric.begins_statement(),
    )


def _of_this_minute(metric: Metric, whole: TimeRange, live: Statement | None, now_ms: int) -> Statement | None:
    """A read of the present has no buckets, so all statements of one minute are made equal, however fine their steps are. The
    assembly dates the answer with the open bucket."""
    minute_ms = _SEAM_S * 1000
    if live is None or metric.live_is_ranged or not live.now_ms or whole.exact or whole.step_ms >= minute_ms:
        return live
    from_ms = now_ms // minute_ms * minute_ms
    return replace(live, range=TimeRange(from_ms, from_ms + minute_ms, minute_ms))


def _thin_to_ms(metric: Metric, whole: TimeRange, now_ms: int) -> int:
    """Up to when the store may thin the history: before any row that the live edge may replace.

    A picked row that is then replaced would have taken the place of a row that stays. The instant changes once a minute, so all
    statements of one minute are equal.
    """
    if metric.live is None:
        return whole.to_ms
    minute_ms, grid_ms = _SEAM_S * 1000, _seam_grid_ms(metric, whole)
    # No seam of this minute is before the one of its start, so they must be computed alike.
    return whole.bucket_ms((now_ms // minute_ms * minute_ms - _settling_ms(metric)) // grid_ms * grid_ms)


def _minute_after(metric: Metric, now_ms: int) -> int:
    """The end of the minute (of whole rows) that contains now."""
    minute_ms = -(-_SEAM_S // metric.entry.resolution_s) * metric.entry.resolution_s * 1000
    return now_ms // minute_ms * minute_ms + minute_ms


@dataclass(frozen=True, slots=True)
class _Spans:
    """Where the history's range ends, and where the live read's begins."""

    history_to_ms: int
    live_from_ms: int


def _split_spans(metric: Metric, whole: TimeRange, seam_ms: int, open_ms: int, end_ms: int, minute_ms: int) -> _Spans:
    """The ranges of both sides; where they overlap, `series.splice` chooses.

    The history of a sampled figure reaches to the end of this minute: in the open bucket it stands in for a live edge that fails,
    and all statements of one minute are equal.
    """
    cuts = metric.history is not None and metric.history.cuts_buckets
    if metric.live is None:
        return _Spans(end_ms, end_ms)
    if metric.joins_inside:
        return _Spans(min(seam_ms, end_ms), seam_ms)
    live_from_ms = min(whole.bucket_ms(seam_ms), open_ms) if metric.live_is_ranged else open_ms
    if metric.sampled:
        # If the open bucket is the whole range, the live edge answers alone; an exact window may be of any length.
        reaches_now = cuts and end_ms > open_ms and (whole.from_ms < open_ms or whole.exact)
        return _Spans(minute_ms if reaches_now else min(open_ms, end_ms), live_from_ms)
    return _Spans(min(seam_ms if cuts else live_from_ms, end_ms), live_from_ms)


def _open_ms(query: Query, whole: TimeRange, now_ms: int) -> int:
    """The start of the open bucket; an exact window that has passed has none."""
    if not query.exact:
        return whole.bucket_ms(now_ms)
    return whole.from_ms if now_ms - _MOMENT_MS < whole.to_ms else whole.to_ms


def _end_ms(metric: Metric, query: Query, whole: TimeRange, open_ms: int) -> int:
    """Where the answer ends. The open bucket of a growing figure is a partial number, so an alert does not get it beside whole
    ones. Where the open bucket is all that was asked for, it is the figure so far."""
    end_ms = min(whole.to_ms, open_ms + whole.step_ms)
    hides_open = query.strict and metric.accumulates and not query.exact and open_ms > whole.from_ms
    return min(end_ms, open_ms) if hides_open else end_ms


def _seam_grid_ms(metric: Metric, whole: TimeRange) -> int:
    """The grid of seams: whole buckets where these are short, else whole minutes; never inside a row of the metric."""
    if not whole.exact and whole.step_ms <= _SEAM_S * 1000:
        return whole.step_ms
    resolution_s = metric.entry.resolution_s
    return -(-_SEAM_S // resolution_s) * resolution_s * 1000


def _valid_until_ms(metric: Metric, whole: TimeRange, open_ms: int, next_seam_ms: int, now_ms: int) -> int:
    """Until when the same window has this plan: until a bucket closes, or the seam moves."""
    closes_ms = open_ms + whole.step_ms
    return closes_ms if metric.live is None else min(closes_ms, max(next_seam_ms + _settling_ms(metric), now_ms + 1))


def _ends_ms(metric: Metric, query: Query, now_ms: int) -> int:
    """The window's end. A window that ends a moment before now means now: the difference is the caller's clock or the network.
    Without this the live edge would be cut off whenever a bucket has closed in between."""
    meant = metric.live is not None and now_ms - _MOMENT_MS < query.to_ms <= now_ms
    return now_ms + 1 if meant else query.to_ms


def _settling_ms(metric: Metric) -> int:
    return metric.entry.settle_s * 1000 if metric.live_is_ranged else 0


def _choose_step(metric: Metric, query: Query, limits: Limits) -> tuple[int, tuple[Notice, ...]]:
    resolution_s = metric.entry.resolution_s
    if query.step_ms is None:
        return _auto_step_s(metric, query, limits) * 1000, ()
    if query.step_ms < 1:
        raise BadQuery(f"step: {query.step_ms} ms is not allowed; allowed: a duration of 1s or more, or auto")
    if query.step_ms > limits.max_range_s * 1000:
        # The whole of its one bucket would be fetched.
        raise LimitExceeded(f"step: {query.step_ms / DAY_S / 1000:.6g} days; at most {limits.max_range_s / DAY_S:g} days")
    step_ms, why = -(-query.step_ms // (1000 * resolution_s)) * resolution_s * 1000, f"comes every {resolution_s}s"
    if (times := _too_many_times(metric, query, step_ms)) > 1:
        step_ms, why = times * step_ms, f"adds up, so none of its points is left out to stay within {query.max_points}"
    _check_buckets(query, step_ms, limits)
    if step_ms == query.step_ms:
        return step_ms, ()
    remark = f"step {query.step_ms / 1000:g}s raised to {step_ms / 1000:g}s: {metric.name} {why}"
    return step_ms, (Notice("info", remark),)


def _check_buckets(query: Query, step_ms: int, limits: Limits) -> None:
    length_ms = query.to_ms - query.from_ms
    if (buckets := -(-length_ms // step_ms)) > limits.max_buckets:
        least_s = -(-length_ms // (limits.max_buckets * 1000))
        raise LimitExceeded(
            f"step: {step_ms // 1000}s over this range makes {buckets} points a series; at most {limits.max_buckets}: "
            f"use a step of {least_s}s or more"
        )


def _too_many_times(metric: Metric, query: Query, step_ms: int) -> int:
    """By how much the step must grow so that no amount is thinned away: the sum of the points must be the whole."""
    if not metric.accumulates or query.strict or query.instant:
        return 1
    return -(-(query.to_ms - query.from_ms) // (step_ms * query.max_points))


def _auto_step_s(metric: Metric, query: Query, limits: Limits) -> int:
    length_s = -(-(query.to_ms - query.from_ms) // 1000)
    wanted = (
        _finest_buckets(metric, query, limits) if _is_thinned(metric, query) else min(query.max_points, limits.max_buckets // 2)
    )
    resolution_s = metric.entry.resolution_s
    for step_s in _LADDER_S:
        if step_s % resolution_s == 0 and length_s <= step_s * wanted:
            return step_s
    days = -(-length_s // (DAY_S * wanted))
    return -(-days * DAY_S // resolution_s) * resolution_s


def _is_thinned(metric: Metric, query: Query) -> bool:
    """A sampled figure is fetched as finely as it comes, and then thinned; where the sum of its points decides on the order of
    the series, only as finely as it is shown."""
    return metric.sampled and not query.strict and not _sums_points(query)


def _sums_points(query: Query) -> bool:
    return query.ranking.top_by == "sum"


def _finest_buckets(metric: Metric, query: Query, limits: Limits) -> int:
    """How many buckets a series that is thinned may have: more where the store thins it itself, few where only the newest value
    counts and all buckets would have to be transferred."""
    if metric.history is not None and metric.history.thins:
        return _THINNED_BUCKETS
    if query.instant:
        return min(query.max_points * _FEW, limits.max_buckets // 2)
    return limits.max_buckets * (_NARROW - 1) // _NARROW


def _store_thin_ms(metric: Metric, query: Query, thin_ms: int) -> int:
    """The width in which the store itself thins; an instant needs only the newest value of each series, and the extremes where
    these decide on the order. A sum needs every point."""
    if not metric.sampled or query.strict or query.exact or _sums_points(query):
        return 0
    return _ALL_MS if query.instant else thin_ms


def _thin_width_ms(query: Query, step_ms: int) -> int:
    """The width of thinning stretches: two points in each, with a part of one at either end, stay within max_points."""
    length_ms = query.to_ms - query.from_ms
    if query.strict or query.instant or -(-length_ms // step_ms) <= query.max_points:
        return 0
    buckets = max((query.max_points - 1) // 2 - 2, 1)  # the newest point stays besides
    return -(-length_ms // (buckets * step_ms)) * step_ms


def _thinned_remark(query: Query, step_ms: int) -> Notice:
    text = (
        f"thinned to {query.max_points} points a series: the lowest and highest {step_ms // 1000}s value of each stretch are kept"
    )
    return Notice("info", text)


def plan_events(event: Event, from_ms: int, to_ms: int, where: tuple[Matcher, ...], limits: Limits) -> Statement:
    """The statement that reads events in [from_ms, to_ms). Raises as `plan_query` does."""
    check_range(Query(event.name, from_ms, to_ms), limits)
    check_filters(where, limits)
    whole = TimeRange(from_ms // 1000 * 1000, -(-to_ms // 1000) * 1000, 1000)
    return event.read.statement(Ask(event.name, whole, (), where))
