"""Four real stores with a small world in them, and a bridge over them that listens on a port, for the commands of the manual."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from queue import Queue

import pytest
from fastapi import FastAPI

from tests.servers.listening import listening
from tests.servers.world import running_stores


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a bridge whose clock stands at the end of the world, so that `now` has data.

    It runs in a thread of this process, so it ends with the module that asks it: other tests measure what a process does.
    """
    with running_stores(tmp_path_factory.mktemp("world")) as stores:
        ports, stopped = Queue[int](), threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(serve_until(stores.app(fresh_s=1), ports, stopped)))
        thread.start()
        try:
            yield f"http://127.0.0.1:{ports.get(timeout=30)}"
        finally:
            stopped.set()
            thread.join(30)


async def serve_until(app: FastAPI, ports: Queue[int], stopped: threading.Event) -> None:
    """Listen, say on which port, and end when told to."""
    async with listening(app) as port:
        ports.put(port)
        await asyncio.to_thread(stopped.wait)
