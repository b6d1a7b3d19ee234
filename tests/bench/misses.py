"""An answer that has to be asked for, end to end, against the store's own client that asks the same question alone.

The bridge (core 0) is asked over HTTP and answers with JSON; the clock stops at its last byte. The client (core 1, in this
process) stops where it has the columns or objects in its hands: nobody has made JSON of them yet, and nobody has sent them. The
stores are where the system puts them, the same for both. Nothing is timed before both have given the same values.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.bench.asking import SOURCES, Asker, Reply, bridge_over, on_core
from tests.bench.clients import Clients, Values, clients
from tests.bench.metrics import Counts
from tests.bench.points import HASHES, POINTS, SERIES, PointStores
from tests.bench.report import Line

_ASKINGS = 3
_TARGET = 1.3

#: what is asked of the bridge, and of the client alone
_Pair = Callable[[], tuple[Callable[[], Reply], Callable[[], Awaitable[Any]]]]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The medians of each round, seconds."""

    ours: list[float]
    source: list[float]
    alone: list[float]


def misses(stores: PointStores, folder: Path, rounds: int) -> list[Line]:
    """The lines of the report."""
    return asyncio.run(_measured(stores, folder, rounds))


async def _measured(stores: PointStores, folder: Path, rounds: int) -> list[Line]:
    with bridge_over(stores, folder) as port, on_core(1):
        async with clients(stores) as alone:
            asker = Asker(port, stores.until_ms)
            pairs = _pairs(asker, alone)
            for metric, pair in pairs.items():
                await _verify(metric, pair, alone)
            before = {metric: Counts.of([port], source=SOURCES[metric]) for metric in pairs}
            seen = {metric: _Seen([], [], []) for metric in pairs}
            for number in range(rounds):
                for metric, pair in pairs.items():
                    await _round(pair, seen[metric], ours_first=bool(number % 2))
            for metric in pairs:
                counted = Counts.of([port], source=SOURCES[metric]).since(before[metric])
                _really_asked(metric, counted, rounds * _ASKINGS)
    return [line for metric, found in seen.items() for line in _lines(alone.described[metric], found)]


def _pairs(asker: Asker, alone: Clients) -> dict[str, _Pair]:
    """For each metric, the next question to both."""

    def windowed(metric: str, ask: Callable[[int, int], Awaitable[Any]]) -> _Pair:
        def pair() -> tuple[Callable[[], Reply], Callable[[], Awaitable[Any]]]:
            window = asker.window()
            return lambda: asker.panel(metric, *window), lambda: ask(*window)

        return pair

    asked = {"of_clickhouse": alone.clickhouse, "of_duckdb": alone.duckdb, "of_prometheus": alone.prometheus}
    pairs = {metric: windowed(metric, ask) for metric, ask in asked.items()}
    pairs["of_redis"] = lambda: (lambda: asker.present("of_redis"), alone.redis)
    return pairs


async def _verify(metric: str, pair: _Pair, alone: Clients) -> None:
    """Raise AssertionError unless both give the same, and all of it."""
    ask, ask_alone = pair()
    found, expected = _values(ask().body), alone.values[metric](await ask_alone())
    assert found == expected, f"{metric}: the bridge and the client differ"
    size = (HASHES, 1) if metric == "of_redis" else (SERIES, POINTS)
    assert (len(found), *{len(points) for points in found.values()}) == size, f"{metric}: {len(found)} series"


def _values(body: bytes) -> Values:
    """Each series' values in time order."""
    elements: list[Mapping[str, Any]] = orjson.loads(body)
    return {one["tags"]["account"]: [value for value, _ in one["datapoints"]] for one in elements}


async def _round(pair: _Pair, seen: _Seen, ours_first: bool) -> None:
    ours, sources, alone = [], [], []
    for _ in range(_ASKINGS):
        ask, ask_alone = pair()
        for turn in ("ours", "alone") if ours_first else ("alone", "ours"):
            if turn == "ours":
                reply = ask()
                ours.append(reply.seconds)
                sources.append(reply.source_s)
            else:
                begun_s = time.perf_counter()
                await ask_alone()
                alone.append(time.perf_counter() - begun_s)
    for kept, found in ((seen.ours, ours), (seen.source, sources), (seen.alone, alone)):
        kept.append(statistics.median(found))


def _really_asked(metric: str, counted: Counts, askings: int) -> None:
    """Raise AssertionError unless each question went to the store, whole."""
    found = (counted.asked, counted.spared, counted.hits, counted.replica)
    assert found == (askings, 0, 0, 0), f"{metric}: {counted} of {askings} askings"


def _lines(described: str, seen: _Seen) -> list[Line]:
    ours, source, alone = (statistics.median(found) * 1000 for found in (seen.ours, seen.source, seen.alone))
    ratio = statistics.median([ours / alone for ours, alone in zip(seen.ours, seen.alone, strict=True)])
    return [
        Line(
            f"a miss, {described}",
            f"{ours:.1f} ms",
            f"{alone:.1f} ms",
            f"x{ratio:.2f}",
            f"<= x{_TARGET:g}",
            ratio <= _TARGET,
        ),
        Line(
            "... of it until the source's columns are there",
            f"{source:.1f} ms",
            f"{ours - source:.1f} ms (the rest)",
            "",
            "",
            True,
        ),
    ]
