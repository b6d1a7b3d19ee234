"""A thousand accounts over two hours, a day and a month: every panel is whole, and nothing of any account is lost in it."""

from __future__ import annotations

import os
from typing import Any

import duckdb
import httpx
import pytest

from tests.servers.world import Stores
from tests.size.asking import HOUR_MS, Panel, panels

ACCOUNTS, HOURS, DAYS_BEFORE = 1000, 25, 29
_TICK_MS = 10_000

pytestmark = [pytest.mark.size, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("hours", [2, 24, 720])
@pytest.mark.parametrize("panel", [pytest.param(panel, id=panel.name) for panel in panels()])
async def test_every_panel_is_whole(client: httpx.AsyncClient, desk: Stores, panel: Panel, hours: int) -> None:
    answer = await panel.ask(client, desk.until_ms, hours)
    assert answer.faults() == []
    assert answer.cells() > 0


@pytest.mark.parametrize("points", [40, 200, 1000])
@pytest.mark.parametrize("metric", ["equity", "balance", "margin", "free_margin", "floating_pnl"])
async def test_a_curve_of_every_account_has_the_lowest_and_the_highest_value_of_its_day(
    client: httpx.AsyncClient, desk: Stores, metric: str, points: int
) -> None:
    from_ms = desk.until_ms - 24 * HOUR_MS
    asked = {"metric": metric, "by": ["account"], "from": from_ms, "to": desk.until_ms, "maxDataPoints": points}
    answer = await client.post("/v1/frames", json=asked)
    assert answer.status_code == 200, answer.text[:500]
    found = dict(map(_curve, answer.json()))
    stored = _extremes(desk, metric, from_ms)
    assert found.keys() == stored.keys()
    assert len(found) == ACCOUNTS
    lost = {
        account: (min(values), max(values), stored[account])
        for account, values in found.items()
        if min(values) > stored[account][0] + 1e-4 or max(values) < stored[account][1] - 1e-4
    }
    assert lost == {}
    # A thinned curve keeps the lowest and the highest of each stretch.
    assert max(map(len, found.values())) <= 2 * points


def _curve(frame: Any) -> tuple[str, list[float]]:
    labels = frame["schema"]["fields"][-1]["labels"]
    return labels["account"], [value for value in frame["data"]["values"][-1] if value is not None]


def _extremes(desk: Stores, metric: str, from_ms: int) -> dict[str, tuple[float, float]]:
    """Each account's lowest and highest sample well within the window, as its store has them."""
    snapshot = desk.snapshots / (desk.snapshots / "latest").read_text(encoding="utf-8").strip()
    inside = f"ts >= make_timestamp_ms({from_ms + _TICK_MS}) AND ts < make_timestamp_ms({desk.until_ms - _TICK_MS})"
    # Under another name: one process opens a file with one configuration, and the bridge has it open.
    linked = snapshot.with_name("looked-at.duckdb")
    linked.unlink(missing_ok=True)
    os.link(snapshot, linked)
    with duckdb.connect(str(linked), read_only=True) as database:
        asked = f"SELECT account_id, min({metric}), max({metric}) FROM account_snapshots WHERE {inside} GROUP BY account_id"
        return {account: (float(low), float(high)) for account, low, high in database.execute(asked).fetchall()}
