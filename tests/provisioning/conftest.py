"""What several tests look at: the stack, and stores with a day in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.provisioning.stack import Stack, running_stack
from tests.servers.grafana import FrameConverter
from tests.servers.world import Stores, running_stores


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Four real stores with an hour of a small world."""
    with running_stores(tmp_path_factory.mktemp("stores"), hours=1, instances=2) as running:
        yield running


@pytest.fixture(scope="session")
def stack(own: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two bridges and two Prometheus behind HAProxy."""
    with running_stack(tmp_path_factory.mktemp("stack"), own) as running:
        yield running


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
