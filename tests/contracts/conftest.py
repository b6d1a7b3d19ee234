from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.contracts.app_under_test import Bench, bench
from tests.servers.grafana import FrameConverter


@pytest.fixture(scope="session")
def frame_converter() -> Iterator[FrameConverter]:
    with FrameConverter() as converter:
        yield converter


@pytest.fixture(autouse=True)
def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted sources say the same whatever they are asked, and are believed: the contracts alone are tested here."""
    for policy in ("checked", "cache.incremental"):
        monkeypatch.setattr(f"app.policies.{policy}.misfit", lambda *_: None)


@pytest_asyncio.fixture
async def at() -> AsyncIterator[Bench]:
    made = bench()
    async with made.app.router.lifespan_context(made.app), made.client:
        yield made
