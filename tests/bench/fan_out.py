"""A panel on four stores: what asking them all at once costs over the slowest, and what one that hangs costs the others.

Stores are real; what they answer is held back by proxies, so that each is as slow as we say.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.config import Settings
from app.demo.stores import free_port
from tests.bench.report import Line
from tests.servers.faulty import FaultProxy
from tests.servers.world import Stores

TARGETS = ("open_trades", "equity", "cpu_load", "signal_backlog")
DELAYS_S = {"redis": 0.02, "clickhouse": 0.05, "prometheus": 0.1}


def panel(*metrics: str) -> dict[str, Any]:
    targets = [{"refId": metric, "target": metric} for metric in metrics]
    return {"targets": targets, "range": {"from": "now-1h", "to": "now"}, "intervalMs": 60_000, "maxDataPoints": 1000}


async def took_ms(client: httpx.AsyncClient, *metrics: str) -> float:
    begun = time.perf_counter()
    reply = await client.post("/json/query", json=panel(*metrics))
    assert reply.status_code in (200, 504), reply.text
    return (time.perf_counter() - begun) * 1000


async def fan_out(client: httpx.AsyncClient, proxies: dict[str, FaultProxy], rounds: int) -> Line:
    """A panel with four targets on four stores, against the slowest of the four asked alone."""
    for name, proxy in proxies.items():
        proxy.latency_s = DELAYS_S[name]
    alone: dict[str, list[float]] = {metric: [] for metric in TARGETS}
    together = []
    for number in range(rounds + 1):
        for metric in TARGETS:
            alone[metric].append(await took_ms(client, metric))
        together.append(await took_ms(client, *TARGETS))
        if not number:  # the first round makes the connections
            alone, together = {metric: [] for metric in TARGETS}, []
    slowest = max(statistics.median(times) for times in alone.values())
    ours = statistics.median(together)
    more = ours - slowest
    return Line(
        "four targets on four stores, p50",
        f"{ours:.1f} ms",
        f"{slowest:.1f} ms (slowest alone)",
        f"+{more:.1f} ms",
        "<= +3 ms",
        more <= 3,
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
    port, file = free_port(), folder / "bridge.json"
    values = settings.model_dump(mode="json")
    values["sources"]["clickhouse"]["connect"]["password"] = "world"  # a dump masks secrets
    file.write_text(json.dumps(values | {"http": {"port": port, "lame_duck_s": 0}}), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "app", "serve", "--config", str(file))
    try:
        async with httpx.AsyncClient(trust_env=False) as probe, asyncio.timeout(20):
            while not await _is_ready(probe, port):
                await asyncio.sleep(0.05)
        yield port
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
        return [await fan_out(client, proxies, rounds), *await isolation(client, proxies, min(rounds, 3))]
