"""Cached answers: how many a second, against the least that a server can do, nginx with its cache, and what a tutorial writes.

Each server runs alone on core 0, the load (wrk) on core 1; rounds are interleaved.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.stores import free_port
from tests.bench.report import Line
from tests.servers.fleet import Fleet
from tests.servers.haproxy import HAProxyServer
from tests.servers.world import Stores

#: Everybody shows it: our bridge looks at it, the others carry it.
KEY = "tdsb_bench"
AUTH = {"keys": {"bench": {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}}}
#: how long each load lasts
LOAD_S = 2
_CALLERS = 32
_MINUTE_MS = 60_000

_NGINX = """
{user} worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  proxy_cache_path {folder}/cache keys_zone=answers:10m;
  client_body_buffer_size 64k; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 10000000;
    location / {{
      proxy_pass http://127.0.0.1:{origin};
      proxy_cache answers; proxy_cache_methods POST; proxy_cache_key "$request_uri|$request_body";
      proxy_cache_valid 200 10m; proxy_ignore_headers Cache-Control;
    }}
  }}
}}
"""
_WRK = """
local bodies = {{ {bodies} }}
local place = 0
wrk.method, wrk.path = "POST", "/json/query"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
request = function()
  place = place % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[place])
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw."""

    per_s: float
    p99_ms: float


def question(stores: Stores, minutes: int, ago: int = 0, **payload: Any) -> bytes:
    """A panel over so many minutes of the world, the last ones or those that ended some minutes ago."""
    to_ms = (stores.until_ms // _MINUTE_MS - ago) * _MINUTE_MS
    since, until = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (to_ms - minutes * _MINUTE_MS, to_ms))
    content = {
        "app": "dashboard",
        "requestId": "Q101",
        "timezone": "browser",
        "range": {"from": since, "to": until, "raw": {"from": "now-17h", "to": "now"}},
        "interval": "1m",
        "intervalMs": _MINUTE_MS,
        "maxDataPoints": 1000,
        "targets": [{"refId": "A", "target": "equity", "payload": {"step": "60s", **payload}}],
        "adhocFilters": [],
        "startTime": to_ms,
    }
    return json.dumps(content).encode()


def get(port: int, path: str) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  http, and our own
        return bytes(answer.read())


def post(port: int, body: bytes) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/json/query",
        body,
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  http, and our own
        return bytes(answer.read())


def wrk(folder: Path, port: int, bodies: Sequence[bytes], callers: int = _CALLERS) -> Load:
    """A closed loop of callers on one kept-alive connection each."""
    script = folder / "wrk.lua"
    script.write_text(_WRK.format(key=KEY, bodies=", ".join(f"[==[{body.decode()}]==]" for body in bodies)), encoding="utf-8")
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{callers}", f"-d{LOAD_S}s", "--latency", "-s", str(script)]
    said = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    p99 = re.search(r"99%\s+([0-9.]+)(us|ms|s)", said)
    per_s = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    assert p99 is not None, said
    assert per_s is not None, said
    return Load(float(per_s[1]), float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]])


@contextmanager
def pinned(command: Sequence[str], port: int, log: Path | None = None, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server on core 0. What it says goes to the file `log` where there is one."""
    with (log or Path(os.devnull)).open("wb") as kept:
        said = None if log is None else kept
        process = subprocess.Popen(["taskset", "-c", "0", *command], env={**os.environ, **more}, stdout=said, stderr=said)
    try:
        _until_open(port, process)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    ends_s = time.monotonic() + 20
    while time.monotonic() < ends_s and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not come up")


@contextmanager
def served(name: str, **more: str) -> Iterator[int]:
    """One of `tests.bench.bare` under uvicorn: its port."""
    port = free_port()
    options = ["--port", str(port), "--no-access-log", "--log-level", "error", "--timeout-keep-alive", "120"]
    with pinned([sys.executable, "-m", "uvicorn", f"tests.bench.bare:{name}", *options], port, None, **more):
        yield port


@contextmanager
def nginx(folder: Path, origin: int) -> Iterator[int]:
    """nginx with its cache in front of another server: its port."""
    port, home = free_port(), folder / "nginx"
    home.mkdir()
    # Started by root, its worker would be somebody else, who may not write here.
    user = "user root;" if os.geteuid() == 0 else ""
    (home / "nginx.conf").write_text(_NGINX.format(user=user, folder=home, port=port, origin=origin), encoding="utf-8")
    with pinned(["nginx", "-e", str(home / "nginx.log"), "-p", str(home), "-c", str(home / "nginx.conf")], port):
        yield port


@contextmanager
def bridge(folder: Path, stores: Stores) -> Iterator[Fleet]:
    """Our own server, as `bridge serve` starts it."""
    values = stores.settings(fresh_s=10).model_dump(mode="json", exclude={"http", "agent"})
    values["sources"]["clickhouse"]["connect"]["password"] = stores.clickhouse.password  # a dump masks secrets
    values["auth"] = AUTH
    with Fleet(folder, 1, lambda _: values, lame_duck_s=0) as fleet:
        os.sched_setaffinity(fleet.pid(0), {0})
        yield fleet


def hits(stores: Stores, folder: Path, rounds: int) -> list[Line]:
    """The lines of the report."""
    if missing := [name for name in ("wrk", "nginx", "haproxy", "taskset") if shutil.which(name) is None]:
        raise RuntimeError(f"{', '.join(missing)} not found; `make bench` installs them")
    with ExitStack() as stack:
        fleet = stack.enter_context(bridge(folder, stores))
        ours = fleet.ports[0][0]
        brokers = [row["__value"] for row in json.loads(get(ours, "/v1/values?label=broker"))][:2]
        panel = question(stores, 1000, by=["broker"], broker=brokers)
        body = folder / "body.json"
        body.write_bytes(post(ours, panel))
        least = stack.enter_context(served("least", BENCH_BODY=str(body)))
        [database] = sorted(stores.snapshots.glob("snap-*.duckdb"))[-1:]
        naive = stack.enter_context(served("naive", BENCH_DATABASE=str(database)))
        cached = stack.enter_context(nginx(folder, least))
        ports = {"ours": ours, "least": least, "nginx": cached, "naive": naive}
        seen = _rounds(folder, ports, panel, rounds)
        return [
            *_compared(seen, len(body.read_bytes())),
            _large(stores, folder, ours, rounds),
            *_refresh(stores, folder, fleet, rounds),
        ]


def _rounds(folder: Path, ports: Mapping[str, int], panel: bytes, rounds: int) -> dict[str, float]:
    seen: dict[str, list[float]] = {name: [] for name in ports}
    for number in range(rounds):
        for name in sorted(ports, reverse=bool(number % 2)):
            post(ports[name], panel)
            seen[name].append(wrk(folder, ports[name], [panel], 4 if name == "naive" else _CALLERS).per_s)
    return {name: statistics.median(figures) for name, figures in seen.items()}


def _compared(seen: Mapping[str, float], size: int) -> list[Line]:
    ours, kib = seen["ours"], size / 1024
    wanted = {
        "least": ("the same parse and lookup on bare ASGI", 0.8),
        "nginx": ("nginx proxy_cache", 0.35),
        "naive": ("FastAPI as a tutorial writes it", 50.0),
    }
    return [
        Line(
            f"cached answer, {kib:.0f} KiB, against {text}",
            f"{ours:.0f}/s",
            f"{seen[name]:.0f}/s",
            f"x{ours / seen[name]:.2f}",
            f">= x{target:g}",
            ours / seen[name] >= target,
        )
        for name, (text, target) in wanted.items()
    ]


def _large(stores: Stores, folder: Path, ours: int, rounds: int) -> Line:
    """An answer of ten thousand points against one of four hundred; what the bytes cost is what they cost bare ASGI."""
    times_us: dict[int, list[float]] = {400: [], 10_000: []}
    bare_us: dict[int, list[float]] = {400: [], 10_000: []}
    panels = {400: question(stores, 400), 10_000: question(stores, 1000, by=["account"])}
    for points, panel in panels.items():
        body = folder / f"{points}.json"
        body.write_bytes(post(ours, panel))
        with served("least", BENCH_BODY=str(body)) as least:
            for _ in range(rounds):
                post(least, panel), post(ours, panel)
                bare_us[points].append(1e6 / wrk(folder, least, [panel]).per_s)
                times_us[points].append(1e6 / wrk(folder, ours, [panel]).per_s)
    small, large = (statistics.median(found) for found in times_us.values())
    few, many = (statistics.median(found) for found in bare_us.values())
    aside = large - (many - few)
    return Line(
        "a hit of 10,000 points against one of 400, bytes aside",
        f"{large:.0f} us less {many - few:.0f} us",
        f"{small:.0f} us",
        f"x{small / aside:.2f}",
        ">= x0.9",
        small / aside >= 0.9,
    )


def _refresh(stores: Stores, folder: Path, fleet: Fleet, rounds: int) -> list[Line]:
    """Twenty panels asked at once, again and again, all hits; straight and through HAProxy."""
    panels = [question(stores, 1000 - number, by=["broker"]) for number in range(20)]
    ours = fleet.ports[0][0]
    lines = []
    with HAProxyServer(folder, fleet.ports) as haproxy:
        for name, port, target in (("one worker", ours, 5.0), ("through HAProxy", haproxy.port, 8.0)):
            p99s = []
            for _ in range(rounds):
                for panel in panels:
                    post(ours, panel)
                p99s.append(wrk(folder, port, panels, callers=20).p99_ms)
            p99 = statistics.median(p99s)
            what = f"20 panels at once, all hits, {name}, p99"
            lines.append(Line(what, f"{p99:.1f} ms", "", "", f"<= {target:g} ms", p99 <= target))
    return lines
