"""What a second replica gives: one bridge against two behind HAProxy that share answers, on the cores that there are.

Nobody is bound to a core: the load (wrk), HAProxy and the replicas share the machine as they would. What two replicas can do on a
machine of their own each is told by the processor time that an answer takes.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.hits import LOAD_S, Load, question, wrk
from tests.bench.metrics import Counts
from tests.bench.report import Line
from tests.servers.fleet import Fleet
from tests.servers.haproxy import HAProxyServer
from tests.servers.redis import RedisServer
from tests.servers.world import Stores

_PANELS = 20
_MINUTES = 500
#: the default
_FRESH_S = 10.0
_CALLERS = 32


@dataclass(frozen=True, slots=True)
class _Round:
    """Two seconds in which many look at a dashboard that nobody has looked at before."""

    load: Load
    counted: Counts

    @property
    def at_the_store(self) -> float:
        return self.counted.asked - self.counted.replica


@dataclass(frozen=True, slots=True)
class _Topology:
    """A name, where to ask, and whose counters to read."""

    name: str
    port: int
    replicas: list[int]


def replicas(stores: Stores, folder: Path, rounds: int) -> list[Line]:
    """The lines of the report."""
    home = folder / "replicas"
    home.mkdir()
    dashboards = (
        [question(stores, _MINUTES - number, ago, by=["broker"]) for number in range(_PANELS)] for ago in range(_MINUTES)
    )
    with _running(stores, home) as topologies:
        seen: dict[str, list[_Round]] = {one.name: [] for one in topologies}
        for number in range(rounds + 1):
            for one in topologies[:: -1 if number % 2 else 1]:
                before = Counts.of(one.replicas, source="duckdb")
                load = wrk(home, one.port, next(dashboards), _CALLERS)
                found = _Round(load, Counts.of(one.replicas, source="duckdb").since(before))
                seen[one.name] += [found] if number else []  # the first round makes connections
    loads = [seen[one.name] for one in topologies]
    return [_line(one.name, *pair) for one, pair in zip(topologies, zip(loads, [None, *loads], strict=False), strict=True)]


@contextmanager
def _running(stores: Stores, home: Path) -> Iterator[list[_Topology]]:
    for name in ("tier", "one", "two"):
        (home / name).mkdir()
    values = stores.settings(fresh_s=_FRESH_S).model_dump(mode="json", exclude={"http", "agent", "tier"})
    values["sources"]["clickhouse"]["connect"]["password"] = stores.clickhouse.password  # a dump masks secrets
    values["log_level"] = "warning"
    with (
        RedisServer(home / "tier") as tier,
        Fleet(home / "one", 1, lambda _: values, lame_duck_s=0) as one,
        Fleet(home / "two", 2, lambda _: values | {"tier": {"host": tier.host, "port": tier.port}}, lame_duck_s=0) as two,
        HAProxyServer(home / "one", one.ports) as before_one,
        HAProxyServer(home / "two", two.ports) as before_two,
    ):
        alone, pair = ([http for http, _ in fleet.ports] for fleet in (one, two))
        yield [
            _Topology("one bridge", alone[0], alone),
            _Topology("one bridge behind HAProxy", before_one.port, alone),
            _Topology("two replicas behind HAProxy, answers shared", before_two.port, pair),
        ]


def _line(name: str, seen: list[_Round], simpler: list[_Round] | None) -> Line:
    """Against the topology with one part less."""
    per_s, asked = _per_s(seen), sum(one.at_the_store for one in seen)
    cpu_us = statistics.median(one.counted.cpu_s / (one.load.per_s * LOAD_S) * 1e6 for one in seen)
    ratio = sum(one.counted.hits for one in seen) / sum(one.counted.hits + one.counted.asked for one in seen)
    what = f"{name}, a new dashboard of 20 panels, {os.cpu_count()} cores in all"
    ours = f"{per_s:.0f}/s, {ratio:.2%} hits, {cpu_us:.0f} us CPU"
    if simpler is None:
        return Line(what, ours, "", "", "", True)
    more = asked / sum(one.at_the_store for one in simpler)
    result = f"x{per_s / _per_s(simpler):.2f}; askings x{more:.2f}"
    return Line(what, ours, f"{_per_s(simpler):.0f}/s (above)", result, "askings <= x1.1", more <= 1.1)


def _per_s(seen: list[_Round]) -> float:
    return statistics.median(one.load.per_s for one in seen)
