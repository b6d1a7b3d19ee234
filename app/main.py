"""The composition root: settings in, one service out; it opens and closes the sources."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import __version__, backup
from app.catalog import Catalogue, load_folder
from app.clock import wall_ms
from app.config import Settings
from app.contracts import ROUTERS
from app.contracts.budget import find_refusal
from app.contracts.request import Serving
from app.model import Clock
from app.operations import cache_file as warm
from app.operations.certificates import watch_certificates
from app.operations.haproxy import Agent
from app.operations.redis_outages import RedisOutages
from app.operations.redis_shared_cache import RedisSharedCache
from app.operations.routes import Operations, operations_router
from app.operations.snapshot_counts import snapshot_folders, watch_snapshots
from app.operations.watch import Watch
from app.policies import Guard, PolicyDeps, PrioritySemaphore, PublishedUntil, always_current, guard
from app.query.admission import CostAdmission, CostLimits
from app.query.bridge import Bridge
from app.query.costs import CostBook
from app.query.limits import Limits
from app.responses.cache import ResponseCache
from app.server.auth import AuthMiddleware, Keys
from app.server.edge import Admission, EdgeMiddleware
from app.server.errors import add_error_handlers
from app.server.fast_path import FastPath
from app.server.protocol import protocol_class
from app.server.unsent import UnsentBodies
from app.sources import DuckDBSource, RedisSource
from app.sources.base import Source, with_skew_notice
from app.sources.off import switched_off
from app.sync import BackendSync
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)

_CORS_HEADERS = ("Bridge-Result", "Bridge-Notice", "Bridge-Next-Cursor", "Bridge-Total-Rows", "Link", "Server-Timing")


@dataclass(frozen=True, slots=True)
class Service:
    """One bridge, put together."""

    #: its sources are open and watched while it runs
    app: FastAPI
    #: for `uvicorn.Config(http=...)`: kept responses and refusals before the HTTP parser
    http_protocol: type[HttpToolsProtocol]
    operations: Operations
    responses: ResponseCache


def build_service(settings: Settings, clock: Clock = wall_ms) -> Service:
    """The service of these settings. Raises ConfigError when the catalogue is wrong. Sources connect when first asked."""
    catalogue = load_folder(settings.catalog_folder, settings.kinds)
    return compose_service(settings, build_operations(settings, catalogue, build_sources(settings), clock))


def compose_service(settings: Settings, operations: Operations) -> Service:
    """The HTTP side over operations that are put together."""
    bridge, telemetry, request = operations.bridge, operations.telemetry, settings.request
    keys = Keys(settings.auth.keys, bridge.clock)
    admission = Admission(request.under_way, telemetry)
    responses = ResponseCache(request.ready_bytes, telemetry, bridge.clock, settings.http.gzip)
    unsent = UnsentBodies(settings.http.unsent_bytes, settings.http.reader_s, telemetry)
    limits = CostLimits(request.light_bytes, request.heavy_bytes, settings.http.unsent_bytes)
    serving = Serving(
        bridge,
        request.budget_s,
        settings.http.max_body_bytes,
        request.most_cells,
        responses,
        CostAdmission(limits, telemetry, unsent.total_bytes),
        CostBook(bridge.catalogue),
    )
    refuse = partial(find_refusal, serving)
    fast_path = FastPath(responses, keys, telemetry.requests, settings.http.max_body_bytes, refuse)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await _open_parts(stack, settings, operations)
            yield
            operations.draining = True

    app = FastAPI(title="bridge", version=__version__, lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None)
    app.state.serving = serving
    for router in (*ROUTERS, operations_router(operations)):
        app.include_router(router)
    add_error_handlers(app)
    # The one that is added last is the outermost.
    app.add_middleware(AuthMiddleware, keys=keys, telemetry=telemetry)
    if settings.http.cors_origins:
        _allow_origins(app, settings.http.cors_origins)
    app.add_middleware(EdgeMiddleware, metrics=telemetry.requests, admission=admission)
    return Service(app, protocol_class(admission, fast_path, unsent), operations, responses)


def _allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "HEAD", "OPTIONS"],
        allow_headers=["content-type", "authorization", "x-grafana-org-id"],
        expose_headers=list(_CORS_HEADERS),
    )


async def _open_parts(stack: AsyncExitStack, settings: Settings, operations: Operations) -> None:
    """Start everything that runs beside the requests; what is opened last is closed first."""
    if operations.shared_cache is not None:
        stack.push_async_callback(operations.shared_cache.close)
    for source in operations.sources.values():
        await source.open()
        stack.push_async_callback(source.close)
    if settings.state is not None:
        loaded = warm.load(settings.state, operations.guards, operations.oldest_shown_ms())
        _log.info("%d answers of the last run are loaded, none of them fresh", loaded)
        stack.push_async_callback(_save_answers, settings.state, operations)
    for guarded in operations.guards.values():
        stack.push_async_callback(guarded.close)
    await operations.sync.start()
    stack.push_async_callback(operations.sync.stop)
    watching = [asyncio.create_task(watch.run()) for watch in operations.watches.values()]
    if operations.leads:
        watching += [asyncio.create_task(looking) for looking in _what_is_kept(settings, operations.telemetry)]
    stack.push_async_callback(_end_tasks, [*watching, asyncio.create_task(operations.watch_loop())])
    if settings.agent.port is not None:
        agent = Agent(operations.condition)
        await agent.start(settings.agent.host, settings.agent.port)
        stack.push_async_callback(agent.stop)


def _what_is_kept(settings: Settings, telemetry: Telemetry) -> Iterator[Coroutine[None, None, None]]:
    """The looks at backups, snapshots and certificates, each for ever."""
    if (backups := settings.backups) is not None:
        yield backup.watch_backups(backups, telemetry)
    if folders := snapshot_folders({name: source.connect for name, source in settings.sources.items()}):
        yield watch_snapshots(folders, telemetry)
    if settings.certificates.endpoints:
        yield watch_certificates(settings.certificates, telemetry)


async def _save_answers(folder: Path, operations: Operations) -> None:
    saved = await asyncio.to_thread(warm.save, folder, operations.guards, operations.oldest_shown_ms())
    _log.info("%d answers are kept for the next run", saved)


async def _end_tasks(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def build_sources(settings: Settings) -> dict[str, Source]:
    """The enabled sources; none of them is open yet."""
    return {name: source.connect.build(name) for name, source in settings.sources.items() if source.connect.enabled}


def build_operations(
    settings: Settings, catalogue: Catalogue, sources: Mapping[str, Source], clock: Clock = wall_ms
) -> Operations:
    """The bridge over guarded sources, its telemetry, and all that looks after the sources."""
    telemetry = Telemetry()
    telemetry.build_info.labels(__version__).set(1)
    for name, key in settings.auth.keys.items():
        if key.expires is not None:
            telemetry.key_end.labels(name).set(key.expires.timestamp())
    shelf = RedisSharedCache(settings.tier) if settings.tier.host else None
    common = PolicyDeps(telemetry, clock, asyncio.sleep, PrioritySemaphore(settings.request.concurrent), shelf)
    guards = {
        name: guard(
            name,
            with_skew_notice(source),
            settings.sources[name].policy,
            common,
            _fingerprint(settings, name),
            _published_until(source),
        )
        for name, source in sources.items()
    }
    off = tuple(settings.sources.keys() - sources.keys())
    fetches = {name: found.fetch for name, found in guards.items()} | {name: switched_off(name) for name in off}
    sync = build_sync(settings, telemetry, clock)
    outages = RedisOutages(sync, clock)
    return Operations(
        bridge=Bridge(catalogue, fetches, telemetry, clock, _limits_of(settings)),
        sources=sources,
        guards=guards,
        watches={name: _build_watch(settings, source, guards[name], telemetry, outages) for name, source in sources.items()},
        sync=sync,
        telemetry=telemetry,
        shared_cache=shelf,
        off=off,
        longest_stale_ms=_longest_stale_ms(settings, catalogue),
    )


def _limits_of(settings: Settings) -> Limits:
    request = settings.request
    return Limits(
        max_range_s=request.max_range_s,
        max_points=request.max_points,
        max_targets=request.max_targets,
        max_filter_values=request.max_filter_values,
        most_series=request.most_series,
        most_cells=request.most_cells,
        most_rows={name: source.connect.max_rows for name, source in settings.sources.items()},
    )


def _longest_stale_ms(settings: Settings, catalogue: Catalogue) -> int:
    """The greatest `stale_s` of all sources and metrics."""
    own = (metric.entry.cache.stale_s for metric in catalogue.metrics.values() if metric.entry.cache is not None)
    stale_s = [source.policy.stale_s for source in settings.sources.values()]
    return round(max([*stale_s, *(one for one in own if one is not None)], default=0) * 1000)


def build_sync(settings: Settings, telemetry: Telemetry, clock: Clock = wall_ms) -> BackendSync:
    """The backend sync of these settings. Events that cannot be delivered wait in the state folder."""
    sync = settings.sync
    if sync.spool is None and settings.state is not None:
        sync = sync.model_copy(update={"spool": settings.state / "sync"})
    return BackendSync(sync, lambda event, outcome: telemetry.sync_calls.labels(event, outcome).inc(), clock)


def _build_watch(settings: Settings, source: Source, guarded: Guard, telemetry: Telemetry, outages: RedisOutages) -> Watch:
    policy = settings.sources[source.name].policy
    look_s = min(policy.look_s, policy.probe_s)
    if not isinstance(source, RedisSource):
        return Watch(source.name, source, guarded, telemetry, look_s)
    server = source.server
    outages.follow(server, source.name)

    def answered() -> None:
        if source.is_whole:
            outages.answered(server, source.memory)
        elif source.is_whole is False:
            outages.failed(server)

    return Watch(source.name, source, guarded, telemetry, look_s, answered, lambda: outages.failed(server))


def _published_until(source: Source) -> PublishedUntil:
    return (lambda: source.reaches_ms) if isinstance(source, DuckDBSource) else always_current


def _fingerprint(settings: Settings, name: str) -> str:
    """Differs for sources that are configured differently, so that neither reuses the other's answers. Secrets are masked."""
    return hashlib.sha256(settings.sources[name].connect.model_dump_json().encode()).hexdigest()
