"""The grid of an answer: its step, where its buckets begin, how far it is thinned.

The step. An explicit step is kept, raised to a multiple of the metric's resolution. For amounts that add up it is raised until
the points are no more than asked for, because thinning would lose some. Without an explicit step it is the first of a ladder that
keeps a series within `max_points`; a sampled quantity is fetched as finely as possible and thinned afterwards, so that its
extremes survive. Every choice depends on the length of the range and never on its position, so a dashboard that slides along
keeps its grid. `step=range` is one bucket of exactly the asked window.

The size. All series together have room for `Room.cells` points. With many series each has fewer points than asked for: stretches
of thinning are wider, or the step is coarser, and a remark says so. A store that cannot thin is not asked for more rows than it
may return.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.catalog.entries import Metric
from app.errors import BadQuery, LimitExceeded
from app.model import Notice, Query, TimeRange
from app.query.limits import DAY_S, Limits
from app.query.sizes import ROOMY, Room, too_many_points
from app.sources.base import SKEW_LIMIT_S, Read

_LADDER_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
#: buckets of a series for a store that thins it itself
_THINNED_BUCKETS = 20_000
#: buckets of all series that a store puts together before it thins
_MOST_GROUPS = 1_500_000
#: a stretch of thinning may reach before the window if it is narrower than the window divided by this
_NARROW = 20
#: buckets for each point, where only the newest value of a series counts
_FEW = 4
#: a window that ends no longer before now than this means now
MOMENT_MS = round(SKEW_LIMIT_S * 1000)


@dataclass(frozen=True, slots=True)
class Grid:
    """The buckets that a window touches, the multiple that it begins on, the width of thinning (0 for none), and remarks."""

    range: TimeRange
    begins_on_ms: int
    thin_ms: int = 0
    notices: tuple[Notice, ...] = ()


def choose_grid(metric: Metric, query: Query, now_ms: int, limits: Limits, room: Room = ROOMY) -> Grid:
    """The grid of a question with so many series. Raises BadQuery or LimitExceeded."""
    if query.exact:
        return _exact_grid(metric, query)
    finest = _aligned_grid(metric, query, now_ms, limits, ROOMY)
    if room == ROOMY:
        return finest
    fitted = replace(query, max_points=room.points_each(query.max_points))
    grid = _aligned_grid(metric, fitted, now_ms, limits, room)
    if query.strict and len(grid.range) * room.series > min(room.cells, room.rows):
        raise too_many_points(metric.name, room, len(grid.range))
    if (grid.range.step_ms, grid.thin_ms) == (finest.range.step_ms, finest.thin_ms):
        return grid
    points = fitted.max_points if fitted.max_points < query.max_points else None
    return replace(grid, notices=(*grid.notices, room.remark(metric.name, grid.range.step_ms, points)))


def _aligned_grid(metric: Metric, query: Query, now_ms: int, limits: Limits, room: Room) -> Grid:
    step_ms, notices = _choose_step(metric, query, limits, room)
    thin_ms = _rolled_width_ms(metric, query, step_ms, _thin_width_ms(query, step_ms))
    # A whole stretch is thinned alike on every refresh. Wide ones are not aligned: they would reach too far back.
    begins_on_ms = thin_ms if 0 < thin_ms * _NARROW < query.to_ms - query.from_ms else step_ms
    from_ms = query.from_ms // begins_on_ms * begins_on_ms
    to_ms = -(-_ends_ms(metric, query, now_ms) // step_ms) * step_ms
    if thin_ms:
        notices += (_thinned_remark(query, step_ms),)
    return Grid(TimeRange(from_ms, to_ms, step_ms), begins_on_ms, thin_ms, notices)


def _exact_grid(metric: Metric, query: Query) -> Grid:
    """The window itself as one bucket. A metric with rows of a minute is asked for whole minutes."""
    row_ms = metric.entry.resolution_s * 1000 if metric.entry.resolution_s > 1 and not metric.sampled else 1
    from_ms, to_ms = query.from_ms // row_ms * row_ms, -(-query.to_ms // row_ms) * row_ms
    return Grid(TimeRange(from_ms, to_ms, to_ms - from_ms, from_ms), row_ms)


def _ends_ms(metric: Metric, query: Query, now_ms: int) -> int:
    """The window's end. A window that ends a moment before now means now: the difference is the caller's clock or the network.
    Without this the live edge would be cut off whenever a bucket has closed in between."""
    meant = metric.live is not None and now_ms - MOMENT_MS < query.to_ms <= now_ms
    return now_ms + 1 if meant else query.to_ms


def _choose_step(metric: Metric, query: Query, limits: Limits, room: Room) -> tuple[int, tuple[Notice, ...]]:
    resolution_s = metric.entry.resolution_s
    if query.step_ms is None:
        return _auto_step_s(metric, query, limits, room) * 1000, ()
    if query.step_ms < 1:
        raise BadQuery(f"step: {query.step_ms} ms is not allowed; allowed: a duration of 1s or more, or auto")
    if query.step_ms > limits.max_range_s * 1000:
        # The whole of its one bucket would be fetched.
        raise LimitExceeded(f"step: {query.step_ms / DAY_S / 1000:.6g} days; at most {limits.max_range_s / DAY_S:g} days")
    step_ms, why = -(-query.step_ms // (1000 * resolution_s)) * resolution_s * 1000, f"comes every {resolution_s}s"
    if (times := _too_many_times(metric, query, step_ms)) > 1:
        step_ms, why = times * step_ms, f"adds up, so none of its points is left out to stay within {query.max_points}"
    _check_buckets(query, step_ms, limits)
    if not query.strict and (times := -(-(query.to_ms - query.from_ms) // (step_ms * _most_buckets(metric, query, room)))) > 1:
        step_ms, why = (
            times * step_ms,
            f"has about {room.series} series, and {room.rows} rows are the most that its store may return",
        )
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


def _auto_step_s(metric: Metric, query: Query, limits: Limits, room: Room) -> int:
    length_s = -(-(query.to_ms - query.from_ms) // 1000)
    wanted = min(query.max_points, limits.max_buckets // 2, _most_buckets(metric, query, room))
    if _is_thinned(metric, query):
        wanted = _finest_buckets(metric, query, limits, room)
    resolution_s = metric.entry.resolution_s
    for step_s in _LADDER_S:
        if step_s % resolution_s == 0 and length_s <= step_s * wanted:
            return _rolled_step_s(metric, room, step_s)
    days = -(-length_s // (DAY_S * wanted))
    return -(-days * DAY_S // resolution_s) * resolution_s


def _rolled_step_s(metric: Metric, room: Room, step_s: int) -> int:
    """A point of very many series has the step of a roll-up that is next to the chosen one: it costs the store a fraction."""
    widths_ms = metric.history.rolled_steps_ms if metric.history is not None and room.behind else ()
    return next((width_ms // 1000 for width_ms in widths_ms if step_s * 1000 < width_ms <= 2000 * step_s), step_s)


def _is_thinned(metric: Metric, query: Query) -> bool:
    """A sampled figure is fetched as finely as it comes, and then thinned; where the sum of its points decides on the order of
    the series, only as finely as it is shown."""
    return metric.sampled and not query.strict and not sums_points(query)


def sums_points(query: Query) -> bool:
    """Whether every point of a series decides on its place in the order."""
    return query.ranking.top_by == "sum"


def _finest_buckets(metric: Metric, query: Query, limits: Limits, room: Room) -> int:
    """How many buckets a series that is thinned may have: more where the store thins it itself, few where only the newest value
    counts and all buckets would have to be transferred."""
    most = limits.max_buckets * (_NARROW - 1) // _NARROW
    if query.instant and not _thins(metric.history):
        most = min(query.max_points * _FEW, limits.max_buckets // 2)
    return min(_THINNED_BUCKETS if _thins(metric.history) else most, _most_buckets(metric, query, room))


def _most_buckets(metric: Metric, query: Query, room: Room) -> int:
    """How many buckets of each series a store may make; it does not transfer all of them if it thins them."""
    if _thins(metric.history) and metric.sampled and not sums_points(query):
        return min(_THINNED_BUCKETS, _MOST_GROUPS // max(room.behind, 1))
    return max(room.rows // room.series, 1)


def _thins(read: Read | None) -> bool:
    return read is not None and read.thins


def _thin_width_ms(query: Query, step_ms: int) -> int:
    """The width of thinning stretches: two points in each, with a part of one at either end, stay within max_points."""
    length_ms = query.to_ms - query.from_ms
    if query.strict or query.instant or -(-length_ms // step_ms) <= query.max_points:
        return 0
    buckets = max((query.max_points - 1) // 2 - 2, 1)  # the newest point stays besides
    return -(-length_ms // (buckets * step_ms)) * step_ms


def _rolled_width_ms(metric: Metric, query: Query, step_ms: int, width_ms: int) -> int:
    """The width in whole buckets of the store's roll-up of extremes, where it is about as wide as these: that spares the store
    all samples, and keeps the extremes of each."""
    history = metric.history
    if history is None or not history.each or not set(history.each) <= set(query.by):
        return width_ms
    whole_ms = history.thins_from_ms
    if not whole_ms or 2 * width_ms < whole_ms or whole_ms % step_ms:
        return width_ms
    return -(-width_ms // whole_ms) * whole_ms


def _thinned_remark(query: Query, step_ms: int) -> Notice:
    text = (
        f"thinned to {query.max_points} points a series: the lowest and highest {step_ms // 1000}s value of each stretch are kept"
    )
    return Notice("info", text)
