"""Every catalogue metric over the last hour and the last 24 hours, against the same figure computed by other means."""

from __future__ import annotations

import math
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.catalog import load_folder
from app.config import settings_from
from tests.e2e.conftest import client_of
from tests.e2e.reference import Answer, Reference, Window
from tests.e2e.reference import Stores as ReferenceStores
from tests.servers.world import MIN_WINDOW_S, Stores

_KINDS = dict.fromkeys(("rts", "ris", "rtss", "rtrs"), "redis") | {name: name for name in ("clickhouse", "duckdb", "prometheus")}
CATALOGUE = load_folder(settings_from({}, "test").catalog_folder, _KINDS)
WINDOWS = {"hour": (3600, 60), "day": (86_400, 1800)}


@pytest.fixture(scope="module")
def reference(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    # A copy: the bridge holds the file open in this process, with a configuration of its own.
    newest = shutil.copy(max(stores.snapshots.glob("snap-*.duckdb")), tmp_path_factory.mktemp("copy"))
    read = ReferenceStores(stores.rows, str(newest), stores.redis.port, f"http://127.0.0.1:{stores.prometheus_port}")
    yield Reference(read)
    read.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(stores: Stores) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(stores.app()) as one:
        yield one


def answered(rows: list[dict[str, Any]], by: tuple[str, ...]) -> Answer:
    found: Answer = {}
    for row in rows:
        found.setdefault(tuple(row[label] for label in by), {})[row["time"]] = row["value"]
    return found


def differences(found: Answer, wanted: Answer) -> list[str]:
    """Every point that is missing, too many, or not equal."""
    remarks = []
    for key in sorted(found.keys() | wanted.keys()):
        ours, theirs = found.get(key, {}), wanted.get(key, {})
        for at in sorted(ours.keys() | theirs.keys()):
            left, right = ours.get(at, "no row"), theirs.get(at, "no row")
            same = left == right or (
                isinstance(left, float) and isinstance(right, float) and math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
            )
            if not same:
                remarks.append(f"{key} at {at}: {left} instead of {right}")
    return remarks


def with_zeros(wanted: Answer, asked: Window, begins_ms: int) -> Answer:
    """0 in each bucket without rows, from the first whole bucket of the store's data on."""
    buckets = [at for at in range(asked.from_ms // asked.step_ms * asked.step_ms, asked.now_ms, asked.step_ms) if at >= begins_ms]
    return {key: {**dict.fromkeys(buckets, 0.0), **course} for key, course in wanted.items()}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("split", [True, False], ids=["by every label", "all together"])
@pytest.mark.parametrize("metric", CATALOGUE.metrics)
async def test_the_bridges_figures_are_those_computed_by_other_means(
    client: httpx.AsyncClient, stores: Stores, reference: Reference, metric: str, split: bool, window: str
) -> None:
    entry = CATALOGUE.metrics[metric].entry
    by = entry.labels if split else ()
    length_s, step_s = WINDOWS[window]
    asked = Window(stores.until_ms - length_s * 1000, stores.until_ms, step_s * 1000)
    params: dict[str, str | int] = {"metric": metric, "from": asked.from_ms, "to": asked.now_ms, "by": ",".join(by)}
    reply = await client.get("/v1/rows", params=params | {"step": f"{step_s}s"})
    body = reply.json()
    assert reply.status_code == 200, body
    facts = body["meta"]["metrics"][metric]
    assert (facts["unit"], facts["status"], facts["notices"]) == (entry.unit, "fresh", [])
    rows = body["rows"]
    assert [set(row) for row in rows] == [{"time", "metric", *by, "value"}] * len(rows)
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert {time % asked.step_ms for time in times} <= {0}
    assert len({(row["time"], *(row[label] for label in by)) for row in rows}) == len(rows)
    window_s = max(step_s, MIN_WINDOW_S)
    wanted = reference.answer(metric, asked, by, f"{window_s}s")
    if entry.zeros:
        wanted = with_zeros(wanted, asked, min(round(row["executed"]) for row in reference.stores.trades))
    assert differences(answered(rows, by), wanted) == []
    assert wanted
