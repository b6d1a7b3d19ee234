"""The time and the work of a request, seen from outside: who waits, who is refused, and what a late answer is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import httpx
import pytest

from app.catalog import load
from app.config import settings_from
from app.contracts.request import ARRIVED_S
from app.main import build_operations, compose_service
from app.model import Frame, Statement
from app.server.edge import EdgeMiddleware
from tests.contracts.app_under_test import HISTORY, KINDS, LIVE, NOW, TEXT, Bench, Scripted, settings

pytestmark = pytest.mark.usefixtures("believed")

HEAVY = "/v1/rows?metric=equity&by=account,broker&from=now-7d"
LIGHT = "/v1/rows?metric=equity&where=account=A1&instant=1"


class Gated(Bench):
    """A bridge whose history answers when the gate is opened. Two labels over a week are heavy, one series is light."""

    def __init__(self, **request: Any) -> None:
        self.gate = asyncio.Event()
        values = settings().model_dump(mode="json") | {"request": {"budget_s": 30, "heavy_bytes": 1, **request}}
        for source in values["sources"].values():
            source["policy"] |= {"attempt_timeout_s": 20, "total_timeout_s": 20, "concurrent": 20}
        chosen, sources = settings_from(values, "test"), {name: Scripted(name) for name in KINDS}
        service = compose_service(chosen, build_operations(chosen, load({"catalogue.yaml": TEXT}, KINDS), sources, lambda: NOW))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://bridge")
        super().__init__(service, sources, client)
        self.say(rts=LIVE, duckdb=self._late)

    async def _late(self, statement: Statement) -> Frame:
        if statement.lane != "interactive":
            await self.gate.wait()
        return HISTORY

    async def come(self, path: str, asked: int) -> asyncio.Task[httpx.Response]:
        """A request, once the history has been asked so many times in all."""
        task = asyncio.create_task(self.client.get(path))
        async with asyncio.timeout(10):
            while len(self.sources["duckdb"].asked) < asked:
                await asyncio.sleep(0.001)
        return task

    def waiting(self) -> float | None:
        telemetry = self.service.operations.telemetry
        telemetry.exposition()
        return telemetry.registry.get_sample_value("bridge_heavy_waiting")


@pytest.fixture
def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripted sources say the same whatever they are asked, and are believed."""
    for policy in ("checked", "cache.incremental"):
        monkeypatch.setattr(f"app.policies.{policy}.misfit", lambda *_: None)


@pytest.fixture
async def gated() -> AsyncIterator[Gated]:
    made = Gated()
    async with made.client:
        yield made


async def waits(gated: Gated, path: str, number: int = 1) -> asyncio.Task[httpx.Response]:
    task = asyncio.create_task(gated.client.get(path))
    async with asyncio.timeout(10):
        while gated.waiting() != number:
            await asyncio.sleep(0.001)
    return task


async def test_a_light_request_and_a_probe_never_wait_for_heavy_ones(gated: Gated) -> None:
    first = await gated.come(HEAVY, 1)
    second = await waits(gated, f"{HEAVY}&step=1h")
    light, probe = await gated.client.get(LIGHT), await gated.client.get("/livez")
    assert (light.status_code, probe.status_code, first.done(), second.done()) == (200, 200, False, False)
    gated.gate.set()
    assert [(await task).status_code for task in (first, second)] == [200, 200]


async def test_a_heavy_request_that_would_not_be_done_in_time_gets_429_and_when_to_come_back() -> None:
    gated = Gated(budget_s=20.5)
    first = await gated.come(HEAVY, 1)
    refused = await gated.client.get(f"{HEAVY}&step=1h&timeout=0.6")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "too_busy"
    assert "MiB" in refused.json()["message"]
    gated.gate.set()
    assert (await first).status_code == 200
    await gated.client.aclose()


async def test_a_heavy_request_that_waited_for_an_equal_one_gets_its_answer() -> None:
    values = {"fresh_s": 10}
    gated = Gated()
    for guarded in gated.service.operations.guards.values():
        guarded.cache._numbers = guarded.cache._numbers.model_copy(update=values)  # noqa: SLF001  the settings of a test are for all
    first = await gated.come(HEAVY, 1)
    others = [asyncio.create_task(gated.client.get(HEAVY)) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert gated.waiting() == 0, "they wait for the answer, not for a place"
    gated.gate.set()
    bodies = {(await task).text.partition('"meta"')[0] for task in (first, *others)}
    assert (len(bodies), len(gated.sources["duckdb"].asked)) == (1, 1)
    await gated.client.aclose()


async def test_a_caller_who_leaves_the_queue_makes_room_for_the_next(gated: Gated) -> None:
    first = await gated.come(HEAVY, 1)
    leaving = await waits(gated, f"{HEAVY}&step=1h")
    leaving.cancel()
    await asyncio.wait((leaving,))
    assert gated.waiting() == 0
    gated.gate.set()
    assert (await first).status_code == 200


async def test_the_time_of_a_request_counts_from_its_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has waited for its turn for almost all of its time, so what is left for a source that hangs is a moment."""
    arrived = EdgeMiddleware._run_admitted  # noqa: SLF001  after it is stamped, before it is read

    async def late(self: EdgeMiddleware, lane: Any, scope: Any, receive: Any, send: Any) -> None:
        scope[ARRIVED_S] -= 20.3
        await arrived(self, lane, scope, receive, send)

    monkeypatch.setattr(EdgeMiddleware, "_run_admitted", late)
    gated = Gated(budget_s=20.5, light_bytes=1 << 40)
    gated.say(duckdb=hanging, rts=hanging)
    begun_s = asyncio.get_running_loop().time()
    answer = await gated.client.get("/v1/rows?metric=equity")
    took_s = asyncio.get_running_loop().time() - begun_s
    assert (answer.status_code, took_s < 10) == (504, True)
    await gated.client.aclose()


async def hanging(_: Statement) -> Frame:
    await asyncio.Event().wait()
    raise AssertionError


async def test_an_answer_that_is_not_written_in_time_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(30)

    monkeypatch.setattr(import_module("app.contracts.rows"), "render_page", slow)
    gated = Gated(light_bytes=1 << 40)
    answer = await gated.client.get("/v1/rows?metric=equity&timeout=0.2")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "out_of_time")
    await gated.client.aclose()
