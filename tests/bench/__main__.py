"""`make bench`: what is fast or slow as ratios and differences within one run, as a table and as JSON (bench-out/bench.json).

Rounds are interleaved: what is compared is measured under the same load of the machine. It is a report and exits with 0;
`--strict` makes a missed target exit 1. `tests/bench/README.md` says what each number means to a user.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec

from tests.bench.columns import columns
from tests.bench.fan_out import measured
from tests.bench.heavy import heavy
from tests.bench.hits import hits
from tests.bench.lag import lag
from tests.bench.living import living
from tests.bench.misses import misses
from tests.bench.points import PointStores, point_stores
from tests.bench.redis_size import redis_size
from tests.bench.replicas import replicas
from tests.bench.report import Line, report
from tests.bench.size import size
from tests.bench.thinning import thinning
from tests.bench.workers import workers
from tests.servers.world import Stores, running_stores

P = ParamSpec("P")

#: Each on what it makes itself.
_ALONE: Mapping[str, Callable[[int], list[Line]]] = {
    "columns": columns,
    "thinning": thinning,
    "lag": lag,
    "heavy": heavy,
    "redis": redis_size,
    "size": size,
}
#: On the simulated world.
_IN_WORLD: Mapping[str, Callable[[Stores, Path, int], list[Line]]] = {
    "hits": hits,
    "fan-out": lambda stores, folder, rounds: asyncio.run(measured(stores, folder, rounds)),
    "replicas": replicas,
    "living": lambda stores, folder, rounds: asyncio.run(living(stores, folder, rounds)),
}
#: On stores filled with many points.
_ON_POINTS: Mapping[str, Callable[[PointStores, Path, int], list[Line]]] = {"misses": misses, "workers": workers}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parts = [*_ALONE, *_IN_WORLD, *_ON_POINTS]
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--only", action="append", choices=parts, metavar="PART", help=f"a part alone: {', '.join(parts)}")
    arguments = parser.parse_args()
    lines = _measured(arguments.only or parts, arguments.rounds)
    report(lines)
    return 1 if arguments.strict and not all(line.ok for line in lines) else 0


def _measured(wanted: Sequence[str], rounds: int) -> list[Line]:
    lines = _each(_ALONE, wanted, rounds)
    if any(name in wanted for name in _IN_WORLD):
        with tempfile.TemporaryDirectory() as name, running_stores(Path(name), hours=17, instances=5) as stores:
            lines += _each(_IN_WORLD, wanted, stores, Path(name), rounds)
    if any(name in wanted for name in _ON_POINTS):
        with tempfile.TemporaryDirectory() as name, point_stores(Path(name)) as filled:
            lines += _each(_ON_POINTS, wanted, filled, Path(name), rounds)
    return lines


def _each(parts: Mapping[str, Callable[P, list[Line]]], wanted: Sequence[str], *given: P.args, **more: P.kwargs) -> list[Line]:
    lines = []
    for name, part in parts.items():
        if name in wanted:
            begun_s = time.monotonic()
            lines += part(*given, **more)
            print(f"{name}: {time.monotonic() - begun_s:.0f} s", file=sys.stderr)
    return lines


if __name__ == "__main__":
    sys.exit(main())
