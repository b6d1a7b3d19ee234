"""Sixty heavy requests at once beside readers that never read: what everybody else notices of it (see `heavy_load`).

Waiting is judged by how long the bridge itself, all its threads together, had the processor meanwhile: another program on its
core makes everybody wait as well, and what that makes stands beside.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.bench.asking import on_core
from tests.bench.heavy_load import Seen, heavy_bridge, idle, lateness, loaded, own_and_all_ms
from tests.bench.report import Line

HEAVIES = 60
MUTES = 50
_IDLE_S = 6.0
#: light panels and heavy requests of one round, each in a window of its own
_WINDOWS = 300
_MOST_ROUNDS = 5
_BUDGET_S = 4.8
_PROBE_MS, _TIMES, _MORE_MB, _LATE_MS = 50.0, 2.0, 150.0, 10.0


def heavy(rounds: int) -> list[Line]:
    """The lines of the report."""
    alone, beside, late = list[Seen](), list[Seen](), list[tuple[float, float]]()
    with tempfile.TemporaryDirectory() as name, on_core(1), heavy_bridge(Path(name)) as bridge:
        asyncio.run(loaded(bridge, 2, 0))  # connections, first imports
        for number in range(min(rounds, _MOST_ROUNDS)):
            alone.append(asyncio.run(idle(bridge, _IDLE_S, _WINDOWS * number)))
            lateness(bridge)
            beside.append(asyncio.run(loaded(bridge, HEAVIES, MUTES, _WINDOWS * number + _WINDOWS // 2)))
            late += lateness(bridge)
        said = bridge.log.read_text(encoding="utf-8")
    return [*_beside_lines(alone, beside), _answers_line(beside, said.count("Traceback")), _memory_line(beside), _late_line(late)]


def _beside_lines(alone: Sequence[Seen], beside: Sequence[Seen]) -> list[Line]:
    what = f"while {HEAVIES} heavy requests come at once and {MUTES} readers never read"
    own_ms, all_ms = own_and_all_ms([one for seen in beside for one in seen.probes])
    panels_ms, panels_all_ms = own_and_all_ms([one for seen in beside for one in seen.light])
    alone_ms, alone_all_ms = own_and_all_ms([one for seen in alone for one in seen.light])
    return [
        Line(
            f"/livez {what}, p99",
            f"{own_ms:.1f} ms by own work",
            f"{all_ms:.1f} ms in all",
            f"{own_ms:.1f} ms",
            f"<= {_PROBE_MS:g} ms",
            own_ms <= _PROBE_MS,
        ),
        Line(
            f"light panels {what}, p99",
            f"{panels_ms:.1f} ms by own work, {panels_all_ms:.1f} ms in all",
            f"{alone_ms:.1f} ms, {alone_all_ms:.1f} ms alone",
            f"x{panels_ms / alone_ms:.2f}",
            f"<= x{_TIMES:g}",
            panels_ms / alone_ms <= _TIMES,
        ),
    ]


def _answers_line(beside: Sequence[Seen], tracebacks: int) -> Line:
    statuses = sum((seen.statuses for seen in beside), Counter[int]())
    slowest_s = max(seen.slowest_s() for seen in beside)
    other = statuses.total() - statuses[200] - statuses[429]
    return Line(
        "the heavy requests: answered, refused with 429, anything else, tracebacks",
        f"{statuses[200]}, {statuses[429]}, {other}, {tracebacks}",
        f"a budget of {_BUDGET_S:g} s",
        f"slowest {slowest_s:.2f} s",
        f"<= {_BUDGET_S:g} s, some answered, no other",
        slowest_s <= _BUDGET_S and statuses[200] > 0 and not other and not tracebacks,
    )


def _memory_line(beside: Sequence[Seen]) -> Line:
    more_mb = max(seen.most_bytes - seen.before_bytes for seen in beside) / 1e6
    most_mb = max(seen.most_bytes for seen in beside) / 1e6
    return Line(
        "memory beyond what the bridge had before",
        f"{most_mb:.0f} MB at most",
        "-",
        f"+{more_mb:.0f} MB",
        f"<= +{_MORE_MB:g} MB",
        more_mb <= _MORE_MB,
    )


def _late_line(late: Sequence[tuple[float, float]]) -> Line:
    in_all_ms, own_ms = np.percentile(np.array(late), 99.9, axis=0).tolist()
    return Line(
        "the event loop's lateness meanwhile, p99.9",
        f"{own_ms:.1f} ms by own work",
        f"{in_all_ms:.1f} ms in all",
        f"{own_ms:.1f} ms",
        f"<= {_LATE_MS:g} ms",
        own_ms <= _LATE_MS,
    )
