"""A million points to a thousand: what thinning costs against tsdownsample's MinMax, what it keeps, and whether it flickers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from tsdownsample import MinMaxDownsampler

from app.model import Frame, Times, Values, frame_of_runs
from app.series import thin
from tests.bench.report import Line

_POINTS = 1_000_000
_KEPT = 1000
_STEP_MS = 1000
_REFERENCE = MinMaxDownsampler()  # type: ignore[no-untyped-call]  # not annotated in tsdownsample 0.1
#: two points of each stretch stay
_STRETCH = _POINTS // (_KEPT // 2)
_WIDTH_MS = _STRETCH * _STEP_MS
#: where the first window begins in the series: within a stretch
_OFFSET = 777

Points = set[tuple[int, float]]


def thinning(rounds: int) -> list[Line]:
    """The lines of the report."""
    begins_ms = 1_700_000_000_000 // _WIDTH_MS * _WIDTH_MS
    times = begins_ms + _STEP_MS * np.arange(_POINTS + _STRETCH, dtype=np.int64)
    values = np.random.default_rng(1).normal(0, 1, len(times)).cumsum()
    million = times[:_POINTS], values[:_POINTS]
    return [_cost(*million, rounds), _extremes(*million), _flicker(times, values)]


def _frame(times: Times, values: Values) -> Frame:
    return frame_of_runs([((), times, values)])


def _cost(times: Times, values: Values, rounds: int) -> Line:
    frame = _frame(times, values)
    ways: Mapping[str, Callable[[], object]] = {
        "ours": lambda: thin(frame, _WIDTH_MS),
        "min_max": lambda: _REFERENCE.downsample(times, values, n_out=_KEPT),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds * 20):
        for name in sorted(ways, reverse=bool(number % 2)):
            begun = time.perf_counter()
            ways[name]()
            took[name].append((time.perf_counter() - begun) * 1e6)
    ours, min_max = (statistics.median(took[name]) for name in ("ours", "min_max"))
    return Line(
        "thinning a million points to 1000, against tsdownsample's MinMax",
        f"{ours:.0f} us",
        f"{min_max:.0f} us",
        f"x{ours / min_max:.2f}",
        "<= x1.2",
        ours <= 1.2 * min_max,
    )


def _extremes(times: Times, values: Values) -> Line:
    """Looked for stretch by stretch, the plain way."""
    frame = thin(_frame(times, values), _WIDTH_MS)
    kept, wanted = _points(frame.time, frame.value), Points()
    for start in range(0, len(times), _STRETCH):
        stretch = values[start : start + _STRETCH]
        wanted |= {(int(times[start + place]), float(stretch[place])) for place in (stretch.argmin(), stretch.argmax())}
    share = len(wanted & kept) / len(wanted)
    # One more than the extremes: a series keeps its newest point, whatever it is.
    name = "extremes of the stretches that are kept, points in all"
    right = share == 1.0 and len(kept) <= _KEPT + 1
    return Line(name, f"{share:.1%}, {len(kept)}", f"{len(wanted)} extremes", "", "100 %", right)


def _flicker(times: Times, values: Values) -> Line:
    """Points that come or go one step later, of those that both windows show, the newest stretch aside."""

    def ours(window: slice) -> Points:
        # The planner begins a thinned range with a whole stretch.
        whole = slice(window.start // _STRETCH * _STRETCH, window.stop)
        frame = thin(_frame(times[whole], values[whole]), _WIDTH_MS)
        return _points(frame.time, frame.value)

    def min_max(window: slice) -> Points:
        at, found = times[window], values[window]
        kept: npt.NDArray[np.uint64] = _REFERENCE.downsample(at, found, n_out=_KEPT)
        return _points(at[kept], found[kept])

    windows = [slice(begin, begin + _POINTS) for begin in (_OFFSET, _OFFSET + 1)]
    first_ms, newest_ms = int(times[windows[1]][0]), int(times[windows[0]][-1]) // _WIDTH_MS * _WIDTH_MS
    shares = {}
    for name, way in (("ours", ours), ("tsdownsample", min_max)):
        before, after = ({point for point in way(window) if first_ms <= point[0] < newest_ms} for window in windows)
        shares[name] = len(before ^ after) / len(before | after)
    return Line(
        "points that change between two refreshes, newest stretch aside",
        f"{shares['ours']:.1%}",
        f"{shares['tsdownsample']:.1%} (tsdownsample)",
        "",
        "0 %",
        shares["ours"] == 0.0,
    )


def _points(times: Times, values: Values) -> Points:
    return set(zip(times.tolist(), values.tolist(), strict=True))
