"""What operators and machines ask: alive, ready, the health of the sources, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from app.bridge import Bridge
from app.catalog import Metric
from app.errors import BridgeError, SourceTimeout
from app.haproxy import Condition
from app.model import Query, Result
from app.policies import Guard
from app.sources.base import Source, skew_text
from app.sync import BackendSync
from app.telemetry import Telemetry
from app.tier import RedisShelf
from app.watch import Watch

router = APIRouter()

_PING_S = 1.0
_LAG_LIMIT_S = 1.0
_LAG_EVERY_S = 0.25


@dataclass(slots=True, kw_only=True)
class Operations:
    """What the operational routes look at, and what runs beside the requests."""

    bridge: Bridge
    sources: Mapping[str, Source]
    guards: Mapping[str, Guard]
    watches: Mapping[str, Watch]
    sync: BackendSync
    telemetry: Telemetry
    shelf: RedisShelf | None = None
    #: sources that are configured but switched off
    off: tuple[str, ...] = ()
    #: the greatest age at which any source's answer may still stand in
    longest_stale_ms: int = 0
    draining: bool = False
    loop_lag_s: float = field(default=0.0)

    def condition(self) -> Condition:
        """What the load balancer is told."""
        up = [watch for watch in self.watches.values() if watch.circuit.state != "open"]
        return Condition(ready=not self.draining, loop_lag_s=self.loop_lag_s, sources_up=len(up), sources=len(self.watches))

    async def watch_loop(self) -> None:
        """Measure for ever how late the event loop runs."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self.loop_lag_s = max(loop.time() - due_s, 0.0)
            self.telemetry.loop_lag.set(self.loop_lag_s)


def _operations(request: Request) -> Operations:
    return cast("Operations", request.app.state.operations)


@router.api_route("/livez", methods=["GET", "HEAD"])
async def livez() -> Response:
    """200 while the event loop turns."""
    return Response("ok\n", media_type="text/plain")


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def readyz(request: Request) -> Response:
    """200 while this process can serve: not draining, the event loop less than a second late. No source matters here."""
    operations = _operations(request)
    ready = not operations.draining and operations.loop_lag_s < _LAG_LIMIT_S
    return Response("ready\n" if ready else "not ready\n", 200 if ready else 503, media_type="text/plain")


@router.api_route("/health/sources", methods=["GET", "HEAD"])
async def health_sources(request: Request) -> dict[str, Any]:
    """Every source, asked now: up, how long it took, what answered, the age of its data, the last error."""
    operations = _operations(request)
    found = await asyncio.gather(*(_watched_health(operations, name) for name in operations.sources))
    off = {name: {"up": False, "enabled": False, "error": "switched off in the configuration"} for name in operations.off}
    sources = dict(zip(operations.sources, found, strict=True)) | off
    return {"ok": all(source["up"] for source in sources.values() if source["enabled"]), "sources": sources}


async def _watched_health(operations: Operations, name: str) -> dict[str, Any]:
    """One source, asked now, and what its watch knows: the circuit, the last outage's reason, what is kept for the next one."""
    watch, answers = operations.watches[name], operations.guards[name].cache.answers
    found = await health(name, operations.sources[name])
    circuit = {"breaker": watch.circuit.state, "next_try_s": round(watch.circuit.wait_s, 1), "last_error": watch.last_error}
    source = operations.sources[name]
    clock = {
        "clock_skew_s": None if source.skew_s is None else round(source.skew_s, 3),
        "warning": skew_text(source) or source.warning,
    }
    return found | circuit | clock | {"kept_answers": len(answers), "kept_bytes": answers.size_bytes}


async def health(name: str, source: Source) -> dict[str, Any]:
    """One source, asked now."""
    begun_s = time.perf_counter()
    answer, error = None, None
    try:
        async with asyncio.timeout(_PING_S):
            answer = await source.ping()
    except TimeoutError:
        error = SourceTimeout(name, f"no answer within {_PING_S:g}s").message
    except BridgeError as failure:
        error = failure.message
    latency_ms = round((time.perf_counter() - begun_s) * 1000, 2)
    health = {"up": error is None, "enabled": True, "latency_ms": latency_ms, "answer": answer, "error": error}
    return health | {"data_age_s": _data_age_s(source)}


def _data_age_s(source: Source) -> float | None:
    """How old the source's data is, where it knows that: before the first snapshot it does not."""
    age_s = getattr(source, "age_s", None)
    with suppress(BridgeError):
        found: float | None = age_s() if age_s is not None else None
        return None if found is None else round(found, 3)
    return None


@router.api_route("/metrics", methods=["GET", "HEAD"])
async def metrics(request: Request) -> Response:
    """The bridge's own metrics and the catalogue's live gauges, for Prometheus to scrape."""
    operations = _operations(request)
    for name, source in operations.sources.items():
        if (age_s := _data_age_s(source)) is not None:
            operations.telemetry.snapshot_age.labels(name).set(age_s)
    live = CollectorRegistry(auto_describe=False)
    live.register(_Gauges(await _live_gauges(operations.bridge)))
    text = operations.telemetry.exposition() + generate_latest(live)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _live_gauges(bridge: Bridge) -> list[GaugeMetricFamily]:
    exported = [metric for metric in bridge.catalogue.metrics.values() if metric.entry.export and metric.live]
    now_ms = bridge.clock()
    queries = [_export_query(metric, now_ms) for metric in exported]
    results = await bridge.run(queries, budget_s=2.0)
    return [_gauge(metric, result) for metric, result in zip(exported, results, strict=True) if result.status == "fresh"]


def _export_query(metric: Metric, now_ms: int) -> Query:
    by = metric.entry.export.by if metric.entry.export else ()
    # Only the open bucket: the live read alone is asked, and what cannot be had now is not exported at all.
    step_ms = max(metric.entry.resolution_s * 1000, 1000)
    open_ms = now_ms // step_ms * step_ms
    return Query(metric.name, open_ms, open_ms + step_ms, step_ms=step_ms, by=by, instant=True, lane="background")


def _gauge(metric: Metric, result: Result) -> GaugeMetricFamily:
    export = metric.entry.export
    assert export is not None  # noqa: S101  `_live_gauges` chose metrics that have one
    family = GaugeMetricFamily(export.name, metric.entry.title, labels=export.by)
    for labels, _, values in result.frame.runs():
        found = dict(labels)
        family.add_metric([found.get(label, "") for label in export.by], float(values[-1]) * export.scale)
    return family


class _Gauges(Collector):
    """Families that are ready, as the client library's text writer wants them."""

    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> list[GaugeMetricFamily]:
        """The families."""
        return self._families
