"""What it costs to start a bridge, to keep it, and to refresh a panel."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np

from app.model import Frame, Statement, TimeRange, frame_of_runs
from app.policies import Policy, PolicyDeps, PrioritySemaphore, guard
from app.sources.prometheus.source import PrometheusRead
from app.telemetry import Telemetry
from tests.bench.fan_out import bridge_process
from tests.bench.report import Line
from tests.bench.viewing import viewers
from tests.servers.world import Stores

_STEP_MS = 20_000
_POINTS = 400


async def living(stores: Stores, folder: Path, rounds: int) -> list[Line]:
    """The lines of the report."""
    return [
        *await _started(stores, folder, min(rounds, 5)),
        _without_extras(),
        await _refreshed(),
        *await viewers(stores, folder),
    ]


async def _started(stores: Stores, folder: Path, rounds: int) -> list[Line]:
    """From the start of the process to the first answer with rows in it; and what the process holds then."""
    seconds, mib = [], []
    for _ in range(rounds):
        begun_s = time.perf_counter()
        async with (
            bridge_process(stores.settings(), folder) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
        ):
            body = (await client.get("/v1/rows?metric=equity&instant=1")).json()
            assert body["rows"], body
            seconds.append(time.perf_counter() - begun_s)
            said = (await client.get("/metrics")).text
            found = re.search(r"^process_resident_memory_bytes (\S+)", said, re.MULTILINE)
            assert found is not None, "no process_resident_memory_bytes"
            mib.append(float(found[1]) / 2**20)
    took_s, held = sorted(seconds)[rounds // 2], max(mib)
    return [
        Line("start to the first answer", f"{took_s:.2f} s", "", "", "<= 1.5 s", took_s <= 1.5),
        Line("memory after the first answer", f"{held:.0f} MiB", "", "", "<= 150 MiB", held <= 150),
    ]


def _without_extras() -> Line:
    code = "import sys, app.cli.serve; print(*[name for name in ('chdb', 'fakeredis', 'pyarrow') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return Line("extras that `bridge serve` imports", ", ".join(found) or "none", "", "", "none", not found)


async def _refreshed() -> Line:
    """An hour of refreshes every 10 s of a panel of 400 points: the rows that the source is asked for, against those shown."""
    now_ms, asked, shown = 1_700_000_000_000, 0, 0

    async def source(statement: Statement) -> Frame:
        nonlocal asked
        found = _rows(statement.range)
        asked += len(found)
        return found

    common = PolicyDeps(Telemetry(), lambda: now_ms, asyncio.sleep, PrioritySemaphore(20))
    guarded = guard("prometheus", source, Policy(), common)
    read = PrometheusRead(source="prometheus", query="x")
    for _ in range(360):
        to_ms = now_ms // _STEP_MS * _STEP_MS
        span = TimeRange(to_ms - _POINTS * _STEP_MS, to_ms, _STEP_MS)
        shown += len(await guarded.fetch(Statement("prometheus", "x", "x", (), span, read=read)))
        now_ms += 10_000
    await guarded.close()
    share = asked / shown
    return Line(
        "rows asked for by the refreshes of an hour, 400 points",
        f"{asked}",
        f"{shown} shown",
        f"{share:.2%}",
        "<= 2.5 %",
        share <= 0.025,
    )


def _rows(span: TimeRange) -> Frame:
    times = np.arange(span.from_ms, span.to_ms, span.step_ms, dtype=np.int64)
    return frame_of_runs([((), times, np.sin(times / 1e6))])
