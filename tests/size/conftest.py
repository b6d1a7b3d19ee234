"""Stores as full as a desk's, and a bridge over them with time enough: the tests ask whether an answer is whole and right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from app.main import build_service
from tests.e2e.conftest import client_of
from tests.servers.world import Stores, running_stores, unhurried


@pytest.fixture(scope="module")
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """The stores; the module's ACCOUNTS, HOURS and DAYS_BEFORE say how full."""
    accounts, hours, days_before = request.module.ACCOUNTS, request.module.HOURS, request.module.DAYS_BEFORE
    folder = tmp_path_factory.mktemp("desk")
    with running_stores(folder, hours=hours, instances=accounts // 2, eventful=False, days_before=days_before) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(desk: Stores) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the bridge."""
    async with client_of(build_service(unhurried(desk.settings()), lambda: desk.until_ms).app) as one:
        yield one
