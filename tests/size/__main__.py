"""`python -m tests.size 10 100 1000`: what so many accounts need of memory, disk and time, as a table. Figures of docs/sizes.md.

Each column has stores of its own with a day of a simulated desk, and one bridge that answers every panel of the dashboards over
two hours, twice: when it is opened, and when it refreshes.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from tests.bench.fan_out import watched_bridge
from tests.servers.world import Stores, running_stores, unhurried
from tests.size.asking import Panel, panels

_HOURS = 2
_REFRESH_MS = 10_000


def main() -> None:
    """Measure each number of accounts and print the table."""
    sizes = [int(text) for text in sys.argv[1:]] or [10, 100, 1000]
    found = [_measured(accounts) for accounts in sizes]
    table = Table("", *(f"{accounts:,} accounts" for accounts in sizes))
    for name in found[0]:
        table.add_row(name, *(column[name] for column in found))
    Console(width=140).print(table)


def _measured(accounts: int) -> Mapping[str, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun_s, begun_cpu_s = time.perf_counter(), _cpu_s()
        with running_stores(folder, hours=25, instances=accounts // 2, eventful=False) as stores:
            filled = f"{time.perf_counter() - begun_s:.0f} s ({_cpu_s() - begun_cpu_s:.0f} s of processor)"
            return {"filling the stores": filled} | _stored(stores, folder) | asyncio.run(_answered(stores, folder))


def _cpu_s() -> float:
    """The processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _stored(stores: Stores, folder: Path) -> dict[str, str]:
    held = stores.redis.client.info("memory")["used_memory"]
    asked = "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'trade_system'"
    rows, size = map(int, stores.clickhouse.execute(asked).split("\t"))
    snapshot = stores.snapshots / (stores.snapshots / "latest").read_text(encoding="utf-8").strip()
    blocks = sum(file.stat().st_size for file in (folder / "prometheus" / "data").rglob("*") if file.is_file())
    return {
        "Redis: memory": _megabytes(held),
        "Redis: open trades": f"{stores.redis.client.zcard('trade_state:open'):,}",
        "DuckDB: one snapshot, a day": _megabytes(snapshot.stat().st_size),
        "ClickHouse: rows, a day": f"{rows:,}",
        "ClickHouse: disk, a day": _megabytes(size),
        "Prometheus: disk, a day, a sample a minute": _megabytes(blocks),
    }


async def _answered(stores: Stores, folder: Path) -> dict[str, str]:
    async with watched_bridge(unhurried(stores.settings(fresh_s=10)), folder) as (port, pid):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            idle = _memory(pid, "VmRSS")
            opened = await _look(client, pid, stores.until_ms - _REFRESH_MS)
            await asyncio.sleep(_REFRESH_MS / 1000)
            refreshed = await _look(client, pid, stores.until_ms)
        return {
            "bridge: memory at the start": _megabytes(idle),
            "bridge: memory after all panels": _megabytes(_memory(pid, "VmRSS")),
            "bridge: memory at its peak": _megabytes(_memory(pid, "VmHWM")),
            "panels that are not whole": str(opened.broken),
            "a panel when opened, 2 h: median, slowest": _pair(opened.seconds),
            "all panels when opened: processor": f"{opened.cpu_s:.1f} s",
            "a panel's refresh: median, slowest": _pair(refreshed.seconds),
            "all panels' refresh: processor": f"{refreshed.cpu_s:.1f} s",
            "the largest answer": _megabytes(opened.largest),
        }


@dataclass(frozen=True, slots=True)
class _Look:
    """Every panel asked in turn: seconds of each, the bridge's processor seconds, bytes of the largest answer, broken ones."""

    seconds: list[float]
    cpu_s: float
    largest: int
    broken: int


async def _look(client: httpx.AsyncClient, pid: int, to_ms: int) -> _Look:
    seconds, largest, broken, begun_cpu_s = list[float](), 0, 0, _process_cpu_s(pid)
    for panel in panels():
        begun_s = time.perf_counter()
        try:
            answer = await panel.ask(client, to_ms, _HOURS)
        except httpx.TransportError as problem:
            broken += 1
            _complain(panel, f"{type(problem).__name__}, no answer")
            continue
        seconds.append(time.perf_counter() - begun_s)
        largest = max(largest, len(answer.reply.content))
        if faults := answer.faults():
            broken += 1
            _complain(panel, faults[-1])
    return _Look(seconds, _process_cpu_s(pid) - begun_cpu_s, largest, broken)


def _complain(panel: Panel, fault: str) -> None:
    Console(stderr=True, width=200).print(f"not whole: {panel.name}: {fault}")


def _process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int, field: str) -> int:
    [kib] = re.findall(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kib) * 1024


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _pair(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms, {max(seconds) * 1000:,.0f} ms"


if __name__ == "__main__":
    main()
