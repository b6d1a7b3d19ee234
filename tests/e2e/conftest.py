"""Four real stores with a small world in them, shared by all end-to-end tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from tests.servers.world import Stores, running_stores


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """The stores, with 24 hours of a world of 4 terminals and 8 accounts."""
    with running_stores(tmp_path_factory.mktemp("world")) as running:
        yield running


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, its sources opened and closed around it."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bridge", timeout=30) as client,
    ):
        yield client
