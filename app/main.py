"""The composition root: settings in, application out; it opens and closes the sources."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__, ops
from app.bridge import Bridge
from app.catalog import Catalogue, Limits, load_folder
from app.config import Settings
from app.contracts import ROUTERS
from app.contracts.deps import Serving, error_response
from app.errors import BadQuery, BridgeError, UnknownName
from app.model import Clock
from app.policies import guard
from app.sources.base import Source
from app.telemetry import Telemetry


def now_ms() -> int:
    """The wall clock, epoch ms."""
    return time.time_ns() // 1_000_000


def create_app(settings: Settings, clock: Clock = now_ms) -> FastAPI:
    """The application of one bridge. Raises ConfigError when the catalogue is wrong. Sources connect when first asked."""
    catalogue = load_folder(settings.catalog_folder, settings.kinds)
    return application(settings, assemble(settings, catalogue, _build(settings), clock))


def application(settings: Settings, operations: ops.Operations) -> FastAPI:
    """The routes over a bridge that is put together; its sources are open while the application runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for source in operations.sources.values():
                await source.open()
                stack.push_async_callback(source.close)
            watching = asyncio.create_task(operations.watch_loop())
            yield
            operations.draining = True
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    app = FastAPI(title="bridge", version=__version__, lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None)
    app.state.operations = operations
    app.state.serving = Serving(
        operations.bridge, settings.request.budget_s, settings.http.max_body_bytes, settings.request.max_rows
    )
    for router in (*ROUTERS, ops.router):
        app.include_router(router)
    _answer_errors(app)
    _wrap(app, settings, operations.telemetry)
    return app


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
    """The bridge over guarded sources, with its telemetry."""
    telemetry = Telemetry()
    telemetry.build_info.labels(__version__).set(1)
    fetches = {
        name: guard(name, source.fetch, settings.sources[name].policy, telemetry, clock, asyncio.sleep)
        for name, source in sources.items()
    }
    request = settings.request
    limits = Limits(max_range_s=request.max_range_s, max_points=request.max_points, max_targets=request.max_targets)
    bridge = Bridge(catalogue, fetches, telemetry, clock, limits, request.concurrent)
    return ops.Operations(bridge, sources, telemetry, off=tuple(settings.sources.keys() - sources.keys()))


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
    app.add_middleware(_Edge, telemetry=telemetry)


class _Edge:
    """Plain ASGI around everything: a trailing slash means nothing, and every answer is counted and timed by its route."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path.endswith("/") and path != "/":
            scope = {**scope, "path": path.rstrip("/") or "/"}
        begun_s, status = time.perf_counter(), 500

        async def noting(message: dict[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(str(message["status"]))
            await send(message)

        try:
            await self._app(scope, receive, noting)  # type: ignore[arg-type]  # a message is a mutable mapping
        finally:
            # The route's template, never the caller's path: a metric's labels must stay few.
            route = getattr(scope.get("route"), "path", "other")
            self._telemetry.http_requests.labels(route, str(status)).inc()
            self._telemetry.http_seconds.labels(route).observe(time.perf_counter() - begun_s)
