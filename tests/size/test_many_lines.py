"""Three hundred accounts over two hours: more samples than any of the bridge's old limits on rows let through."""

from __future__ import annotations

import httpx
import pytest

from tests.servers.world import Stores
from tests.size.asking import panels

ACCOUNTS, HOURS, DAYS_BEFORE = 300, 3, 0


@pytest.mark.asyncio(loop_scope="module")
async def test_every_panel_with_a_line_for_each_of_many_things_is_whole(client: httpx.AsyncClient, desk: Stores) -> None:
    asked = [panel for panel in panels() if panel.many_lines]
    answers = {panel.name: await panel.ask(client, desk.until_ms, hours=2) for panel in asked}
    assert {name: faults for name, answer in answers.items() if (faults := answer.faults())} == {}
    assert [name for name, answer in answers.items() if not answer.cells()] == []
    assert len(asked) > 15
