"""Many who want the same at the same time cost the stores one asking. Scripted stores that count, a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.catalog import load
from app.config import Settings, settings_from
from app.main import build_operations, compose_service
from app.model import Frame, Statement
from tests.contracts.app_under_test import CPU, HISTORY, KINDS, LIVE, NOW, PNL, TEXT, UNHURRIED, Bench, Scripted, settings
from tests.server.raw import RawClient
from tests.servers.listening import listening

pytestmark = pytest.mark.usefixtures("believed")

USERS = 50
REFRESH_MS = 5_000
HOUR_MS = 3_600_000


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now_ms = NOW

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Herd(Bench):
    """The bench, with a clock that moves."""

    clock: Clock

    async def panel(self, content: Mapping[str, Any]) -> httpx.Response:
        """Ask as Grafana does."""
        return await self.client.post("/json/query", json=content)

    @property
    def calls(self) -> int:
        """At all stores together."""
        return self.askings().total()


def _fresh_for(fresh_s: float) -> Settings:
    values = settings().model_dump(mode="json")
    for source in values["sources"].values():
        source["policy"] |= {"fresh_s": fresh_s, "stale_s": 900} | UNHURRIED
    return settings_from(values | {"request": {"budget_s": 30}}, "test")


@pytest.fixture
async def herd() -> AsyncIterator[Herd]:
    clock, sources = Clock(), {name: Scripted(name) for name in KINDS}
    chosen = _fresh_for(10)
    service = compose_service(chosen, build_operations(chosen, load({"catalogue.yaml": TEXT}, KINDS), sources, clock))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://bridge") as client:
        made = Herd(service, sources, client, clock)
        made.say(rts=LIVE, duckdb=HISTORY, clickhouse=PNL, prometheus=CPU)
        yield made


def asked(now_ms: int, *targets: Mapping[str, Any]) -> dict[str, Any]:
    """A panel's question: the hour up to now."""
    return {
        "targets": [{"refId": chr(ord("A") + place), **target} for place, target in enumerate(targets)],
        "range": {"from": str(now_ms - HOUR_MS), "to": str(now_ms)},
        "intervalMs": 60_000,
        "maxDataPoints": 60,
    }


async def slowly(answer: Frame) -> Frame:
    """The answer after many turns of the loop, so that callers come before, while and after it is fetched."""
    for _ in range(100):
        await asyncio.sleep(0)
    return answer


@pytest.mark.parametrize("how", ["at once", "slowly"])
async def test_two_hundred_equal_requests_at_once_are_one_call_at_each_store(herd: Herd, how: str) -> None:
    if how == "slowly":
        herd.say(rts=lambda _: slowly(LIVE), duckdb=lambda _: slowly(HISTORY))
    question = asked(NOW, {"target": "equity", "payload": {"by": "account"}})
    replies = await asyncio.gather(*(herd.panel(question) for _ in range(200)))
    assert Counter(reply.status_code for reply in replies) == {200: 200}
    assert len({reply.content for reply in replies}) == 1
    assert len(replies[0].json()) == 2, "a series for each account"
    assert herd.askings() == {"rts": 1, "duckdb": 1}


async def test_when_the_first_of_them_leaves_the_others_are_answered_by_the_same_call(herd: Herd) -> None:
    gate = asyncio.Event()

    async def gated(_: Statement) -> Frame:
        await gate.wait()
        return LIVE

    herd.say(rts=gated)
    question = asked(NOW, {"target": "equity", "payload": {"by": "account"}})
    tasks = [asyncio.create_task(herd.panel(question)) for _ in range(50)]
    while not herd.sources["rts"].asked:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    tasks[0].cancel()
    await asyncio.sleep(0.01)
    gate.set()
    replies = await asyncio.gather(*tasks[1:])
    assert Counter(reply.status_code for reply in replies) == {200: 49}
    assert (herd.askings(), herd.sources["rts"].cancelled) == ({"rts": 1, "duckdb": 1}, 0)


def dashboard() -> list[Mapping[str, Any]]:
    """Twenty panels that no two ask the same: eight with history and live edge, twelve with history alone."""
    equity = [{"by": by, **where} for by in ("account", "broker") for where in ({}, *({"account": f"A{n}"} for n in range(3)))]
    pnl = [{"by": by, **where} for by in ("", "account") for where in ({}, {"account": "A1"}, {"account": "A2"})]
    load_steps = [{"step": f"{seconds}s"} for seconds in (60, 120, 180, 240, 300, 600)]
    panels = {"equity": equity, "pnl": pnl, "cpu_load": load_steps}
    return [{"target": metric, "payload": payload} for metric, payloads in panels.items() for payload in payloads]


async def _refresh(herd: Herd, panels: Sequence[Mapping[str, Any]], clients: Sequence[RawClient]) -> Counter[int]:
    contents = [asked(herd.clock.now_ms, panel) for panel in panels]
    replies = await asyncio.gather(*(client.post("/json/query", one) for client, one in zip(clients, contents, strict=True)))
    return Counter(reply.status for reply in replies)


async def test_fifty_users_on_one_dashboard_for_a_minute_cost_the_stores_two_percent_of_their_requests(herd: Herd) -> None:
    panels, seen = dashboard(), Counter[int]()
    async with listening(herd.service.app, http=herd.service.http_protocol, lifespan="off") as port:
        clients = [RawClient(port) for _ in panels]
        for _ in range(USERS * 60_000 // REFRESH_MS):
            herd.clock.now_ms += REFRESH_MS // USERS
            seen += await _refresh(herd, panels, clients)
        for client in clients:
            await client.close()
    requests = USERS * len(panels) * 60_000 // REFRESH_MS
    assert seen == {200: requests}
    assert requests == 12_000
    share = herd.calls / requests
    assert share <= 0.02, f"{herd.calls} calls for {requests} requests = {share:.2%}; {herd.askings()}"
