"""The short version of `python -m tests.truth.leaving`."""

from __future__ import annotations

from pathlib import Path

from tests.servers.world import running_stores
from tests.truth.leaving import trials


async def test_while_others_leave_time_out_and_are_killed_nobody_gets_foreign_rows(tmp_path: Path) -> None:
    with running_stores(tmp_path, hours=1) as stores:
        tally = await trials(stores, tmp_path / "embedded", seed=5, answers=2000)
    assert (tally.foreign, tally.crashed) == ([], []), str(tally)
    assert tally.left > 100
