"""What happened, from the real stores: each event once, and an outage in every window that it lasts into."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.e2e.conftest import client_of
from tests.servers.world import Stores

HOUR_MS = 3_600_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(stores: Stores) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(stores.app()) as one:
        yield one


async def events(client: httpx.AsyncClient, name: str, from_ms: int, to_ms: int, **more: str) -> list[dict[str, Any]]:
    reply = await client.get("/v1/events", params={"name": name, "from": from_ms, "to": to_ms, **more})
    assert (reply.status_code, reply.json()["meta"]["partial"]) == (200, False), reply.text
    found: list[dict[str, Any]] = reply.json()["rows"]
    return found


def crash(stores: Stores) -> tuple[int, int, str]:
    """The newest outage that is over: its begin, its end and its id. Another terminal's outage may overlap it."""
    [row] = stores.rows(
        "SELECT toString(event_id) AS id, toUnixTimestamp64Milli(ts) AS begun, "
        "toUnixTimestamp64Milli(assumeNotNull(ts_end)) AS ended "
        f"FROM system_event_log WHERE ts < fromUnixTimestamp64Milli({stores.until_ms}) AND ts_end IS NOT NULL "
        "ORDER BY ts DESC LIMIT 1"
    )
    return int(row["begun"]), int(row["ended"]), str(row["id"])


@pytest.mark.asyncio(loop_scope="module")
async def test_an_outage_is_shown_in_every_window_that_it_lasts_into(client: httpx.AsyncClient, stores: Stores) -> None:
    begun, ended, ident = crash(stores)
    windows = [(begun - 500, begun), (begun, begun + 1), (begun + 1, begun + 2), (ended - 1, ended + 999), (ended, ended + 1000)]
    rows = [await events(client, "system_events", *window) for window in windows]
    shown = [[row["time"] for row in found if row["id"] == ident] for found in rows]
    assert shown == [[], [begun], [begun], [begun], []]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["system_events", "trade_failures"])
async def test_windows_one_after_the_other_count_each_event_once(client: httpx.AsyncClient, stores: Stores, name: str) -> None:
    begun, ended, _ = crash(stores)
    edges = [begun - HOUR_MS, begun, (begun + ended) // 2, ended, stores.until_ms - 777]
    counted = []
    for since, until in pairwise(edges):
        counted += [row["id"] for row in await events(client, name, since, until, reaching="false")]
    whole = [row["id"] for row in await events(client, name, edges[0], edges[-1], reaching="false")]
    assert (counted, len(set(counted)), len(whole) > 0) == (whole, len(whole), True)
