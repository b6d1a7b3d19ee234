"""What a second worker gives: misses a second of one process against two behind one port, on the cores that there are.

Each question reads the state of 1000 accounts from Redis and is answered as a panel of as many series. Nothing of it is ever
fresh, so every question goes to the store. Most of the work is the bridge's own: of 21 ms of processor time for a miss Redis has
1.4, the load (wrk) 0.5. Nobody is bound to a core but the load.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.stores import free_port
from tests.bench.hits import LOAD_S, get, wrk
from tests.bench.metrics import Counts
from tests.bench.points import CATALOGUE, POINTS, PointStores
from tests.bench.report import Line
from tests.servers.team import wait_for

_TARGET = 1.7
_CALLERS = 8
#: more than callers: two that ask the same at the same time would share a fetch
_QUESTIONS = 128


@dataclass(frozen=True, slots=True)
class _Memory:
    """MiB: resident in each process, and the share of all that is theirs alone or divided among them."""

    resident: list[float]
    proportional: float


def workers(stores: PointStores, folder: Path, rounds: int) -> list[Line]:
    """The lines of the report."""
    bodies = [_question(60 + number) for number in range(_QUESTIONS)]
    with _running(stores, folder, 1) as one, _running(stores, folder, 2) as two:
        seen: dict[int, list[_Round]] = {port: [] for port in (one.port, two.port)}
        for number in range(rounds + 1):
            for running in (one, two)[:: -1 if number % 2 else 1]:
                found = _round(running, folder, bodies)
                seen[running.port] += [found] if number else []  # the first round makes connections
        memory = [_memory_of(running.pid) for running in (one, two)]
    of_two, of_one = map(_memory_text, reversed(memory))
    rounds_of_one, rounds_of_two = seen[one.port], seen[two.port]
    ratio = statistics.median(b.per_s / a.per_s for a, b in zip(rounds_of_one, rounds_of_two, strict=True))
    ours, alone = (statistics.median(each.per_s for each in found) for found in (rounds_of_two, rounds_of_one))
    cpu_ms, cpu_alone_ms = (statistics.median(each.cpu_ms for each in found) for found in (rounds_of_two, rounds_of_one))
    least = statistics.median(each.least_share for each in rounds_of_two)
    what = f"misses a second of two workers against one, {os.cpu_count()} cores in all, the store's and the load's among them"
    return [
        Line(what, f"{ours:.0f}/s", f"{alone:.0f}/s", f"x{ratio:.2f}", f">= x{_TARGET:g}", ratio >= _TARGET),
        Line(
            "... processor time of a miss; what the worker with less to do did of it",
            f"{cpu_ms:.1f} ms, {least:.0%}",
            f"{cpu_alone_ms:.1f} ms",
            f"x{cpu_ms / cpu_alone_ms:.2f}",
            "",
            True,
        ),
        Line("memory of two workers and their supervisor, against one process", of_two, of_one, "", "", True),
    ]


@dataclass(frozen=True, slots=True)
class _Running:
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class _Round:
    """Misses a second, the bridge's processor time of one, and the smallest worker's part of that time."""

    per_s: float
    cpu_ms: float
    least_share: float


def _round(running: _Running, folder: Path, bodies: list[bytes]) -> _Round:
    before, busy_before = Counts.of([running.port], source="rts"), _busy_ticks(running.pid)
    load = wrk(folder, running.port, bodies, _CALLERS)
    counted = Counts.of([running.port], source="rts").since(before)
    busy = [now - then for now, then in zip(_busy_ticks(running.pid), busy_before, strict=True)]
    _really_asked(counted.asked, load.per_s * LOAD_S)
    return _Round(counted.asked / LOAD_S, counted.cpu_s / counted.asked * 1000, min(busy) / sum(busy))


def _busy_ticks(pid: int) -> list[int]:
    """The processor time of each worker: of the process itself where it has none."""
    busy = []
    for one in _children_of(pid) or [pid]:
        command = Path(f"/proc/{one}/cmdline").read_text(encoding="utf-8")
        if "resource_tracker" not in command:
            fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            busy.append(int(fields[11]) + int(fields[12]))
    return busy


def _children_of(pid: int) -> list[int]:
    said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return sorted(map(int, said.split()))


@contextmanager
def _running(stores: PointStores, folder: Path, count: int) -> Iterator[_Running]:
    catalogue, file, port = folder / "catalogue", folder / f"workers-{count}.json", free_port()
    catalogue.mkdir(exist_ok=True)
    (catalogue / "bench.yaml").write_text(json.dumps(CATALOGUE), encoding="utf-8")
    values = {"catalog": str(catalogue), "agent": {"port": None}, "log_level": "warning"}
    sources = stores.sources()
    sources["rts"]["policy"] = {"fresh_s": 0}
    values |= {"http": {"port": port, "lame_duck_s": 0, "workers": count}, "sources": sources}
    file.write_text(json.dumps(values), encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-m", "app", "serve", "--config", str(file)])
    try:
        wait_for(lambda: _serves(port, count), "the bridge does not start", 60)
        yield _Running(port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _serves(port: int, count: int) -> bool:
    try:
        page = get(port, "/metrics").decode()
    except OSError:
        return False
    return count == 1 or f"\nbridge_workers_up {float(count)}\n" in page


def _question(step_s: int) -> bytes:
    target = {"refId": "A", "target": "of_redis", "payload": {"by": ["account", "broker"], "step": f"{step_s}s"}}
    content = {"range": {"from": "now-1m", "to": "now"}, "intervalMs": 60_000, "maxDataPoints": POINTS, "targets": [target]}
    return json.dumps(content).encode()


def _really_asked(asked: float, answered: float) -> None:
    """Raise AssertionError unless nearly each question went to the store."""
    assert asked >= 0.95 * answered, f"{answered:.0f} answers, but the store was asked {asked:.0f} times"


def _memory_of(pid: int) -> _Memory:
    pages = [Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii") for one in (pid, *_children_of(pid))]

    def found(key: str) -> list[float]:
        return [int(size) / 1024 for page in pages for size in re.findall(rf"^{key}:\s+(\d+) kB", page, re.MULTILINE)]

    return _Memory(sorted(found("Rss")), sum(found("Pss")))


def _memory_text(memory: _Memory) -> str:
    return f"{' + '.join(f'{one:.0f}' for one in memory.resident)} MiB, together {memory.proportional:.0f}"
