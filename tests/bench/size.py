"""What every panel costs at 24, 200 and 1000 accounts: when it is opened, when it refreshes, and how the cost grows.

The bridge runs in this process, over real stores with a month of a simulated desk; its clock stands still or goes by ten seconds.
Opened means that nothing is kept: neither answers nor parts of them. A refresh has what the refresh before it has kept.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx

from app.main import build_service
from tests.bench.equity import equity_lines
from tests.bench.metrics import total
from tests.bench.report import Line
from tests.e2e.conftest import client_of
from tests.servers.world import Stores, keeping_nothing, running_stores
from tests.size.asking import Panel, panels

_LADDER = (24, 200, 1000)
_SPANS_H = (2, 24, 720)
#: the month's older days are sampled as the demo samples them
_DAYS_BEFORE = 29
_ASKINGS = 7
_REFRESH_MS = 10_000
_MISS_S, _REFRESH_S = 1.5, 0.15
#: below it a panel's time is the machine's unrest, and no growth
_FLOOR_S = 0.005


@dataclass(frozen=True, slots=True)
class Cost:
    """A panel's median times over one span, seconds, and why its answer is not whole."""

    panel: str
    hours: int
    accounts: int
    miss_s: float
    refresh_s: float
    faults: tuple[str, ...]


def size(_: int) -> list[Line]:
    """The lines of the report. All figures of all panels are in bench-out/size.json."""
    costs: list[Cost] = []
    lines: list[Line] = []
    for accounts in _LADDER:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with running_stores(folder, hours=25, instances=accounts // 2, eventful=False, days_before=_DAYS_BEFORE) as stores:
                costs += asyncio.run(_costs(stores, accounts))
                if accounts == _LADDER[-1]:
                    lines = asyncio.run(equity_lines(stores, folder, _ASKINGS))
    out = Path("bench-out")
    out.mkdir(exist_ok=True)
    (out / "size.json").write_text(json.dumps([asdict(cost) for cost in costs], indent=1), encoding="utf-8")
    return [line for hours in _SPANS_H for line in _lines([cost for cost in costs if cost.hours == hours], hours)] + lines


async def _costs(stores: Stores, accounts: int) -> list[Cost]:
    found = []
    for hours in _SPANS_H:
        misses = await _opened(stores, accounts, hours)
        refreshes = await _refreshed(stores, hours)
        found += [replace(miss, refresh_s=refreshes[miss.panel]) for miss in misses]
    return found


async def _opened(stores: Stores, accounts: int, hours: int) -> list[Cost]:
    """Raises AssertionError where anything was answered from a cache."""
    app = build_service(keeping_nothing(stores.settings(fresh_s=0, settled_s=0)), lambda: stores.until_ms).app
    found = []
    async with client_of(app) as client:
        for panel in panels():
            took, faults = [], tuple[str, ...]()
            for _ in range(_ASKINGS):
                seconds, faults = await _timed(panel, client, stores.until_ms, hours)
                took.append(seconds)
            found.append(Cost(panel.name, hours, accounts, statistics.median(took), 0.0, faults))
        page = (await client.get("/metrics")).text
        assert total(page, "bridge_cache_hits_total") == 0
    return found


async def _refreshed(stores: Stores, hours: int) -> dict[str, float]:
    begins_ms = stores.until_ms - (_ASKINGS + 1) * _REFRESH_MS
    clock = {"now_ms": begins_ms}
    app = build_service(stores.settings(fresh_s=0), lambda: clock["now_ms"]).app
    took: dict[str, list[float]] = {panel.name: [] for panel in panels()}
    async with client_of(app) as client:
        for number in range(_ASKINGS + 1):
            clock["now_ms"] = begins_ms + number * _REFRESH_MS
            for panel in panels():
                seconds, _ = await _timed(panel, client, clock["now_ms"], hours)
                if number:  # the first opens it
                    took[panel.name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


async def _timed(panel: Panel, client: httpx.AsyncClient, now_ms: int, hours: int) -> tuple[float, tuple[str, ...]]:
    begun_s = time.perf_counter()
    answer = await panel.ask(client, now_ms, hours)
    return time.perf_counter() - begun_s, tuple(answer.faults())


def _lines(costs: Sequence[Cost], hours: int) -> list[Line]:
    top = [cost for cost in costs if cost.accounts == _LADDER[-1]]
    broken = [cost.panel for cost in top if cost.faults]
    slow = max(top, key=lambda cost: cost.miss_s)
    late = max(top, key=lambda cost: cost.refresh_s)
    growth = {cost.panel: _exponent([other for other in costs if other.panel == cost.panel]) for cost in top}
    steepest = max(growth, key=lambda name: growth[name])
    what = f"{len(top)} panels, {_LADDER[-1]} accounts, {hours} h"
    return [
        Line(f"{what}: not whole", f"{len(broken)}", ", ".join(broken[:3]), "", "0", not broken),
        _slowest(f"{what}: the slowest when opened", slow.panel, slow.miss_s, [cost.miss_s for cost in top], _MISS_S),
        _slowest(f"{what}: the slowest refresh", late.panel, late.refresh_s, [cost.refresh_s for cost in top], _REFRESH_S),
        Line(
            f"{what}: the steepest growth with the accounts",
            f"exponent {growth[steepest]:.2f}",
            f"{steepest}; median {statistics.median(growth.values()):.2f}",
            f"{sum(value > 1 for value in growth.values())} over",
            "<= 1",
            growth[steepest] <= 1,
        ),
    ]


def _slowest(what: str, panel: str, slowest_s: float, all_s: Sequence[float], most_s: float) -> Line:
    over = sum(seconds > most_s for seconds in all_s)
    reference = f"{panel}; median {statistics.median(all_s) * 1000:.0f} ms"
    return Line(what, f"{slowest_s * 1000:.0f} ms", reference, f"{over} over", f"<= {most_s * 1000:.0f} ms", not over)


def _exponent(costs: Sequence[Cost]) -> float:
    """How a panel's time grows with the accounts, from the lowest rung to the highest: 1 is as fast as they do."""
    first, last = (max(cost.miss_s, _FLOOR_S) for cost in (costs[0], costs[-1]))
    return math.log(last / first) / math.log(costs[-1].accounts / costs[0].accounts)
