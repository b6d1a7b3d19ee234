"""What columns cost: to write as JSON and to keep. In this process, no server."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping

import numpy as np
import orjson

from app.model import Times, Values, frame_of_runs
from app.responses.series import json_pairs
from tests.bench.report import Line

_POINTS = 1000
_SERIES = 20
_START_MS = 1_700_000_000_000


def series() -> tuple[Times, list[Values]]:
    """A panel's columns: full floats on one grid."""
    numbers = np.random.default_rng(1)
    times = _START_MS + 10_000 * np.arange(_POINTS, dtype=np.int64)
    return times, [numbers.normal(1e5, 10, _POINTS) for _ in range(_SERIES)]


def columns(rounds: int) -> list[Line]:
    """The lines of the report."""
    times, values = series()
    frame = frame_of_runs([((("series", str(place)),), times, one) for place, one in enumerate(values)])
    ready = [[[value, at] for value, at in zip(one.tolist(), times.tolist(), strict=True)] for one in values]

    def frames() -> None:
        for one in values:
            orjson.dumps([times, one], option=orjson.OPT_SERIALIZE_NUMPY)

    ways: Mapping[str, Callable[[], object]] = {
        "lists": lambda: [orjson.dumps(one) for one in ready],
        "pairs": lambda: list(json_pairs(frame)),
        "frames": frames,
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds * 10):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            took[name].append((time.perf_counter() - begun) / _SERIES / _POINTS * 1e9)
    each = {name: statistics.median(found) for name, found in took.items()}
    return [_encoding(each, "pairs", 1.25), _encoding(each, "frames", 0.6), *_memory()]


def _encoding(each: Mapping[str, float], name: str, target: float) -> Line:
    ratio = each[name] / each["lists"]
    return Line(
        f"writing {name}, against orjson on ready lists of pairs",
        f"{each[name]:.0f} ns a point",
        f"{each['lists']:.0f} ns",
        f"x{ratio:.2f}",
        f"<= x{target:g}",
        ratio <= target,
    )


def _memory() -> list[Line]:
    """A million points: columns against lists of pairs."""
    made: Mapping[str, Callable[[], object]] = {
        "columns": lambda: [(times.copy(), one.copy()) for times, one in _million()],
        "lists": lambda: [
            [[value, at] for value, at in zip(one.tolist(), times.tolist(), strict=True)] for times, one in _million()
        ],
    }
    mib = {name: _held_mib(make) for name, make in made.items()}
    ratio = mib["columns"] / mib["lists"]
    ours = f"{mib['columns']:.1f} MiB"
    return [
        Line(
            "a million points kept, against lists of pairs",
            ours,
            f"{mib['lists']:.1f} MiB",
            f"x{ratio:.2f}",
            "<= x0.3",
            ratio <= 0.3,
        ),
        Line("a million points kept", ours, "", "", "< 45 MiB", mib["columns"] < 45),
    ]


def _million() -> list[tuple[Times, Values]]:
    times, values = series()
    return [(times, values[place % _SERIES]) for place in range(1_000_000 // _POINTS)]


def _held_mib(make: Callable[[], object]) -> float:
    tracemalloc.start()
    kept = make()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return held / 2**20
