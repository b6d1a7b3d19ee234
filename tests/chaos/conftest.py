"""Four real stores with an hour of a small world in them, shared by all cells; each cell puts back what it broke."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.world import Stores, running_stores


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stores keep their files."""
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="session")
def stores(world_folder: Path) -> Iterator[Stores]:
    """The stores."""
    with running_stores(world_folder, hours=1) as running:
        yield running


@pytest.fixture
def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripted sources say the same whatever they are asked, and are believed."""
    for policy in ("checked", "cache.incremental"):
        monkeypatch.setattr(f"app.policies.{policy}.misfit", lambda *_: None)


@pytest.fixture
def snapshots(stores: Stores, tmp_path: Path) -> Path:
    """DuckDB snapshots of the test's own."""
    return Path(shutil.copytree(stores.snapshots, tmp_path / "snapshots"))
