"""The composition root: settings in, application out; it opens and closes the sources."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import __version__, backup, ops, warm
from app.admission import Admission, Turnstile, lane_of
from app.auth import Authenticated, Keys, authorization
from app.bridge import Bridge
from app.catalog import Catalogue, Limits, load_folder
from app.config import Settings
from app.contracts import ROUTERS
from app.contracts.deps import Serving, error_response
from app.contracts.hot import Hot, request_id
from app.contracts.ready import Ready
from app.errors import BadQuery, BridgeError, TooBusy, UnknownName
from app.haproxy import Agent
from app.model import Clock, Lane
from app.outages import Outages
from app.policies import Common, Guard, Places, Reaches, guard, unpublished
from app.sources import DuckDBSource, RedisSource
from app.sources.base import Source, telling_skew
from app.sync import BackendSync
from app.telemetry import Telemetry
from app.tier import RedisShelf
from app.watch import Watch

_log = logging.getLogger(__name__)


def now_ms() -> int:
    """The wall clock, epoch ms."""
    return time.time_ns() // 1_000_000


def create_app(settings: Settings, clock: Clock = now_ms) -> FastAPI:
    """The application of one bridge. Raises ConfigError when the catalogue is wrong. Sources connect when first asked."""
    catalogue = load_folder(settings.catalog_folder, settings.kinds)
    return application(settings, assemble(settings, catalogue, _build(settings), clock))


def application(settings: Settings, operations: ops.Operations) -> FastAPI:
    """The routes over a bridge that is put together; its sources are open and watched while the application runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await _open(stack, settings, operations)
            yield
            operations.draining = True

    ready = Ready(settings.request.ready_bytes, operations.telemetry, operations.bridge.clock, settings.http.gzip)
    hot, keys = Hot(ready, operations.telemetry), Keys(settings.auth.keys, operations.bridge.clock)
    app = _Application(
        hot,
        keys,
        title="bridge",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.operations = operations
    app.state.hot = hot
    app.state.keys = keys
    app.state.serving = Serving(
        operations.bridge, settings.request.budget_s, settings.http.max_body_bytes, settings.request.max_rows, ready
    )
    for router in (*ROUTERS, ops.router):
        app.include_router(router)
    _answer_errors(app)
    app.add_middleware(Authenticated, keys=keys, telemetry=operations.telemetry)
    _wrap(app, settings, operations.telemetry)
    return app


class _Application(FastAPI):
    """FastAPI, and before it the short way of answers that are ready: no middleware of the framework costs them anything."""

    def __init__(self, hot: Hot, keys: Keys, **rest: Any) -> None:
        super().__init__(**rest)
        self._hot = hot
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and self._keys.admit(authorization(scope["headers"])):
            left = await self._hot.answered(scope, receive, send)
            if left is None:
                return
            receive = left
        await super().__call__(scope, receive, send)


async def _open(stack: AsyncExitStack, settings: Settings, operations: ops.Operations) -> None:
    """Begin everything that runs beside the requests; what is opened last is closed first."""
    if operations.shelf is not None:
        stack.push_async_callback(operations.shelf.close)
    for source in operations.sources.values():
        await source.open()
        stack.push_async_callback(source.close)
    if settings.state is not None:
        _log.info("%d answers of the last run are loaded, none of them fresh", warm.load(settings.state, operations.guards))
        stack.push_async_callback(_save, settings.state, operations)
    for guarded in operations.guards.values():
        stack.push_async_callback(guarded.close)
    await operations.sync.start()
    stack.push_async_callback(operations.sync.stop)
    watching = [asyncio.create_task(watch.run()) for watch in operations.watches.values()]
    if (backups := settings.backups) is not None:
        watching.append(asyncio.create_task(backup.watch(backups, operations.telemetry)))
    stack.push_async_callback(_end, [*watching, asyncio.create_task(operations.watch_loop())])
    if settings.agent.port is not None:
        agent = Agent(operations.condition)
        await agent.start(settings.agent.host, settings.agent.port)
        stack.push_async_callback(agent.stop)


async def _save(folder: Path, operations: ops.Operations) -> None:
    oldest_ms = operations.bridge.clock() - operations.longest_stale_ms
    _log.info("%d answers are kept for the next run", await asyncio.to_thread(warm.save, folder, operations.guards, oldest_ms))


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def check_sources(settings: Settings) -> dict[str, dict[str, Any]]:
    """The health of every enabled source, asked once."""
    async with AsyncExitStack() as stack:
        sources = _build(settings)
        for source in sources.values():
            await source.open()
            stack.push_async_callback(source.close)
        return dict(zip(sources, await asyncio.gather(*(ops.health(*item) for item in sources.items())), strict=True))


def _build(settings: Settings) -> dict[str, Source]:
    return {name: source.connect.build(name) for name, source in settings.sources.items() if source.connect.enabled}


def assemble(settings: Settings, catalogue: Catalogue, sources: Mapping[str, Source], clock: Clock = now_ms) -> ops.Operations:
    """The bridge over guarded sources, with its telemetry and everything that looks after them."""
    telemetry = Telemetry()
    telemetry.build_info.labels(__version__).set(1)
    shelf = RedisShelf(settings.tier) if settings.tier.host else None
    common = Common(telemetry, clock, asyncio.sleep, Places(settings.request.concurrent), shelf)
    guards = {
        name: guard(
            name,
            telling_skew(source),
            settings.sources[name].policy,
            common,
            _fingerprint(settings, name),
            _reaches(source),
        )
        for name, source in sources.items()
    }
    request = settings.request
    limits = Limits(max_range_s=request.max_range_s, max_points=request.max_points, max_targets=request.max_targets)
    fetches = {name: found.fetch for name, found in guards.items()}
    sync = build_sync(settings, telemetry, clock)
    outages = Outages(sync, clock)
    return ops.Operations(
        bridge=Bridge(catalogue, fetches, telemetry, clock, limits),
        sources=sources,
        guards=guards,
        watches={name: _watch(settings, source, guards[name], telemetry, outages) for name, source in sources.items()},
        sync=sync,
        telemetry=telemetry,
        shelf=shelf,
        off=tuple(settings.sources.keys() - sources.keys()),
        longest_stale_ms=round(max((source.policy.stale_s for source in settings.sources.values()), default=0) * 1000),
    )


def build_sync(settings: Settings, telemetry: Telemetry, clock: Clock = now_ms) -> BackendSync:
    """The backend sync as the settings have it; what it cannot deliver waits in the state folder."""
    sync = settings.sync
    if sync.spool is None and settings.state is not None:
        sync = sync.model_copy(update={"spool": settings.state / "sync"})
    return BackendSync(sync, lambda event, outcome: telemetry.sync_calls.labels(event, outcome).inc(), clock)


def _watch(settings: Settings, source: Source, guarded: Guard, telemetry: Telemetry, outages: Outages) -> Watch:
    policy = settings.sources[source.name].policy
    look_s = min(policy.look_s, policy.probe_s)
    if not isinstance(source, RedisSource):
        return Watch(source.name, source, guarded, telemetry, look_s)
    server = source.server
    outages.follow(server, source.name)

    def answered() -> None:
        outages.answered(server, source.memory)

    return Watch(source.name, source, guarded, telemetry, look_s, answered, lambda: outages.failed(server))


def _reaches(source: Source) -> Reaches:
    return (lambda: source.reaches_ms) if isinstance(source, DuckDBSource) else unpublished


def _fingerprint(settings: Settings, name: str) -> str:
    """What tells this source's answers from those of one that is configured otherwise. Secrets are masked in it."""
    return hashlib.sha256(settings.sources[name].connect.model_dump_json().encode()).hexdigest()


def _answer_errors(app: FastAPI) -> None:
    """One shape for every error body (contract.md 1.8); nothing answers with FastAPI's own."""

    @app.exception_handler(BridgeError)
    async def ours(_: Request, failure: Exception) -> Response:
        assert isinstance(failure, BridgeError)  # noqa: S101  registered for this class
        return error_response(failure)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, failure: Exception) -> Response:
        assert isinstance(failure, HTTPException)  # noqa: S101  registered for this class
        if failure.status_code == 405:
            allowed = (failure.headers or {}).get("Allow", "")
            response = error_response(
                BadQuery(f"method {request.method} is not allowed here; allowed: {allowed}"), {"Allow": allowed}
            )
            response.status_code = 405
            return response
        return error_response(UnknownName(f"no route {request.method} {request.url.path}; see the README for the list"))

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: Exception) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def bug(_: Request, __: Exception) -> Response:
        return error_response(BridgeError("internal error; see the bridge's log"))


def _wrap(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    if settings.http.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.http.cors_origins),
            allow_methods=["GET", "POST", "HEAD", "OPTIONS"],
            allow_headers=["content-type", "authorization", "x-grafana-org-id"],
            expose_headers=["Bridge-Result", "Server-Timing"],
        )
    app.state.admission = Admission(settings.request.under_way, telemetry)
    app.add_middleware(_Edge, telemetry=telemetry, admission=app.state.admission)


class _Edge:
    """Plain ASGI around everything: a trailing slash means nothing, too many requests are refused at once, and every answer is
    counted and timed by its route.

    A refusal is made ready here beforehand: under three times the load that can be served there are two for each answer, and what
    they cost is taken from the answers.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, admission: Admission) -> None:
        self._app = app
        self._telemetry = telemetry
        self._admission = admission
        self._turnstile = Turnstile()
        refusal = error_response(TooBusy("too many requests are under way; try again in a second"))
        self._refusal: tuple[Message, Message] = (
            {"type": "http.response.start", "status": refusal.status_code, "headers": refusal.raw_headers},
            {"type": "http.response.body", "body": refusal.body},
        )
        self._refused_seconds = telemetry.http_seconds.labels("other")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s, path = time.perf_counter(), scope["path"]
        if path.endswith("/") and path != "/":
            path = path.rstrip("/") or "/"
            scope = {**scope, "path": path}
        lane = lane_of(path)
        if lane is not None and self._admission.refuses(lane):
            await self._refuse(send, begun_s)
            return
        status = 500

        given = request_id(dict(scope["headers"]))

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if given:
                    message = {**message, "headers": [*message["headers"], *given]}
            await send(message)

        try:
            await (self._admitted(lane, scope, receive, noting) if lane else self._app(scope, receive, noting))
        finally:
            # The route's template, never the caller's path: a metric's labels must stay few.
            route = getattr(scope.get("route"), "path", "other")
            self._telemetry.http_requests.labels(route, str(status)).inc()
            self._telemetry.http_seconds.labels(route).observe(time.perf_counter() - begun_s)

    async def _refuse(self, send: Send, begun_s: float) -> None:
        for message in self._refusal:
            await send(message)
        self._admission.refused()
        self._refused_seconds.observe(time.perf_counter() - begun_s)

    async def _admitted(self, lane: Lane, scope: Scope, receive: Receive, send: Send) -> None:
        with self._admission.admitted(lane):
            await self._turnstile.passed(lane)
            await self._app(scope, receive, send)
