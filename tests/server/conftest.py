from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.contracts.conftest import believed
from tests.server.two_ways import TwoWays, two_ways

__all__ = ["believed"]


@pytest_asyncio.fixture
async def two() -> AsyncIterator[TwoWays]:
    async with two_ways() as both:
        yield both
