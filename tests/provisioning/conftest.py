"""The stores that all provisioning tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.grafana import FrameConverter
from tests.servers.world import Stores, running_stores


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """The stores, with 24 hours of a world of 4 terminals and 8 accounts."""
    with running_stores(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="session")
def frame_converter() -> Iterator[FrameConverter]:
    """Grafana's own frame converter."""
    with FrameConverter() as converter:
        yield converter
