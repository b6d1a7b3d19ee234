from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.contract.app_under_test import Bench, bench
from tests.servers.grafana import FrameConverter


@pytest.fixture(scope="session")
def frame_converter() -> Iterator[FrameConverter]:
    with FrameConverter() as converter:
        yield converter


@pytest_asyncio.fixture
async def at() -> AsyncIterator[Bench]:
    made = bench()
    async with made.app.router.lifespan_context(made.app), made.client:
        yield made
