"""One bridge process on a core of its own over the stores of `points`, and questions to it that it has never been asked."""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.stores import free_port
from tests.bench.hits import pinned
from tests.bench.points import CATALOGUE, MINUTE_MS, POINTS, WINDOWS, PointStores

#: the source behind each metric
SOURCES = {"of_clickhouse": "clickhouse", "of_duckdb": "duckdb", "of_prometheus": "prometheus", "of_redis": "rts"}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, how long it took from the asking to its last byte, and how long its source took of that."""

    body: bytes
    seconds: float
    source_s: float


class Asker:
    """One kept connection to a bridge. Every question is a new one: a window that begins a minute earlier than all before it,
    so that nothing that is kept begins early enough to be taken over; for the present state, a step that nobody has asked for."""

    def __init__(self, port: int, until_ms: int) -> None:
        self.port = port
        self._until_ms = until_ms
        self._asked = 0
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def window(self) -> tuple[int, int]:
        """The next one, epoch ms."""
        self._asked += 1
        if self._asked > WINDOWS:
            raise RuntimeError(f"only {WINDOWS} windows that nobody has asked for; more rounds need more of them")
        to_ms = self._until_ms - (self._asked - 1) * MINUTE_MS
        return to_ms - POINTS * MINUTE_MS, to_ms

    def panel(self, metric: str, from_ms: int, to_ms: int) -> Reply:
        """The panel's answer: 100 series of 1000 points."""
        return self.post("/json/query", _panel(metric, from_ms, to_ms, ["account"], "60s"))

    def rows(self, metric: str, from_ms: int, to_ms: int) -> Reply:
        """The same as 100,000 rows."""
        asked = {"metric": metric, "from": from_ms, "to": to_ms, "step": "60s", "by": "account"}
        return self.post("/v1/rows", asked)

    def present(self, metric: str) -> Reply:
        """The present state of 1000 accounts."""
        self._asked += 1
        now_ms = time.time_ns() // 1_000_000
        return self.post("/json/query", _panel(metric, now_ms - MINUTE_MS, now_ms, ["account", "broker"], f"{60 + self._asked}s"))

    def post(self, path: str, content: Any) -> Reply:
        """Ask. Raises RuntimeError with the bridge's own words where it does not answer."""
        body = json.dumps(content).encode()
        begun_s = time.perf_counter()
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        said = answer.read()
        took_s = time.perf_counter() - begun_s
        if answer.status != 200 or "status=fresh" not in answer.headers["Bridge-Result"]:
            raise RuntimeError(f"{answer.status} {answer.headers['Bridge-Result']} {said[:500]!r}")
        parts = re.findall(r"dur=([0-9.]+)", answer.headers.get("Server-Timing", ""))
        return Reply(said, took_s, sum(map(float, parts)) / 1000)


def _panel(metric: str, from_ms: int, to_ms: int, by: list[str], step: str) -> dict[str, Any]:
    since, until = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (from_ms, to_ms))
    target = {"refId": "A", "target": metric, "payload": {"by": by, "step": step}}
    return {"range": {"from": since, "to": until}, "intervalMs": MINUTE_MS, "maxDataPoints": POINTS, "targets": [target]}


@contextmanager
def bridge_over(stores: PointStores, folder: Path, module: str = "app") -> Iterator[int]:
    """`bridge serve` over the stores, on core 0, every policy as it is by default: its port. `module` is what is run."""
    catalogue, file, port = folder / "catalogue", folder / "points.json", free_port()
    catalogue.mkdir(exist_ok=True)
    (catalogue / "bench.yaml").write_text(json.dumps(CATALOGUE), encoding="utf-8")
    values = {"catalog": str(catalogue), "agent": {"port": None}, "log_level": "warning"}
    values |= {"http": {"port": port, "lame_duck_s": 0}, "sources": stores.sources()}
    file.write_text(json.dumps(values), encoding="utf-8")
    with pinned([sys.executable, "-m", module, "serve", "--config", str(file)], port):
        yield port


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """This process on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
