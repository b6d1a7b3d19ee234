"""A real HAProxy heeds the agent, and connects anew on command, in front of two stub replicas."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from app.errors import SourceUnavailable
from app.operations.haproxy import Agent, Condition, reconnect
from tests.servers.haproxy import BACKEND, HAProxyServer

GOOD = Condition(ready=True, loop_lag_s=0.0, sources_up=2, sources=2)
#: the slowest answer of a stub: some requests are under way at any instant
SLOW_S = 0.02


@dataclass
class Replica:
    """A stub: answers /readyz with 200 and all else with its name; its agent says what `condition` is."""

    name: str
    condition: Condition = GOOD
    port: int = 0
    agent_port: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.path != "/readyz":
            await asyncio.sleep(SLOW_S)
        return web.Response(text=self.name)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[None]:
        """Its agent, as of a process that has just started (on the same port as the one before)."""
        agent = Agent(lambda: self.condition, announce_s=2.5)
        self.agent_port = await agent.start("127.0.0.1", self.agent_port)
        try:
            yield
        finally:
            await agent.stop()


@dataclass
class World:
    """HAProxy, its two replicas, and a client of it."""

    haproxy: HAProxyServer
    b1: Replica
    b2: Replica
    client: httpx.AsyncClient
    first_agent: AsyncExitStack

    def of(self, server: str, column: str) -> str:
        return self.haproxy.stats()[server][column]

    async def asked(self, times: int) -> Counter[str]:
        """Who answered that many questions, eight at a time; any failure raises."""
        places = asyncio.Semaphore(8)

        async def ask() -> str:
            async with places:
                return (await self.client.post("/query", content=b"x" * 20_000)).raise_for_status().text

        return Counter(await asyncio.gather(*(ask() for _ in range(times))))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        b1, b2, first_agent = Replica("b1"), Replica("b2"), await stack.enter_async_context(AsyncExitStack())
        await first_agent.enter_async_context(b1.speaking())
        for context in (b1.serving(), b2.serving(), b2.speaking()):
            await stack.enter_async_context(context)
        haproxy = stack.enter_context(HAProxyServer(tmp_path, [(b1.port, b1.agent_port), (b2.port, b2.agent_port)]))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=haproxy.url, trust_env=False, timeout=10))
        running = World(haproxy, b1, b2, client, first_agent)
        await soon(lambda: {row["agent_status"] for row in haproxy.stats().values()} == {"L7OK"})
        yield running


async def soon(true: Callable[[], bool], within_s: float = 2.0) -> None:
    ends = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < ends, f"not within {within_s:g}s"
        await asyncio.sleep(0.05)


async def test_the_weight_follows_the_condition_within_two_seconds(world: World) -> None:
    assert {row["weight"] for row in world.haproxy.stats().values()} == {"100"}
    world.b1.condition = replace(GOOD, sources_up=1)
    await soon(lambda: world.of("b1", "weight") == "50")
    world.b1.condition = replace(GOOD, sources_up=0)
    await soon(lambda: world.of("b1", "weight") == "1")
    assert (world.of("b1", "status"), world.of("b2", "weight")) == ("UP", "100")
    answers = await world.asked(200)
    assert answers.total() == 200
    assert answers["b1"] < answers["b2"] / 4


async def test_an_isolated_pair_still_takes_traffic(world: World) -> None:
    world.b1.condition = world.b2.condition = replace(GOOD, sources_up=0)
    await soon(lambda: {row["weight"] for row in world.haproxy.stats().values()} == {"1"})
    assert (await world.asked(20)).keys() == {"b1", "b2"}


async def test_a_draining_replica_gets_no_new_traffic_until_its_next_process_says_ready(world: World) -> None:
    world.b1.condition = replace(GOOD, ready=False)
    await soon(lambda: "DRAIN" in world.of("b1", "status"))
    assert await world.asked(50) == {"b2": 50}
    await world.first_agent.aclose()
    world.b1.condition = GOOD
    assert "DRAIN" in world.of("b1", "status")
    async with world.b1.speaking():
        await soon(lambda: "UP" in world.of("b1", "status"))
        assert (await world.asked(50)).keys() == {"b1", "b2"}


async def test_what_an_operator_drains_by_hand_stays_drained_once_the_agent_has_announced_itself(world: World) -> None:
    await asyncio.sleep(2.5)
    world.haproxy.ask(f"set server {BACKEND}/b1 state drain")
    world.b1.condition = replace(GOOD, sources_up=1)
    await soon(lambda: world.of("b1", "weight") == "50")  # the agent was heard since
    assert "DRAIN" in world.of("b1", "status")
    assert await world.asked(20) == {"b2": 20}


async def test_reconnecting_under_load_loses_no_request_and_leaves_the_server_up(world: World) -> None:
    load = asyncio.create_task(world.asked(600))
    for _ in range(3):
        await asyncio.sleep(0.3)
        assert not load.done()
        done = await reconnect(world.haproxy.socket_path, BACKEND, "b1")
        assert [line.split()[0] for line in done] == ["set", "shutdown", "set"]
    answers = await load
    assert answers.total() == 600
    assert answers.keys() == {"b1", "b2"}
    assert "UP" in world.of("b1", "status")


async def test_a_server_that_haproxy_does_not_know_is_told_in_its_own_words(world: World) -> None:
    with pytest.raises(SourceUnavailable, match="No such server"):
        await reconnect(world.haproxy.socket_path, BACKEND, "b9")
