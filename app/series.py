"""Joins history and live edge into one series, and thins a long one. Pure functions over columns.

**Joining.** Each part of the time is answered by a source that has seen all of it. The seam is an instant. History answers for
everything before it, the live read for everything from it on. So no point is doubled and none is lost, whatever the stores'
clocks say:

- A bucket is closed once the bridge's clock is past its end. Only the bridge's clock decides which bucket is open.
- A sampled figure's bucket is its newest sample, so the seam is the start of a bucket: the open one if the live read knows the
  present only, else the first one where history is incomplete (the snapshot's time, or `settle_s` before now).
- A figure over all events of a bucket has its seam inside the bucket, `settle_s` before now, so that late rows and skewed clocks
  have time. The bucket is combined from two parts, as the reads declare (`model.Parts`): sums add, extremes compare, means weigh.
- A figure without such parts (a quantile) is answered by the live read if that has seen the whole bucket, else by history up to
  the seam, and the answer says so.
- Rows that a store dates at or after the seam are left to the live read. Rows that arrive later than `settle_s` appear with the
  next fetch, because closed buckets are fetched again.

**Thinning.** Fewer points, but every extreme, and the same points on every refresh. Each series is divided into epoch-aligned
stretches of `width_ms`. Of each stretch the first lowest and the first highest point stay; of each series its newest point stays
too, null or not. A stretch of nulls keeps its first null, so a gap stays a gap. Only a point's own stretch decides about it:
nothing flickers while the window moves, and the result can be extended without starting again (M4's two inner points and its last
one: U. Jugel et al., "M4: a visualization-oriented time series data aggregation", VLDB 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from app.model import Flags, Frame, Indices, Labels, Parts, TimeRange, Times, Values, frame_of_runs

#: From this average length on, series are thinned one by one; shorter ones all at once.
_LONG = 500
#: Stretches of so many different lengths are searched all at once: a search for each length would cost more than it saves.
_UNEVEN = 20
#: So many values fit into the processor's cache: their maximum is searched right after their minimum.
_NEAR = 50_000


def seam_ms(step_ms: int, live_from_ms: int, open_ms: int, covers_to_ms: int | None) -> int:
    """The seam of a sampled figure: the first bucket of the live read, between `live_from_ms` and the open bucket."""
    if covers_to_ms is None:
        return live_from_ms
    return min(max(covers_to_ms // step_ms * step_ms, live_from_ms), open_ms)


def clip(frame: Frame, from_ms: int, to_ms: int) -> Frame:
    """The rows with from_ms <= time < to_ms. A series without such a row is left out."""
    inside = (frame.time >= from_ms) & (frame.time < to_ms)
    return frame if inside.all() else frame.select(inside)


def splice(history: Frame, live: Frame, seam: int) -> Frame:
    """History before the seam and live from it on, as one frame. The seam is the start of a bucket."""
    return concatenate_frames((clip(history, 0, seam), live.select(live.time >= seam)))


def merge(history: Frame, live: Frame, seam: int, span: TimeRange, parts: Parts) -> Frame:
    """Like `splice`, for a seam that may lie inside a bucket: that bucket is combined from its two parts."""
    bucket_ms = span.bucket_ms(seam)
    if bucket_ms == seam:
        return splice(history, live, seam)
    end_ms = bucket_ms + span.step_ms
    both = _merge_bucket(clip(history, bucket_ms, end_ms), clip(live, bucket_ms, end_ms), bucket_ms, parts)
    joined = concatenate_frames((clip(history, 0, bucket_ms), both, live.select(live.time >= end_ms)))
    return joined.remark(*history.notices, *live.notices)


def concatenate_frames(frames: Iterable[Frame]) -> Frame:
    """Frames that follow one another in time, as one frame with the notices of all. Their provenance is left out."""
    given = list(frames)
    series = sorted({labels for frame in given for labels in frame.series})
    rows: dict[Labels, list[Indices]] = {labels: [] for labels in series}
    first = 0
    for frame in given:
        for index, labels in enumerate(frame.series):
            rows[labels].append(np.arange(first + frame.offsets[index], first + frame.offsets[index + 1]))
        first += len(frame)
    ends = np.cumsum([0, *(sum(map(len, runs)) for runs in rows.values())]).tolist()
    order = np.concatenate([part for runs in rows.values() for part in runs]) if series else np.empty(0, np.intp)
    weighted = bool(given) and all(len(frame.weight) == len(frame) for frame in given)
    covers = [frame.covers_to_ms for frame in given if frame.covers_to_ms is not None]
    return Frame(
        time=np.concatenate([frame.time for frame in given])[order] if given else Frame().time,
        value=np.concatenate([frame.value for frame in given])[order] if given else Frame().value,
        weight=np.concatenate([frame.weight for frame in given])[order] if weighted else Frame().weight,
        series=tuple(series),
        offsets=tuple(ends),
        notices=tuple(dict.fromkeys(notice for frame in given for notice in frame.notices)),
        covers_to_ms=covers[0] if covers else None,
    )


#: (value, weight) of each side, and of both.
_Side = tuple[float, float]


def _merge_bucket(history: Frame, live: Frame, bucket_ms: int, parts: Parts) -> Frame:
    """The rows of one bucket, each label set's two parts combined."""
    before, after = _row_by_labels(history), _row_by_labels(live)
    join = _COMBINE[parts]
    found = {labels: join(before[labels], after[labels]) for labels in before.keys() & after.keys()}
    runs = []
    for labels, side in {**before, **after, **found}.items():
        runs.append((labels, np.array([bucket_ms], dtype=np.int64), np.array([side])))
    return frame_of_runs(runs)


def _row_by_labels(frame: Frame) -> Mapping[Labels, _Side]:
    """The one row of each series."""
    weights = frame.weight if len(frame.weight) else np.zeros(len(frame))
    values = zip(frame.value.tolist(), weights.tolist(), strict=True)
    return dict(zip(frame.series, values, strict=True))


def _add_sides(one: _Side, other: _Side) -> _Side:
    """Null if either side is null: an unknown cannot be added."""
    return one[0] + other[0], 0.0


def _lesser_side(one: _Side, other: _Side) -> _Side:
    return float(np.fmin(one[0], other[0])), 0.0


def _greater_side(one: _Side, other: _Side) -> _Side:
    return float(np.fmax(one[0], other[0])), 0.0


def _weighted_mean(one: _Side, other: _Side) -> _Side:
    """A side without samples has no value and no weight."""
    known = [(value, weight) for value, weight in (one, other) if weight > 0 and not np.isnan(value)]
    weight = sum(weight for _, weight in known)
    return (sum(value * weight for value, weight in known) / weight, weight) if weight else (np.nan, 0.0)


_COMBINE: Mapping[Parts, Callable[[_Side, _Side], _Side]] = {
    "sum": _add_sides,
    "min": _lesser_side,
    "max": _greater_side,
    "mean": _weighted_mean,
}


def arrange_series(frame: Frame, places: Indices) -> Frame:
    """The series at these indices, in this order."""
    begins, lengths = np.array(frame.offsets[:-1], dtype=np.intp), np.diff(frame.offsets)
    rows = [np.arange(begins[place], begins[place] + lengths[place]) for place in places.tolist()]
    order = np.concatenate(rows) if rows else np.empty(0, np.intp)
    return replace(
        frame,
        time=frame.time[order],
        value=frame.value[order],
        weight=frame.weight[order] if len(frame.weight) else frame.weight,
        series=tuple(frame.series[place] for place in places.tolist()),
        offsets=(0, *np.cumsum(lengths[places]).tolist()),
    )


def null_below(frame: Frame, least: int) -> Frame:
    """The frame with null in place of each mean that has fewer answers behind it. Values without weights stay as they are."""
    if least <= 1 or not len(frame.weight):
        return frame
    return replace(frame, value=np.where(frame.weight < least, np.nan, frame.value))


def last(frame: Frame) -> Frame:
    """The last point of each series, null or not: one row per label set."""
    return frame.at(np.array(frame.offsets[1:], dtype=np.intp) - 1)


def newest(frame: Frame) -> Frame:
    """The last point of each series that is not null (or the last one, if all are null): one row per label set."""
    keep = np.zeros(len(frame), dtype=np.bool_)
    for index in range(len(frame.series)):
        first, last = frame.offsets[index], frame.offsets[index + 1]
        known = np.flatnonzero(~np.isnan(frame.value[first:last]))
        keep[first + known[-1] if len(known) else last - 1] = True
    return frame.select(keep)


def thin(frame: Frame, width_ms: int) -> Frame:
    """At most two points (one if all are null) per series and stretch of `width_ms`, and each series' newest point."""
    if not len(frame):
        return frame
    if len(frame) < _LONG * len(frame.series):
        return frame.select(_flag_extremes(frame.time, frame.value, frame.offsets, width_ms))
    runs = zip(frame.offsets, frame.runs(), strict=False)
    return frame.at(np.concatenate([first + _run_extremes(times, values, width_ms) for first, (_, times, values) in runs]))


def _run_extremes(times: Times, values: Values, width_ms: int) -> Indices:
    """The indices of one series' remaining points. Only NumPy's own searches for minimum and maximum look at each point."""
    edges = _stretch_edges(times, width_ms)
    if np.count_nonzero(np.diff(edges, 2)) > _UNEVEN:
        return np.flatnonzero(_flag_extremes(times, values, [0, len(times)], width_ms))
    found = np.concatenate([first + _block_extremes(block) for first, block in _equal_blocks(values, edges)])
    found = np.append(found, len(times) - 1)
    kept = np.ones(len(found), np.bool_)
    np.not_equal(found[1:], found[:-1], out=kept[1:])
    return found[kept]


def _stretch_edges(times: Times, width_ms: int) -> Indices:
    """The index where each stretch begins, and the end."""
    first_ms, last_ms = int(times[0]), int(times[-1])
    begins_ms = np.arange((first_ms // width_ms + 1) * width_ms, (last_ms // width_ms + 1) * width_ms, width_ms)
    step_ms = max((last_ms - first_ms) // max(len(times) - 1, 1), 1)
    # For evenly spaced points the edges can be computed. The check below finds out whether they are.
    inner = (begins_ms + (step_ms - 1 - first_ms)) // step_ms
    if not (inner[-1:] < len(times)).all() or not ((times[inner] >= begins_ms) & (times[inner - 1] < begins_ms)).all():
        inner = np.searchsorted(times, begins_ms)
    return np.concatenate(([0], inner, [len(times)]))


def _equal_blocks(values: Values, edges: Indices) -> Iterator[tuple[int, Values]]:
    """Neighbouring stretches of equal length as the rows of one block, with the index of its first value."""
    lengths = edges[1:] - edges[:-1]
    changes = np.flatnonzero(lengths[1:] != lengths[:-1]) + 1
    for begin, end in pairwise([0, *changes.tolist(), len(lengths)]):
        if length := int(lengths[begin]):
            first = int(edges[begin])
            yield first, values[first : first + (end - begin) * length].reshape(end - begin, length)


def _block_extremes(block: Values) -> Indices:
    """The indices of each row's minimum and maximum, ascending; the same index twice if all values are equal."""
    found = np.empty((2, len(block)), np.intp)
    few = max(_NEAR // block.shape[1], 1)
    for first in range(0, len(block), few):
        part = slice(first, first + few)
        block[part].argmin(axis=1, out=found[0, part])
        block[part].argmax(axis=1, out=found[1, part])
    begins = np.arange(0, block.size, block.shape[1])
    # argmin and argmax return a NaN if there is one, so rows with nulls are searched again.
    holed = np.flatnonzero(np.isnan(block.take(begins + found[0])))
    if len(holed):
        null = np.isnan(block[holed])
        found[0, holed] = np.where(null, np.inf, block[holed]).argmin(axis=1)
        found[1, holed] = np.where(null, -np.inf, block[holed]).argmax(axis=1)
    found += begins
    places = np.empty(2 * len(block), np.intp)
    places[0::2], places[1::2] = np.minimum(*found), np.maximum(*found)
    return places


def _flag_extremes(times: Times, values: Values, offsets: Sequence[int], width_ms: int) -> Flags:
    """Flags of the remaining points of many series, all at once. `offsets` are their first rows, and the end."""
    series = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    stretch = times // width_ms
    begins = np.append(True, (series[1:] != series[:-1]) | (stretch[1:] != stretch[:-1]))
    starts = np.flatnonzero(begins)
    group = np.cumsum(begins) - 1
    null = np.isnan(values)
    lowest = np.minimum.reduceat(np.where(null, np.inf, values), starts)
    highest = np.maximum.reduceat(np.where(null, -np.inf, values), starts)
    empty = np.logical_and.reduceat(null, starts)
    keep = _first_of_group(~null & (values == lowest[group]), group)
    keep |= _first_of_group(~null & (values == highest[group]), group)
    keep |= begins & empty[group]
    keep[np.array(offsets[1:]) - 1] = True
    return keep


def _first_of_group(flags: Flags, group: npt.NDArray[np.int64]) -> Flags:
    """Only the first true flag of each group."""
    places = np.flatnonzero(flags)
    kept = np.zeros_like(flags)
    kept[places[np.append(True, group[places[1:]] != group[places[:-1]])] if len(places) else places] = True
    return kept
