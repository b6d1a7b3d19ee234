"""How late the bridge's event loop runs while it builds answers of 100,000 points: what everybody else waits longer for.

Measured inside the bridge (`probed`) on core 0; stores and asker are on core 1. Judged by what the bridge's own work is of it,
all threads together: a program that does not belong here makes the loop late as well, and that stands beside.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.bench.asking import Asker, bridge_over, on_core
from tests.bench.hits import get
from tests.bench.points import point_stores
from tests.bench.report import Line

_ASKINGS = 10
#: for more there are no windows that nobody has asked for
_MOST_ROUNDS = 15
_TARGET_MS = 10.0
#: (how late, of that the bridge's own work), ms
Tick = tuple[float, float]
_METRICS = {"of_clickhouse": "ClickHouse", "of_duckdb": "DuckDB", "of_prometheus": "Prometheus"}


def lag(rounds: int) -> list[Line]:
    """The lines of the report."""
    late: dict[tuple[str, str], list[Tick]] = {}
    idle: list[Tick] = []
    with (
        tempfile.TemporaryDirectory() as name,
        on_core(1),
        point_stores(Path(name)) as stores,
        bridge_over(stores, Path(name), "tests.bench.probed") as port,
    ):
        asker = Asker(port, stores.until_ms)
        contracts = {"as a panel": asker.panel, "as rows": asker.rows}
        asked = [(form, metric) for form in contracts for metric in _METRICS]
        for form, metric in asked:  # connections, first imports
            contracts[form](metric, *asker.window())
        for _ in range(min(rounds, _MOST_ROUNDS)):
            for form, metric in asked:
                get(port, "/bench/lag")
                for _ in range(_ASKINGS):
                    contracts[form](metric, *asker.window())
                late.setdefault((form, metric), []).extend(_taken(port))
            idle += _idle(port)
    return [_line(form, {metric: late[form, metric] for metric in _METRICS}, idle) for form in contracts]


def _taken(port: int) -> list[Tick]:
    seen: list[Tick] = json.loads(get(port, "/bench/lag"))
    return seen


def _idle(port: int) -> list[Tick]:
    get(port, "/bench/lag")
    time.sleep(0.5)
    return _taken(port)


def _line(form: str, late: Mapping[str, list[Tick]], idle: list[Tick]) -> Line:
    worst = [_p999(late[metric]) for metric in _METRICS]
    most = max(own_ms for _, own_ms in worst)
    return Line(
        f"the event loop's lateness while 100,000 points are answered {form} ({', '.join(_METRICS.values())}), p99.9",
        f"{', '.join(f'{own_ms:.1f}' for _, own_ms in worst)} ms by own work",
        f"{', '.join(f'{ms:.1f}' for ms, _ in worst)} ms in all, {_p999(idle)[0]:.1f} ms idle",
        f"{most:.1f} ms",
        f"<= {_TARGET_MS:g} ms",
        most <= _TARGET_MS,
    )


def _p999(seen: list[Tick]) -> tuple[float, float]:
    late, own = np.percentile(np.array(seen), 99.9, axis=0).tolist()
    return late, own
