"""Equity of every account over a day at 1000 points, against DuckDB asked the same thinned question by its own client."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx

from tests.bench.fan_out import watched_bridge
from tests.bench.report import Line
from tests.servers.world import Stores, keeping_nothing

_HOUR_MS = 3_600_000
_POINTS = 1000
_TIME_RATIO, _MEMORY_RATIO = 1.2, 3.0
#: what the answer keeps of each stretch: the lowest, the highest and the newest value, with their times
_THINNED = """
SELECT account_id, epoch_ms(ts) // $width AS stretch,
       min(equity), arg_min(ts, equity), max(equity), arg_max(ts, equity), arg_max(equity, ts), max(ts)
FROM account_snapshots WHERE ts >= make_timestamp_ms($from_ms) AND ts < make_timestamp_ms($to_ms)
GROUP BY ALL ORDER BY account_id, stretch"""


@dataclass(frozen=True, slots=True)
class _Seen:
    ours_s: list[float]
    alone_s: list[float]
    answer_bytes: int
    grown_bytes: int


async def equity_lines(stores: Stores, folder: Path, askings: int) -> list[Line]:
    """The lines of the report."""
    async with watched_bridge(keeping_nothing(stores.settings(fresh_s=0, settled_s=0)), folder) as (port, pid):
        found = await _measured(stores, port, pid, askings)
    ours, alone = statistics.median(found.ours_s), statistics.median(found.alone_s)
    what = f"equity by account, 24 h, {stores.world.accounts} accounts at {_POINTS} points"
    times, grown = ours / alone, found.grown_bytes / found.answer_bytes
    return [
        Line(
            f"{what}, against DuckDB's own time",
            f"{ours * 1000:.0f} ms",
            f"{alone * 1000:.0f} ms",
            f"x{times:.2f}",
            f"<= x{_TIME_RATIO:g}",
            times <= _TIME_RATIO,
        ),
        Line(
            f"{what}, memory at its peak",
            f"{found.grown_bytes / 1e6:.0f} MB more",
            f"{found.answer_bytes / 1e6:.1f} MB of answer",
            f"x{grown:.1f}",
            f"<= x{_MEMORY_RATIO:g}",
            grown <= _MEMORY_RATIO,
        ),
    ]


async def _measured(stores: Stores, port: int, pid: int, askings: int) -> _Seen:
    snapshot = stores.snapshots / (stores.snapshots / "latest").read_text(encoding="utf-8").strip()
    seen = _Seen([], [], 0, 0)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        with duckdb.connect(str(snapshot), read_only=True, config={"threads": 2}) as alone:
            for number in range(askings + 1):
                to_ms = stores.until_ms // 60_000 * 60_000 - (number + 2) * 60_000
                before = _reset_peak(pid)
                ours_s, size = await _ask(client, port, to_ms)
                grown = _memory(pid, "VmHWM") - before
                alone_s = await asyncio.to_thread(_timed, lambda: _ask_alone(alone, to_ms))  # noqa: B023  awaited at once
                if number:  # the first opens files and connections
                    seen = _Seen([*seen.ours_s, ours_s], [*seen.alone_s, alone_s], size, max(seen.grown_bytes, grown))
    return seen


async def _ask(client: httpx.AsyncClient, port: int, to_ms: int) -> tuple[float, int]:
    """Raises AssertionError where the answer is not whole."""
    asked = {"metric": "equity", "by": ["account"], "from": to_ms - 24 * _HOUR_MS, "to": to_ms, "maxDataPoints": _POINTS}
    begun_s = time.perf_counter()
    reply = await client.post(f"http://127.0.0.1:{port}/v1/frames", json=asked)
    took_s = time.perf_counter() - begun_s
    states = re.findall(r"status=(\w+)", reply.headers.get("Bridge-Result", ""))
    assert (reply.status_code, states) == (200, ["fresh"]), reply.text[-500:]
    return took_s, len(reply.content)


def _ask_alone(database: duckdb.DuckDBPyConnection, to_ms: int) -> Any:
    window = {"from_ms": to_ms - 24 * _HOUR_MS, "to_ms": to_ms, "width": 24 * _HOUR_MS // _POINTS}
    return database.execute(_THINNED, window).fetchnumpy()


def _timed(work: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def _reset_peak(pid: int) -> int:
    """Forget the peak of a process' memory so far; what it holds now, in bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _memory(pid, "VmRSS")


def _memory(pid: int, field: str) -> int:
    [kib] = re.findall(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kib) * 1024
