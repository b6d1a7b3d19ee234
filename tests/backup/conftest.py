"""A desk for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backup.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Nothing is configured yet."""
    return Desk(tmp_path)
