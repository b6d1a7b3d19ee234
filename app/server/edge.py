"""The outermost middleware: plain paths, admission (an overload is refused quickly), counting and timing."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.contracts.request import ARRIVED_S, error_response
from app.cooperative import wait_turn
from app.errors import TooBusy
from app.model import LANES, Lane
from app.responses.headers import request_id_headers
from app.telemetry import RequestMetrics, Telemetry

#: Answered at any load: others judge this replica by them.
_EXEMPT = frozenset(("/livez", "/readyz", "/health/sources", "/metrics"))
_SLASHES = re.compile("//+")


def refusal() -> Response:
    """The 429 of a full bridge."""
    return error_response(TooBusy("too many requests are under way; try again in a second"))


class Admission:
    """At most `limit` requests at the same time; one more is refused at once. Only alert rules may use the last tenth."""

    def __init__(self, limit: int, telemetry: Telemetry) -> None:
        self._limits = {lane: limit if lane == "alert" else max(limit * 9 // 10, 1) for lane in LANES}
        self._shed = {lane: telemetry.shed.labels(lane) for lane in LANES}
        self._requests = telemetry.requests
        self._requests.count("other", "429", 0)
        self.under_way = 0

    @contextmanager
    def occupy_slot(self) -> Iterator[None]:
        """Count one request as under way while the block runs. Ask `refuses` before."""
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    @property
    def is_full(self) -> bool:
        """Whether some request might have to be refused."""
        return self.under_way >= self._limits["interactive"]

    def count_refusal(self) -> None:
        """One more request was answered with 429."""
        self._requests.count("other", "429")

    def refuses(self, lane: Lane) -> bool:
        """Whether there is no room for one more request, which is then counted as shed."""
        if self.under_way < self._limits[lane]:
            return False
        self._shed[lane].inc()
        return True


def plain_path(path: str) -> str:
    """The path without slashes that mean nothing, at its end or doubled: plugins add them to a base address that ends in one.

    `//metrics` stays as it is and is not found: a load balancer keeps strangers from `/metrics` by the path that it sees.
    """
    if not path.endswith("/") and "//" not in path:
        return path
    plain = _SLASHES.sub("/", path).rstrip("/") or "/"
    return path if plain == "/metrics" and "//" in path else plain


def lane_of(path: str) -> Lane | None:
    """The lane of a request; None if it is always let in."""
    plain = plain_path(path)
    if plain in _EXEMPT:
        return None
    return "alert" if plain.startswith("/alert/") else "interactive"


class EdgeMiddleware:
    """Plain ASGI around everything else."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, admission: Admission) -> None:
        self._app = app
        self._metrics = metrics
        self._admission = admission
        # Built once: at three times the load that can be served there are two refusals for each answer.
        response = refusal()
        self._refusal: tuple[Message, Message] = (
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers},
            {"type": "http.response.body", "body": response.body},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s, path = time.perf_counter(), plain_path(scope["path"])
        if path != scope["path"]:
            scope = {**scope, "path": path}
        lane = lane_of(path)
        if lane is not None and self._admission.refuses(lane):
            await self._refuse(send, begun_s)
            return
        scope[ARRIVED_S] = asyncio.get_running_loop().time()
        status = 500
        request_id = request_id_headers(dict(scope["headers"]))

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if request_id:
                    message = {**message, "headers": [*message["headers"], *request_id]}
            await send(message)

        try:
            await (
                self._run_admitted(lane, scope, receive, send_noting_status)
                if lane
                else self._app(scope, receive, send_noting_status)
            )
        finally:
            # The route's template, never the caller's path: a metric's labels must stay few.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.record(route, str(status), time.perf_counter() - begun_s)

    async def _refuse(self, send: Send, begun_s: float) -> None:
        for message in self._refusal:
            await send(message)
        self._admission.count_refusal()
        self._metrics.observe("other", time.perf_counter() - begun_s)

    async def _run_admitted(self, lane: Lane, scope: Scope, receive: Receive, send: Send) -> None:
        with self._admission.occupy_slot():
            await wait_turn(lane)
            await self._app(scope, receive, send)
