"""A Query to the Statements that answer it: the aligned range, the seam between history and live edge, the thinning at the store.

The seam. `now` is the request's instant on the bridge's clock, and the open bucket is the one that contains it. The history is
asked up to the seam, `settle_s` before now, and the live read from it on; `series` says which side answers for what.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.catalog.entries import Catalogue, Event, Metric
from app.model import SOURCES_TIMES, Matcher, Notice, Query, Statement, TimeRange
from app.query.grid import MOMENT_MS, Grid, choose_grid, sums_points
from app.query.limits import Limits, check_filters, check_labels, check_least, check_range
from app.query.sizes import ROOMY, Room
from app.sources.base import Ask, Read

#: width of one stretch that holds everything
_ALL_MS = 10**14
#: seams lie on a grid this fine, so that all questions of a minute are equal
_SEAM_S = 60


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
    #: the room that it was made for
    room: Room = ROOMY
    #: among how many series those of `where` have been found to be the top; 0 where nobody has looked
    ranked_of: int = 0


def plan_query(
    catalogue: Catalogue, query: Query, now_ms: int, limits: Limits, seam_ms: int | None = None, room: Room = ROOMY
) -> Plan:
    """The plan for one query, whose answer has so much room. `seam_ms` moves the seam, for a live store that begins later than
    the usual one.

    Raises BadQuery, UnknownName or LimitExceeded, each naming the field and what is allowed.
    """
    metric = catalogue.metric(query.metric)
    check_labels(metric, query, limits)
    check_range(query, limits)
    check_least(metric, query)
    grid = choose_grid(metric, query, now_ms, limits, room)
    return replace(_plan_on_grid(metric, query, grid, now_ms, seam_ms), room=room)


def _plan_on_grid(metric: Metric, query: Query, grid: Grid, now_ms: int, moved_seam_ms: int | None) -> Plan:
    whole = grid.range
    open_ms = _open_ms(query, whole, now_ms)
    grid_ms = _seam_grid_ms(metric, whole)
    seam_ms = (now_ms - _settling_ms(metric)) // grid_ms * grid_ms if moved_seam_ms is None else moved_seam_ms
    end_ms = _end_ms(metric, query, whole, open_ms)
    past = metric.history if metric.live is not None else None
    spans = _split_spans(metric, whole, seam_ms, open_ms, end_ms, _minute_after(metric, now_ms))
    cache = metric.entry.cache.times() if metric.entry.cache is not None else SOURCES_TIMES
    store_thin_ms = _store_thin_ms(metric, query, grid.thin_ms)

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
        history=statement(metric.history, whole.from_ms, spans.history_to_ms, store_thin_ms),
        live=_of_this_minute(metric, whole, statement(metric.live, spans.live_from_ms, end_ms), now_ms),
        fallback=tuple(found for read in metric.fallback if (found := statement(read, whole.from_ms, end_ms, store_thin_ms))),
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
    return whole.from_ms if now_ms - MOMENT_MS < whole.to_ms else whole.to_ms


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


def _settling_ms(metric: Metric) -> int:
    return metric.entry.settle_s * 1000 if metric.live_is_ranged else 0


def _store_thin_ms(metric: Metric, query: Query, thin_ms: int) -> int:
    """The width in which the store itself thins; an instant needs only the newest value of each series, and the extremes where
    these decide on the order. A sum needs every point."""
    if not metric.sampled or query.strict or query.exact or sums_points(query):
        return 0
    return _ALL_MS if query.instant else thin_ms


def plan_events(event: Event, from_ms: int, to_ms: int, where: tuple[Matcher, ...], limits: Limits) -> Statement:
    """The statement that reads events in [from_ms, to_ms). Raises as `plan_query` does."""
    check_range(Query(event.name, from_ms, to_ms), limits)
    check_filters(where, limits)
    whole = TimeRange(from_ms // 1000 * 1000, -(-to_ms // 1000) * 1000, 1000)
    return event.read.statement(Ask(event.name, whole, (), where))
