"""Thinning: fewer points, every extreme kept, the same points on every refresh.

Each series is cut into epoch-aligned stretches of `width_ms`; of each stretch the (first) lowest and (first) highest point stay.
A stretch of nulls keeps its first null, so a gap stays a gap. A point's fate depends on its own stretch alone: nothing flickers
while the window slides, and the result can be extended without doing it again (M4's two inner points: U. Jugel et al., "M4: a
visualization-oriented time series data aggregation", VLDB 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.model import Flags, Frame


def thin(frame: Frame, width_ms: int) -> Frame:
    """The frame with at most two points (one if all are null) per series and stretch of `width_ms`."""
    if not len(frame):
        return frame
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
    return frame.select(keep)


def _first(flags: Flags, group: npt.NDArray[np.int64]) -> Flags:
    """Only the first true flag of each group."""
    places = np.flatnonzero(flags)
    kept = np.zeros_like(flags)
    kept[places[np.append(True, group[places[1:]] != group[places[:-1]])] if len(places) else places] = True
    return kept
