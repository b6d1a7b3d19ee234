"""Answers while others leave: `python -m tests.truth.leaving --answers 100000 --seed 7`.

Two bridges stand over one small world: four real stores, and the same with ClickHouse embedded. What each question's answer is, a
quiet bridge has said before. Then 2 to 20 callers ask and leave at random moments or have no time to wait, queries and
connections are killed at the stores, and those who stay compare what they get: every answer that is called fresh and whole must
be the known one, row for row. What is marked or refused is counted, and no harm. Ends with 1 when an answer was foreign.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clickhouse_connect
import numpy as np

from app.config import Settings
from app.main import build_service
from app.model import Frame, Matcher, Query, Result
from app.query.bridge import Bridge
from demo.clickhouse_writer import ClickHouseWriter
from demo.filling import fill_clickhouse
from tests.servers.world import Stores, running_stores

_HOUR_MS = 3_600_000
_PATIENT_S = 20.0
_STAYING = 24
_QUESTIONS = 160
#: So many questions are asked by most at the same time, as by the viewers of one dashboard; they change from moment to moment.
_SHOWN = 6
_SHOWN_S = 0.5
_KILL_OTHERS = "KILL QUERY WHERE query NOT LIKE '%KILL QUERY%' ASYNC"


@dataclass(frozen=True, slots=True)
class Question:
    """One metric's query, or the events of one kind."""

    query: Query
    events: bool = False

    async def ask(self, bridge: Bridge, budget_s: float) -> Result:
        """The bridge's answer."""
        if self.events:
            return await bridge.events(self.query.metric, self.query.from_ms, self.query.to_ms, (), budget_s)
        return (await bridge.run([self.query], budget_s))[0]


@dataclass(slots=True)
class Tally:
    """What became of the questions."""

    seed: int
    wanted: int
    right: int = 0
    marked: int = 0
    left: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    foreign: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    begun_s: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> bool:
        """Whether as many answers as wanted were compared."""
        return self.right + len(self.foreign) >= self.wanted

    def __str__(self) -> str:
        seconds = time.monotonic() - self.begun_s
        return (
            f"seed {self.seed}: {self.right} right, {len(self.foreign)} foreign, {len(self.crashed)} crashed, "
            f"{self.marked} marked, {sum(self.refused.values())} refused {dict(self.refused)}, {self.left} left, {seconds:.0f}s"
        )


def questions_of(bridge: Bridge, until_ms: int, chance: random.Random) -> list[Question]:
    """Questions of all kinds over every metric and every kind of events."""
    metrics = sorted(bridge.catalogue.metrics)
    made = [Question(_query(bridge, metrics[place % len(metrics)], until_ms, chance)) for place in range(_QUESTIONS)]
    spans = [(until_ms - hours * _HOUR_MS, until_ms) for hours in (1, 2)]
    return made + [Question(Query(name, *span), True) for name in sorted(bridge.catalogue.events) for span in spans]


def _query(bridge: Bridge, name: str, until_ms: int, chance: random.Random) -> Query:
    labels = bridge.catalogue.metric(name).entry.labels
    back_ms = chance.randrange(0, _HOUR_MS) if chance.random() < 0.5 else 0
    to_ms = until_ms - back_ms
    return Query(
        name,
        to_ms - chance.choice((900_000, _HOUR_MS, 2 * _HOUR_MS)),
        to_ms,
        step_ms=chance.choice((None, 10_000, 60_000, 300_000, 3_600_000)),
        max_points=chance.choice((40, 300, 1000)),
        by=tuple(chance.sample(labels, chance.randrange(min(len(labels), 2) + 1))),
        where=(Matcher(chance.choice(labels), "!=", ("nobody",)),) if labels and chance.random() < 0.3 else (),
        instant=chance.random() < 0.2,
        strict=chance.random() < 0.2,
    )


def same(one: Frame, other: Frame) -> bool:
    """Whether two answers have the same rows; a sum in another order may differ in its last digits."""
    return (
        one.series == other.series
        and one.offsets == other.offsets
        and np.array_equal(one.time, other.time)
        and np.allclose(one.value, other.value, rtol=1e-9, atol=1e-9, equal_nan=True)
        and dict(one.text) == dict(other.text)
    )


class Trial:
    """One bridge, what it is to answer, and those who ask it."""

    def __init__(self, name: str, bridge: Bridge, tally: Tally, seed: int, until_ms: int) -> None:
        self._name = name
        self._bridge = bridge
        self._tally = tally
        self._chance = random.Random(f"{name} {seed}")
        self._questions = questions_of(bridge, until_ms, random.Random(seed))
        self._known: list[Result] = []

    async def learn(self) -> None:
        """Ask every question while all is quiet. Raises AssertionError where two quiet answers differ."""
        self._known = [await self._settled(question) for question in self._questions]

    async def run(self) -> None:
        """Ask while others leave, until as many answers as wanted were compared."""
        staying = [asyncio.create_task(self._stay()) for _ in range(_STAYING)]
        leaving = [asyncio.create_task(self._come_and_go()) for _ in range(2)]
        await asyncio.gather(*staying)
        for crowd in leaving:
            crowd.cancel()
        await asyncio.wait(leaving)

    async def _settled(self, question: Question) -> Result:
        first, second = [await question.ask(self._bridge, _PATIENT_S) for _ in range(2)]
        assert same(first.frame, second.frame), f"{self._name}: {question} has two answers while all is quiet"
        return second

    async def _stay(self) -> None:
        while not self._tally.done:
            place = self._pick()
            question = self._questions[place]
            try:
                self._compare(place, await question.ask(self._bridge, _PATIENT_S))
            except Exception as bug:
                self._tally.crashed.append(f"{self._name}: {question}: {bug!r}")

    def _pick(self) -> int:
        """One of those that many ask just now, or any."""
        everyone = len(self._questions)
        if self._chance.random() < 0.1:
            return self._chance.randrange(everyone)
        return (int(time.monotonic() / _SHOWN_S) * _SHOWN + self._chance.randrange(_SHOWN)) % everyone

    def _compare(self, place: int, found: Result) -> None:
        tally, known = self._tally, self._known[place]
        if found.error is not None:
            tally.refused[found.error.code] += 1
            if found.error.status == 500:
                tally.crashed.append(f"{self._name}: {self._questions[place]}: {found.error}")
        elif found.status != "fresh" or known.status != "fresh":
            tally.marked += 1
        elif same(found.frame, known.frame):
            tally.right += 1
        else:
            tally.foreign.append(f"{self._name}: {self._questions[place]}: {len(found.frame)} rows, known {len(known.frame)}")

    async def _come_and_go(self) -> None:
        while True:
            crowd = self._chance.randint(1, 10)
            await asyncio.gather(*(self._leave() for _ in range(crowd)))
            await asyncio.sleep(self._chance.uniform(0, 0.05))

    async def _leave(self) -> None:
        """Ask, and be gone a moment later, or have hardly any time."""
        # Mostly what nobody else asks just now: only then does the work at the store end with them.
        question = self._chance.choice(self._questions)
        moment_s = self._chance.uniform(0, self._chance.choice((0.01, 0.05, 0.2)))
        if self._chance.random() < 0.3:
            await question.ask(self._bridge, moment_s)
            return
        asking = asyncio.create_task(question.ask(self._bridge, _PATIENT_S))
        await asyncio.wait([asking], timeout=moment_s)
        self._tally.left += not asking.done()
        asking.cancel()
        await asyncio.wait([asking])


def settings_of(stores: Stores, embedded: Path | None) -> Settings:
    """The bridge's settings over these stores: nothing is served again, and no circuit opens because of the kills."""
    settings = stores.settings()
    sources = {
        name: one.model_copy(update={"policy": one.policy.model_copy(update={"failures": 100, "fresh_s": 0.0})})
        for name, one in settings.sources.items()
    }
    if embedded is not None:
        address = sources["clickhouse"].connect.model_copy(update={"interface": "chdb", "path": embedded})
        sources["clickhouse"] = sources["clickhouse"].model_copy(update={"connect": address})
    return settings.model_copy(update={"sources": sources})


@contextmanager
def embedded_engine(stores: Stores, folder: Path) -> Iterator[Any]:
    """The world in an engine of this process, as the demo has it: its writer's client."""
    client = clickhouse_connect.get_client(interface="chdb", path=str(folder))
    try:
        fill_clickhouse(stores.world, ClickHouseWriter(client), stores.until_ms)
        yield client
    finally:
        client.close()


async def kill(chance: random.Random, kills: Sequence[Callable[[], Any]]) -> None:
    """Kill at the stores, one after the other, at random moments; a kill that fails has found nothing."""
    while True:
        await asyncio.sleep(chance.uniform(0.02, 0.4))
        await asyncio.gather(asyncio.to_thread(chance.choice(kills)), return_exceptions=True)


async def trials(stores: Stores, folder: Path, seed: int, answers: int, report_s: float = 0) -> Tally:
    """Both bridges, asked at the same time until so many answers were compared."""
    tally = Tally(seed, answers)
    async with AsyncExitStack() as stack:
        client = stack.enter_context(embedded_engine(stores, folder))
        both = [
            Trial(name, await stack.enter_async_context(opened(stores, path)), tally, seed, stores.until_ms)
            for name, path in (("http", None), ("embedded", folder))
        ]
        for trial in both:
            await trial.learn()
        kills = (
            lambda: client.command(_KILL_OTHERS),
            lambda: stores.clickhouse.execute(_KILL_OTHERS),
            lambda: stores.redis.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        )
        tally.begun_s = time.monotonic()
        beside = [asyncio.create_task(kill(random.Random(seed), kills))]
        if report_s:
            beside.append(asyncio.create_task(report(tally, report_s)))
        await asyncio.gather(*(trial.run() for trial in both))
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
    return tally


@asynccontextmanager
async def opened(stores: Stores, embedded: Path | None) -> AsyncIterator[Bridge]:
    """A bridge whose clock stands at the world's end."""
    service = build_service(settings_of(stores, embedded), lambda: stores.until_ms)
    async with service.app.router.lifespan_context(service.app):
        yield service.operations.bridge


async def report(tally: Tally, every_s: float) -> None:
    """Say how far it is."""
    while True:
        await asyncio.sleep(every_s)
        print(tally, flush=True)


def main() -> int:
    """Run it; 1 when an answer was foreign or something crashed."""
    parser = argparse.ArgumentParser(description="Answers while others leave.")
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_stores(Path(folder), hours=2) as stores:
        tally = asyncio.run(trials(stores, Path(folder) / "embedded", chosen.seed, chosen.answers, report_s=15))
    print(tally)
    for line in (*tally.foreign[:20], *tally.crashed[:20]):
        print(line)
    return 1 if tally.foreign or tally.crashed else 0


if __name__ == "__main__":
    sys.exit(main())
