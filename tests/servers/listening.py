"""An application behind uvicorn on a loopback port, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn


@asynccontextmanager
async def listening(application: Any, **more: Any) -> AsyncIterator[int]:
    """Its port; `more` is for `uvicorn.Config`."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, **more))
    running = asyncio.create_task(server._serve())  # noqa: SLF001  `serve` would take the process' signals
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await running
