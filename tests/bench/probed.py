"""`python -m tests.bench.probed serve --config FILE`: `bridge serve`, and a probe in its event loop that says how late it runs.

The probe wants to run every 2 ms. `GET /bench/lag` gives for each run since the last asking how late it was, and how much of that
the bridge itself, all its threads together, had the processor for (the rest is other programs on its core), ms. A run that could
not even begin because an earlier one was late counts as late as it was: a stall is felt by everybody who comes while it lasts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import orjson
from fastapi import FastAPI
from starlette.responses import Response

from app.__main__ import main
from app.cli import serve
from app.clock import wall_ms
from app.config import Settings
from app.main import Service, build_service
from app.model import Clock

TICK_S = 0.002


class Probe:
    """(late, of that the bridge's own work), ms, for every tick since it was last taken."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []

    async def run(self) -> None:
        """For ever."""
        while True:
            # The wall's own clock: an event loop's stands still while a callback runs.
            due_s, worked_s = time.perf_counter() + TICK_S, time.process_time()
            await asyncio.sleep(TICK_S)
            late_s, worked_s = time.perf_counter() - due_s, time.process_time() - worked_s
            self._note(max(late_s, 0.0), worked_s)
            while (late_s := late_s - TICK_S) > 0:
                self._note(late_s, worked_s)

    def _note(self, late_s: float, worked_s: float) -> None:
        self._seen.append((late_s * 1000, min(late_s, worked_s) * 1000))

    async def take(self) -> Response:
        """What was seen since."""
        seen, self._seen = self._seen, []
        # Bytes: whatever the framework would do to a long list would be seen in the next taking.
        return Response(orjson.dumps(seen), media_type="application/json")


def probed(settings: Settings, clock: Clock = wall_ms) -> Service:
    """The service with the probe in it."""
    service, probe = build_service(settings, clock), Probe()
    app = service.app
    own = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(given: FastAPI) -> AsyncIterator[None]:
        inner: AbstractAsyncContextManager[None] = own(given)  # type: ignore[assignment]  # it yields nothing
        async with inner:
            running = asyncio.create_task(probe.run())
            yield
            running.cancel()

    app.router.lifespan_context = lifespan
    app.add_api_route("/bench/lag", probe.take)
    return service


if __name__ == "__main__":
    serve.build_service = probed  # type: ignore[attr-defined]  # what `serve` builds its service with
    sys.exit(main())
