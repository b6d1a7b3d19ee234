"""Thinning: fewer points, every extreme kept, the same points on every refresh.

Each series is cut into epoch-aligned stretches of `width_ms`; of each stretch the (first) lowest and (first) highest point stay.
A stretch of nulls keeps its first null, so a gap stays a gap. A point's fate depends on its own stretch alone: nothing flickers
while the window slides, and the result can be extended without doing it again (M4's two inner points: U. Jugel et al., "M4: a
visualization-oriented time series data aggregation", VLDB 2014).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from app.model import Flags, Frame, Places, Times, Values

#: Series of this many points on average are thinned one after the other, shorter ones all at once.
_LONG = 500
#: Values whose greatest is looked for right after their least, while they are still in the processor's cache.
_NEAR = 50_000


def thin(frame: Frame, width_ms: int) -> Frame:
    """The frame with at most two points (one if all are null) per series and stretch of `width_ms`."""
    if not len(frame):
        return frame
    if len(frame) < _LONG * len(frame.series):
        return frame.select(_extremes(frame, width_ms))
    runs = zip(frame.offsets, frame.runs(), strict=False)
    return frame.at(np.concatenate([first + _run_extremes(times, values, width_ms) for first, (_, times, values) in runs]))


def _run_extremes(times: Times, values: Values, width_ms: int) -> Places:
    """The places that stay of one series: no step is taken for each point but NumPy's own search for the least and greatest."""
    edges = _edges(times, width_ms)
    found = np.concatenate([first + _block_extremes(block) for first, block in _blocks(values, edges)])
    kept = np.ones(len(found), np.bool_)
    np.not_equal(found[1:], found[:-1], out=kept[1:])
    return found[kept]


def _edges(times: Times, width_ms: int) -> Places:
    """Where each stretch begins, and the end."""
    first_ms, last_ms = int(times[0]), int(times[-1])
    begins_ms = np.arange((first_ms // width_ms + 1) * width_ms, (last_ms // width_ms + 1) * width_ms, width_ms)
    step_ms = max((last_ms - first_ms) // max(len(times) - 1, 1), 1)
    # Where points are evenly spaced it is known at once; looking says whether it is so.
    inner = (begins_ms + (step_ms - 1 - first_ms)) // step_ms
    if not (inner[-1:] < len(times)).all() or not ((times[inner] >= begins_ms) & (times[inner - 1] < begins_ms)).all():
        inner = np.searchsorted(times, begins_ms)
    return np.concatenate(([0], inner, [len(times)]))


def _blocks(values: Values, edges: Places) -> Iterator[tuple[int, Values]]:
    """Neighbouring stretches of equal length as the rows of one block, with the place of its first value."""
    lengths = edges[1:] - edges[:-1]
    changes = np.flatnonzero(lengths[1:] != lengths[:-1]) + 1
    for begin, end in pairwise([0, *changes.tolist(), len(lengths)]):
        if length := int(lengths[begin]):
            first = int(edges[begin])
            yield first, values[first : first + (end - begin) * length].reshape(end - begin, length)


def _block_extremes(block: Values) -> Places:
    """The places of each row's least and greatest value, ascending; the same one twice where all are alike."""
    found = np.empty((2, len(block)), np.intp)
    few = max(_NEAR // block.shape[1], 1)
    for first in range(0, len(block), few):
        part = slice(first, first + few)
        block[part].argmin(axis=1, out=found[0, part])
        block[part].argmax(axis=1, out=found[1, part])
    begins = np.arange(0, block.size, block.shape[1])
    # A null is what is found wherever there is one.
    holed = np.flatnonzero(np.isnan(block.take(begins + found[0])))
    if len(holed):
        null = np.isnan(block[holed])
        found[0, holed] = np.where(null, np.inf, block[holed]).argmin(axis=1)
        found[1, holed] = np.where(null, -np.inf, block[holed]).argmax(axis=1)
    found += begins
    places = np.empty(2 * len(block), np.intp)
    places[0::2], places[1::2] = np.minimum(*found), np.maximum(*found)
    return places


def _extremes(frame: Frame, width_ms: int) -> Flags:
    """What stays of many short series."""
    series = np.repeat(np.arange(len(frame.series)), np.diff(frame.offsets))
    stretch = frame.time // width_ms
    begins = np.append(True, (series[1:] != series[:-1]) | (stretch[1:] != stretch[:-1]))
    starts = np.flatnonzero(begins)
    group = np.cumsum(begins) - 1
    null = np.isnan(frame.value)
    lowest = np.minimum.reduceat(np.where(null, np.inf, frame.value), starts)
    highest = np.maximum.reduceat(np.where(null, -np.inf, frame.value), starts)
    empty = np.logical_and.reduceat(null, starts)
    keep = _first(~null & (frame.value == lowest[group]), group)
    keep |= _first(~null & (frame.value == highest[group]), group)
    keep |= begins & empty[group]
    return keep


def _first(flags: Flags, group: npt.NDArray[np.int64]) -> Flags:
    """Only the first true flag of each group."""
    places = np.flatnonzero(flags)
    kept = np.zeros_like(flags)
    kept[places[np.append(True, group[places[1:]] != group[places[:-1]])] if len(places) else places] = True
    return kept
