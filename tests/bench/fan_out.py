"""A panel on four stores: what asking them all at once costs over the slowest, and what one that hangs costs the others.

Stores are real; what they answer is held back by proxies, so that each is as slow as we say.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from app.config import Settings
from demo.stores import free_port
from tests.bench.replay import replaying
from tests.bench.report import Line
from tests.servers.faulty import FaultProxy
from tests.servers.world import Stores

TARGETS = ("open_trades", "equity", "cpu_load", "signal_backlog")
#: by how much each store's answers are held back where the slowest takes 1 s
_SHARES = {"redis": 0.2, "clickhouse": 0.5, "prometheus": 1.0}
#: askings in a round: all four at once, and each alone
_SLOW_TOGETHER = 12
_QUICK_TOGETHER = 40
_ALONE = 4


def panel(*metrics: str) -> dict[str, Any]:
    targets = [{"refId": metric, "target": metric} for metric in metrics]
    return {"targets": targets, "range": {"from": "now-1h", "to": "now"}, "intervalMs": 60_000, "maxDataPoints": 1000}


async def took_ms(client: httpx.AsyncClient, *metrics: str) -> float:
    begun = time.perf_counter()
    reply = await client.post("/json/query", json=panel(*metrics))
    assert reply.status_code in (200, 504), reply.text
    return (time.perf_counter() - begun) * 1000


@dataclass(frozen=True, slots=True)
class _Seen:
    """Milliseconds: the panel with four targets, and the slowest of the four asked alone."""

    together: list[float]
    slowest: float


async def fan_out(client: httpx.AsyncClient, proxies: dict[str, FaultProxy], rounds: int) -> list[Line]:
    """A panel with four targets on four stores, against the slowest of the four asked alone: held back by 100 ms at most."""
    for name, proxy in proxies.items():
        proxy.latency_s = 0.1 * _SHARES[name]
    seen = await _seen(client, rounds, _SLOW_TOGETHER)
    what = "four targets on four stores, the slowest at 100 ms"
    return [_against(seen, f"{what}, p50", 50, 1.03), _against(seen, f"{what}, p99", 99, 1.1)]


async def quick_fan_out(stores: Stores, folder: Path, rounds: int) -> list[Line]:
    """The same at 10 ms, where the real stores' own work would be seen: they are replayed."""
    ports = {"redis": stores.redis.port, "clickhouse": stores.clickhouse.port, "prometheus": stores.prometheus_port}
    timed = {name: (port, 0.01 * _SHARES[name]) for name, port in ports.items()}
    with replaying(timed) as replayed:
        async with (
            bridge_process(stores.settings(**replayed), folder) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
        ):
            seen = await _seen(client, rounds, _QUICK_TOGETHER)
            reply = await client.post("/json/query", json=panel(*TARGETS))
            # partial: the world ended some minutes ago, and the snapshot with it
            assert not re.search("status=(error|stale)", reply.headers["Bridge-Result"]), reply.headers["Bridge-Result"]
            assert all(one["datapoints"] for one in reply.json()), reply.text[:500]
    what = "four targets on four stores (replayed), the slowest at 10 ms"
    return [_beyond(seen, f"{what}, p50", 50, 2.0), _beyond(seen, f"{what}, p99", 99, None)]


async def _seen(client: httpx.AsyncClient, rounds: int, times_together: int) -> _Seen:
    alone: dict[str, list[float]] = {metric: [] for metric in TARGETS}
    together: list[float] = []
    for number in range(rounds + 1):
        for metric in TARGETS:
            alone[metric] += [await took_ms(client, metric) for _ in range(_ALONE)]
        together += [await took_ms(client, *TARGETS) for _ in range(times_together)]
        if not number:  # the first round makes the connections
            alone, together = {metric: [] for metric in TARGETS}, []
    return _Seen(together, max(statistics.median(times) for times in alone.values()))


def _against(seen: _Seen, name: str, percent: float, target: float) -> Line:
    ours = float(np.percentile(seen.together, percent))
    ratio = ours / seen.slowest
    return Line(
        name,
        f"{ours:.1f} ms",
        f"{seen.slowest:.1f} ms (slowest alone, p50)",
        f"x{ratio:.3f}",
        f"<= x{target:g}",
        ratio <= target,
    )


def _beyond(seen: _Seen, name: str, percent: float, target_ms: float | None) -> Line:
    ours = float(np.percentile(seen.together, percent))
    more = ours - seen.slowest
    return Line(
        name,
        f"{ours:.1f} ms",
        f"{seen.slowest:.1f} ms (slowest alone, p50)",
        f"{more:+.1f} ms",
        "" if target_ms is None else f"<= {target_ms:+g} ms",
        target_ms is None or more <= target_ms,
    )


async def isolation(client: httpx.AsyncClient, proxies: dict[str, FaultProxy], rounds: int) -> list[Line]:
    """Panels of other stores while Prometheus hangs, against the same without; and what the hanging panel costs."""
    for proxy in proxies.values():
        proxy.latency_s = 0.0
    calm, troubled, hung = [], [], []
    for _ in range(rounds):
        calm += [await took_ms(client, "equity") for _ in range(20)]
        await proxies["prometheus"].set("black_hole")
        waiting = asyncio.create_task(took_ms(client, "equity", "cpu_load"))
        await asyncio.sleep(0.3)
        troubled += [await took_ms(client, "equity") for _ in range(20)]
        hung.append(await waiting)
        await proxies["prometheus"].set("none")
    ratio = statistics.median(troubled) / statistics.median(calm)
    limit = max(hung)
    return [
        Line(
            "a neighbour while a store hangs, p50",
            f"{statistics.median(troubled):.1f} ms",
            f"{statistics.median(calm):.1f} ms (none hangs)",
            f"x{ratio:.2f}",
            "<= x1.15",
            ratio <= 1.15,
        ),
        Line(
            "the panel of the store that hangs, worst",
            f"{limit:.0f} ms",
            "4800 ms (the request's limit)",
            f"{limit - 4800:+.0f} ms",
            "<= +100 ms",
            limit <= 4900,
        ),
    ]


@asynccontextmanager
async def bridge_process(settings: Settings, folder: Path) -> AsyncIterator[int]:
    """`bridge serve` in a process of its own, so that the load and the proxies take nothing from it: its port."""
    async with watched_bridge(settings, folder) as (port, _):
        yield port


@asynccontextmanager
async def watched_bridge(settings: Settings, folder: Path) -> AsyncIterator[tuple[int, int]]:
    """The same: its port and the id of its process."""
    port, file = free_port(), folder / "bridge.json"
    values = settings.model_dump(mode="json")
    values["sources"]["clickhouse"]["connect"]["password"] = "world"  # a dump masks secrets
    file.write_text(json.dumps(values | {"http": {"port": port, "lame_duck_s": 0}}), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "app", "serve", "--config", str(file))
    try:
        async with httpx.AsyncClient(trust_env=False) as probe, asyncio.timeout(60):
            while not await _is_ready(probe, port):
                await asyncio.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        await process.wait()


async def _is_ready(probe: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await probe.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
    except httpx.HTTPError:
        return False


async def measured(stores: Stores, folder: Path, rounds: int) -> list[Line]:
    async with AsyncExitStack() as stack:
        ports = {"redis": stores.redis.port, "clickhouse": stores.clickhouse.port, "prometheus": stores.prometheus_port}
        proxies = {name: await stack.enter_async_context(FaultProxy(port)) for name, port in ports.items()}
        settings = stores.settings(**{name: proxy.port for name, proxy in proxies.items()})
        port = await stack.enter_async_context(bridge_process(settings, folder))
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)
        )
        lines = [*await fan_out(client, proxies, rounds), *await isolation(client, proxies, min(rounds, 3))]
    return [*lines, *await quick_fan_out(stores, folder, rounds)]
