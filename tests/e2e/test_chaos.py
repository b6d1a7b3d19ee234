"""A short run of the lab: every promise against everything that every asker got, alert rules among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.lab.__main__ import arguments_of, chaos

#: What a machine that is busy with other things can break; `make chaos` reports them.
OF_THE_MACHINE = {"a neighbour of a store that is down", "marked answers while nothing is down"}


@pytest.mark.timeout(180)
async def test_no_promise_is_broken_while_every_store_is_killed_and_hung(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = arguments_of(["--outage", "18", "--panels", "24", "--seed", "5"])
    found = await chaos(tmp_path / "lab", arguments, print)
    said = capsys.readouterr().out
    assert (said.count(": kill, "), said.count(": hang, ")) == (4, 4)
    assert [line for line in found if not line.ok and line.name not in OF_THE_MACHINE] == []
