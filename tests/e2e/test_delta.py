"""On real stores, answers that are put together from what is kept and what is asked for equal those that are asked for whole."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import yaml

from app.main import build_service
from tests.contracts.app_under_test import without_ages
from tests.e2e.conftest import client_of
from tests.servers.world import Stores

CATALOG = Path(__file__).parents[2] / "provisioning" / "catalog"
HISTORY = {
    name: entry["history"]["source"] if "history" in entry else None
    for file in CATALOG.glob("*.yaml")
    for name, entry in yaml.safe_load(file.read_text()).get("metrics", {}).items()
}
#: two refreshes later in the same bucket, in the next one, a few on, and after a while away
LATER_MS = (0, 5_000, 10_000, 10_000, 20_000, 60_000, 300_000)
REFRESHES = 12


@pytest.mark.parametrize("metric", sorted(HISTORY))
async def test_a_panel_that_slides_along_gets_the_answers_of_one_that_asks_for_everything(stores: Stores, metric: str) -> None:
    chance = random.Random(metric)
    now_ms = stores.until_ms - 3 * 3_600_000

    def clock() -> int:
        return now_ms

    async with (
        client_of(build_service(stores.settings(), clock).app) as pieced,
        client_of(build_service(stores.settings(settled_s=0), clock).app) as whole,
    ):
        differing = []
        for place in range(REFRESHES):
            now_ms += chance.choice(LATER_MS)
            params = {"metric": metric, "from": "now-2h", "step": "1m"}
            if place % 2:
                params["step"] = "10s"
            found = [without_ages((await client.get("/v1/rows", params=params)).content) for client in (pieced, whole)]
            if found[0] != found[1]:
                differing.append((params, now_ms))
        spared = re.findall(r'bridge_spared_askings_total\{source="(\w+)"\} [1-9]', (await pieced.get("/metrics")).text)
    assert (differing, spared) == ([], [HISTORY[metric]] if HISTORY[metric] in ("clickhouse", "duckdb", "prometheus") else [])
