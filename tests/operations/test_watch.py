from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.errors import CircuitOpen, SourceUnavailable
from app.operations.routes import health
from app.operations.watch import Watch
from app.policies import Guard, Policy, PolicyDeps, PrioritySemaphore, guard
from app.telemetry import Telemetry
from tests.contracts.app_under_test import Scripted
from tests.frames import frame
from tests.policies.scripted import statement

DOWN = SourceUnavailable("s", "refused")
POLICY = Policy(probe_s=0.05, look_s=0.02, fresh_s=0, stale_s=0, attempts=1)


class Bench:
    """A source that a test switches off and on, its guard, and what the watch told of it."""

    def __init__(self) -> None:
        self.source = Scripted("s", frame({"": {0: 1}}))
        self.telemetry = Telemetry()
        self.guard: Guard = guard(
            "s", self.source.fetch, POLICY, PolicyDeps(self.telemetry, lambda: 0, asyncio.sleep, PrioritySemaphore(5))
        )
        self.told: list[str] = []
        told = self.told
        self.watch = Watch(
            "s",
            self.source,
            self.guard,
            self.telemetry,
            POLICY.look_s,
            lambda: told.append("well"),
            lambda: told.append("failed"),
        )

    def sample(self, name: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name, {"source": "s"})

    async def until(self, state: str) -> None:
        async with asyncio.timeout(5):
            while self.watch.circuit.state != state:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def watched() -> AsyncIterator[Bench]:
    bench = Bench()
    running = asyncio.create_task(bench.watch.run())
    try:
        yield bench
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_source_that_nobody_asks_is_known_to_be_down_and_to_be_back(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "app.operations.watch"):
        async with watched() as bench:
            bench.source.answer = DOWN
            await bench.until("open")
            bench.source.answer = frame({})
            await bench.until("closed")
    assert (bench.source.asked, bench.told.count("failed"), bench.told[-1]) == ([], 1, "well")
    assert bench.sample("bridge_source_reconnects_total") == 1
    lines = [record.getMessage().split(":")[0].split(",")[0].split(" after")[0] for record in caplog.records]
    assert lines == ["s is not asked any more", "s answers again"]


async def test_while_the_circuit_is_open_the_watch_alone_tries_the_source() -> None:
    async with watched() as bench:
        bench.source.answer = DOWN
        await bench.until("open")
        for _ in range(20):
            with pytest.raises(CircuitOpen):
                await bench.guard.fetch(statement())
            await asyncio.sleep(0.01)
    assert bench.source.asked == []


async def test_a_question_that_fails_does_not_make_the_watch_ping_faster() -> None:
    async with watched() as bench:
        await asyncio.sleep(0.03)
        bench.guard.breaker.circuit.record_failure(DOWN, "one")
        begun = len(bench.told)
        await asyncio.sleep(0.2)
    assert len(bench.told) - begun <= 15


async def test_a_source_that_does_not_answer_the_ping_is_reported_by_the_health_and_the_watch_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched() as bench:
        hang = asyncio.Event()
        monkeypatch.setattr(bench.source, "ping", hang.wait)
        await bench.until("open")
        found = await health("s", bench.source)
    assert (found["up"], found["error"]) == (False, "s: no answer within 1s (ping)")
    assert bench.watch.last_error == found["error"]
