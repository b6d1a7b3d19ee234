"""The operational routes: liveness, readiness, health of the sources, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from fastapi import APIRouter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from app.catalog import Metric
from app.errors import BridgeError
from app.model import Query, Result
from app.operations.haproxy import Condition
from app.operations.redis_shared_cache import RedisSharedCache
from app.operations.watch import Watch, ping_source
from app.policies import Guard
from app.query.bridge import Bridge
from app.sources.base import Source, skew_text
from app.sync import BackendSync
from app.telemetry import Telemetry, text_of

_METHODS = ["GET", "HEAD"]
_LAG_LIMIT_S = 1.0
_LAG_EVERY_S = 0.25


class Team(Protocol):
    """The workers of this replica, as one of them knows them."""

    @property
    def number(self) -> int:
        """Which one this is. 0 leads: what a replica has once runs there."""

    async def metrics_page(self) -> bytes:
        """The metrics of all of them, in the Prometheus text format. Raises BridgeError when they cannot be had."""


@dataclass(slots=True, kw_only=True)
class Operations:
    """What the operational routes read, and what runs beside the requests."""

    bridge: Bridge
    sources: Mapping[str, Source]
    guards: Mapping[str, Guard]
    watches: Mapping[str, Watch]
    sync: BackendSync
    telemetry: Telemetry
    shared_cache: RedisSharedCache | None = None
    #: sources that are configured but switched off
    off: tuple[str, ...] = ()
    #: the greatest age at which a cached answer of any source or metric may still be shown
    longest_stale_ms: int = 0
    #: None: this process is the whole replica
    team: Team | None = None
    draining: bool = False
    loop_lag_s: float = field(default=0.0)

    @property
    def leads(self) -> bool:
        """Whether what a replica has once runs in this process."""
        return self.team is None or self.team.number == 0

    def oldest_shown_ms(self) -> int:
        """When an answer must have been fetched at the earliest (epoch ms) to be shown now."""
        return self.bridge.clock() - self.longest_stale_ms

    def condition(self) -> Condition:
        """The state of the bridge as the load balancer needs it."""
        up = [watch for watch in self.watches.values() if watch.circuit.state != "open"]
        return Condition(ready=not self.draining, loop_lag_s=self.loop_lag_s, sources_up=len(up), sources=len(self.watches))

    def own_metrics(self) -> list[Family]:
        """The metrics of this process as they are now."""
        self._note_ages()
        return self.telemetry.families()

    async def metrics_page(self) -> bytes:
        """The bridge's own metrics in the Prometheus text format: this process's, or of all workers. Raises BridgeError."""
        if self.team is not None:
            return await self.team.metrics_page()
        self._note_ages()
        return self.telemetry.exposition()

    def _note_ages(self) -> None:
        for name, source in self.sources.items():
            if (age_s := _data_age_s(source)) is not None:
                self.telemetry.snapshot_age.labels(name).set(age_s)

    async def watch_loop(self) -> None:
        """Measure the event loop's lag, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self.loop_lag_s = max(loop.time() - due_s, 0.0)
            self.telemetry.loop_lag.set(self.loop_lag_s)


def operations_router(operations: Operations) -> APIRouter:
    """The routes over these operations."""
    router = APIRouter()
    router.add_api_route("/livez", livez, methods=_METHODS)
    for path, answer in (("/readyz", readyz), ("/health/sources", health_sources), ("/metrics", metrics)):
        router.add_api_route(path, partial(answer, operations), methods=_METHODS)
    return router


async def livez() -> Response:
    """200 while the event loop runs. Of several workers one that hangs accepts nobody, so one that runs answers here."""
    return Response("ok\n", media_type="text/plain")


async def readyz(operations: Operations) -> Response:
    """200 while this process can serve: not draining, the event loop less than a second late. No source matters here.

    Of several workers, all drain at the same time, and the lateness is that of the one that answers.
    """
    ready = not operations.draining and operations.loop_lag_s < _LAG_LIMIT_S
    return Response("ready\n" if ready else "not ready\n", 200 if ready else 503, media_type="text/plain")


async def health_sources(operations: Operations) -> dict[str, Any]:
    """Every source, asked now: up, how long it took, what answered, the age of its data, the last error.

    Of several workers the one that answers speaks for itself (its connections, circuits and cache), and says which one it is.
    """
    found = await asyncio.gather(*(_health_with_circuit(operations, name) for name in operations.sources))
    off = {name: {"up": False, "enabled": False, "error": "switched off in the configuration"} for name in operations.off}
    sources = dict(zip(operations.sources, found, strict=True)) | off
    worker = {} if operations.team is None else {"worker": operations.team.number}
    return {"ok": all(source["up"] for source in sources.values() if source["enabled"]), **worker, "sources": sources}


async def _health_with_circuit(operations: Operations, name: str) -> dict[str, Any]:
    """The health of one source, its circuit, its clock, and how many answers are cached for the next outage."""
    watch, answers = operations.watches[name], operations.guards[name].cache.answers
    found = await health(name, operations.sources[name])
    circuit = {"breaker": watch.circuit.state, "next_try_s": round(watch.circuit.wait_s, 1), "last_error": watch.last_error}
    source = operations.sources[name]
    clock = {"clock_skew_s": None if source.skew_s is None else round(source.skew_s, 3)}
    return found | circuit | clock | {"kept_answers": len(answers), "kept_bytes": answers.size_bytes}


async def health(name: str, source: Source) -> dict[str, Any]:
    """The health of one source, pinged now."""
    begun_s = time.perf_counter()
    answer, error = None, None
    try:
        answer = await ping_source(name, source)
    except BridgeError as failure:
        error = failure.message
    latency_ms = round((time.perf_counter() - begun_s) * 1000, 2)
    health = {"up": error is None, "enabled": True, "latency_ms": latency_ms, "answer": answer, "error": error}
    warning = "; ".join(filter(None, (skew_text(source), source.warning))) or None
    return health | {"warning": warning, "data_age_s": _data_age_s(source)}


def _data_age_s(source: Source) -> float | None:
    """The age of the source's data. None if the source does not know it, as before the first snapshot."""
    age_s = getattr(source, "age_s", None)
    with suppress(BridgeError):
        found: float | None = age_s() if age_s is not None else None
        return None if found is None else round(found, 3)
    return None


async def metrics(operations: Operations) -> Response:
    """The bridge's own metrics and the catalogue's live gauges, for Prometheus to scrape."""
    live = text_of(await _live_gauges(operations.bridge))
    return Response(await operations.metrics_page() + live, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _live_gauges(bridge: Bridge) -> list[GaugeMetricFamily]:
    exported = [metric for metric in bridge.catalogue.metrics.values() if metric.entry.export and metric.live]
    now_ms = bridge.clock()
    queries = [_export_query(metric, now_ms) for metric in exported]
    results = await bridge.run(queries, budget_s=2.0)
    return [_gauge_family(metric, result) for metric, result in zip(exported, results, strict=True) if result.status == "fresh"]


def _export_query(metric: Metric, now_ms: int) -> Query:
    by = metric.entry.export.by if metric.entry.export else ()
    # The open bucket only: it needs the live read alone. A gauge without a fresh value is not exported.
    step_ms = max(metric.entry.resolution_s * 1000, 1000)
    open_ms = now_ms // step_ms * step_ms
    return Query(metric.name, open_ms, open_ms + step_ms, step_ms=step_ms, by=by, instant=True, lane="background")


def _gauge_family(metric: Metric, result: Result) -> GaugeMetricFamily:
    export = metric.entry.export
    assert export is not None  # noqa: S101  `_live_gauges` chose metrics that have one
    family = GaugeMetricFamily(export.name, f"{metric.entry.title} ({metric.export_text()})", labels=export.by)
    for labels, _, values in result.frame.runs():
        found = dict(labels)
        family.add_metric([found.get(label, "") for label in export.by], float(values[-1]) * export.scale)
    return family
