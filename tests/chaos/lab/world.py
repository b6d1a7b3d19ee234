"""Four real stores that each hold one growing number, written by nobody but us, with the instants of every writing."""

from __future__ import annotations

import bisect
import http.server
import itertools
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import duckdb
import redis

from demo.stores import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.prometheus import PrometheusServer
from tests.servers.redis import RedisServer
from tests.servers.snapshots import snapshot_name

STORES = ("redis", "clickhouse", "duckdb", "prometheus")
PANELS = 13

_READS = {
    "redis": """live:
      {source: rts, read: hashes, index: panels, hash: "panel:{id}", field: seq, aggregate: max, labels: {panel: $id}}""",
    "clickhouse": """history:
      source: clickhouse
      sql: |
        SELECT {to_ms:Int64} - {step_ms:Int64} AS time, {by}, max(seq) AS value
        FROM (SELECT seq, toString(arrayJoin(range(PANELS))) AS panel FROM seqs) WHERE true {where} GROUP BY ALL""",
    "duckdb": """history:
      source: duckdb
      sql: |
        SELECT $to_ms - $step_ms AS time, {by}, max(seq)::DOUBLE AS value
        FROM (SELECT seq, unnest(range(PANELS))::VARCHAR AS panel FROM seqs) WHERE true {where} GROUP BY ALL""",
    "prometheus": """history: {source: prometheus, query: "max by ({by}) (seq{where})"}""",
}
_METRIC = """
  {store}_seq:
    title: The number
    description: What was written last.
    unit: short
    aggregate: max
    over_time: last
    labels: [panel]
    """


def catalogue() -> str:
    """One metric a store."""
    head = "group: lab\ntitle: Lab\nlabels:\n  panel: {title: Panel, metric: redis_seq}\nmetrics:"
    return head + "".join(_METRIC.format(store=store) + read.replace("PANELS", str(PANELS)) for store, read in _READS.items())


@dataclass
class Writings:
    """When each number began to be written into a store, and when it was there. Numbers count up from 1."""

    begun_s: list[float] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)

    def current(self, number: int, since_s: float, until_s: float) -> bool:
        """Whether this number can have been the store's last at some moment in between."""
        if not 1 <= number <= len(self.begun_s):
            return False
        written, replaced = self.begun_s[number - 1], self.done_s[number] if number < len(self.done_s) else float("inf")
        return written <= until_s and replaced >= since_s

    def newest_before(self, at_s: float) -> int:
        """The number that was last begun before."""
        return bisect.bisect_left(self.begun_s, at_s)


class World:
    """The stores, their writers (a thread each), and what can be done to them. `tick_s` lies between two numbers."""

    def __init__(self, folder: Path, tick_s: float) -> None:
        self.folder = folder
        self.tick_s = tick_s
        self.writings = {name: Writings() for name in STORES}
        #: how much older than its store's newest number an answer may be, for reasons that lie in the store
        self.slack_s = {"redis": 0.0, "clickhouse": 0.0, "duckdb": tick_s, "prometheus": 5 * tick_s + 1}
        self._stack = ExitStack()
        self._stop = threading.Event()
        self._seq = 0

    def __enter__(self) -> Self:
        (self.folder / "redis").mkdir(parents=True)
        (self.folder / "clickhouse").mkdir()
        (self.folder / "snapshots").mkdir()
        (self.folder / "catalogue").mkdir()
        (self.folder / "catalogue" / "lab.yaml").write_text(catalogue(), encoding="utf-8")
        self.redis = self._stack.enter_context(RedisServer(self.folder / "redis"))
        self.clickhouse = ClickHouseServer(self.folder / "clickhouse", "lab").start()
        self._stack.callback(self.clickhouse.close)
        self._stack.callback(self.clickhouse.stop)
        self.clickhouse.execute("CREATE DATABASE trade_system")
        self.clickhouse.execute("CREATE TABLE seqs (seq UInt64) ENGINE = MergeTree ORDER BY seq", "trade_system")
        self._exporter()
        self.prometheus = PrometheusServer(self.folder / "prometheus", self.exporter_port, self.tick_s).start()
        self._stack.callback(self.prometheus.stop)
        for name in STORES:
            writer = threading.Thread(target=self._write, args=(name, getattr(self, f"_write_{name}")), daemon=True)
            writer.start()
            self._stack.callback(writer.join)
        self._stack.callback(self._stop.set)
        while not self._scraped():
            time.sleep(0.1)
        return self

    def _scraped(self) -> bool:
        """Prometheus begins to scrape only some 5 s after its start."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.prometheus.port}/api/v1/query?query=seq", timeout=5) as answer:
            return b"value" in answer.read()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settings(self, policy: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A bridge over these stores."""
        snapshots = {"kind": "duckdb", "snapshots": str(self.folder / "snapshots"), "poll_s": self.tick_s / 2}
        connects = {
            "rts": {"kind": "redis", "port": self.redis.port},
            "clickhouse": {"kind": "clickhouse", "port": self.clickhouse.port, "password": self.clickhouse.password},
            "duckdb": snapshots,
            "prometheus": {"kind": "prometheus", "url": f"http://127.0.0.1:{self.prometheus.port}", "min_window_s": 4},
        }
        sources = {name: {"connect": connect, "policy": policy} for name, connect in connects.items()}
        return {"sources": sources, "catalog": str(self.folder / "catalogue"), "agent": {"port": None}, **more}

    def fault(self, store: str, how: str) -> Callable[[], None]:
        """Do it; the answer undoes it."""
        if store == "duckdb":
            return self._without_snapshots()
        server: Any = getattr(self, store)
        if how == "hang":
            server.pause()
            return lambda: server.resume()
        server.kill()
        return lambda: self._restarted(store, server)

    def _restarted(self, store: str, server: Any) -> None:
        server.start()

    def _without_snapshots(self) -> Callable[[], None]:
        """The folder is gone, as a network share may be."""
        here, away = self.folder / "snapshots", self.folder / "away"
        here.rename(away)
        return lambda: _back(away, here)

    def _write(self, store: str, write: Callable[[int], None]) -> None:
        known = self.writings[store]
        for number in itertools.count(1):
            known.begun_s.append(time.monotonic())
            while not self._stop.is_set():
                try:
                    write(number)
                    break
                except Exception:  # the store is down; whatever its client makes of that
                    time.sleep(self.tick_s / 5)
            known.done_s.append(time.monotonic())
            if self._stop.wait(self.tick_s):
                return

    def _write_redis(self, number: int) -> None:
        with redis.Redis(port=self.redis.port, socket_timeout=1, protocol=2) as client, client.pipeline() as pipe:
            for panel in range(PANELS):
                pipe.sadd("panels", panel)
                pipe.hset(f"panel:{panel}", "seq", number)
            pipe.execute()

    def _write_clickhouse(self, number: int) -> None:
        self.clickhouse.execute(f"INSERT INTO seqs VALUES ({number})", "trade_system")

    def _write_duckdb(self, number: int) -> None:
        """A snapshot with this number; the last few are kept."""
        folder = self.folder / "snapshots"
        new = folder / "new.tmp"
        with suppress(FileNotFoundError):
            new.unlink()
        with duckdb.connect(str(new)) as made:
            made.execute(f"CREATE TABLE seqs AS SELECT {number} AS seq")
        new.rename(folder / snapshot_name(time.time_ns() // 1_000_000))
        for old in sorted(folder.glob("snap-*"))[:-4]:
            old.unlink()

    def _write_prometheus(self, number: int) -> None:
        self._seq = number

    def _exporter(self) -> None:
        world = self

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = "".join(f'seq{{panel="{panel}"}} {world._seq}\n' for panel in range(PANELS)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.exporter_port = free_port()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.exporter_port), Page)
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        self._stack.callback(server.server_close)
        self._stack.callback(serving.join)
        self._stack.callback(server.shutdown)


def _back(away: Path, here: Path) -> None:
    """Put the folder back; what was written meanwhile goes."""
    if here.exists():
        shutil.rmtree(here)
    away.rename(here)
