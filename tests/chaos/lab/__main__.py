"""`make chaos`: half an hour of outages in two minutes, and every promise checked against what every asker got.

A bridge process over four real stores is asked by a dashboard (50 panels, two contracts) and by alert rules, while the stores are
killed, hung and restarted by a seeded script. All times, the bridge's own numbers among them, run `--speed` times faster than in
life; `--speed 1` is life itself. Exits with 1 when a promise is broken (what a busy machine alone can break is only reported).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich import box
from rich.console import Console
from rich.table import Table

from demo.stores import free_port
from tests.chaos.lab.history import Answer, Finding, Limits, Outage, findings
from tests.chaos.lab.world import PANELS, STORES, World

_STEP_S = 10
#: Prometheus begins to scrape only some 5 s after its start.
_REDISCOVERY_S = {"prometheus": 10.0}
_REPORTED_ONLY = ("a neighbour of a store that is down", "marked answers while nothing is down")


@dataclass(frozen=True, slots=True)
class Pace:
    """The seconds of life in this run's seconds; some have a floor, below which a busy machine is taken for a broken store."""

    speed: float

    def s(self, seconds: float, least: float = 0.0) -> float:
        return max(seconds / self.speed, least)

    def policy(self) -> dict[str, Any]:
        return {
            "attempt_timeout_s": self.s(4.2, 0.8),
            "total_timeout_s": self.s(4.5, 0.9),
            "fresh_s": self.s(10),
            "patience_s": self.s(1, 0.2),
            "soft_s": self.s(60),
            "stale_s": self.s(900),
            "volatile_s": self.s(60),
            "settled_s": self.s(1200),
            "probe_s": self.s(5),
            "denied_s": self.s(60),
        }

    def limits(self) -> Limits:
        # The last part is the machine's own time, which does not run faster with the rest.
        return Limits(self.s(10), self.s(6) + (1.0 if self.speed > 1 else 0.0), 0.15)


def script(pace: Pace, seed: int, life_s: float, outage_s: float | None) -> Iterator[tuple[float, str, str, float]]:
    """(pause, store, how, duration) in this run's seconds: each store killed and hung once, then whatever the seed says."""
    chance = random.Random(seed)
    plan = [(store, how) for how in ("kill", "hang") for store in STORES]
    used_s = 0.0
    while used_s < life_s:
        store, how = plan.pop(0) if plan else (chance.choice(STORES), chance.choice(("kill", "hang")))
        pause_s, lasts_s = (20.0, outage_s) if outage_s else (chance.uniform(15, 40), chance.uniform(8, 70))
        used_s += pause_s + lasts_s
        yield pace.s(pause_s), store, how, pace.s(lasts_s)
        if outage_s and not plan:
            return


async def breaks(world: World, steps: Iterator[tuple[float, str, str, float]], say: Callable[[str], None]) -> list[Outage]:
    """The faults, one after the other."""
    outages = []
    for pause_s, store, how, lasts_s in steps:
        await asyncio.sleep(pause_s)
        outage = Outage(store, how, time.monotonic())
        undo = await asyncio.to_thread(world.fault, store, how)
        await asyncio.sleep(lasts_s)
        await asyncio.to_thread(undo)
        outage.undone_s = time.monotonic()
        say(f"{store}: {how}, {outage.undone_s - outage.begun_s:.1f}s")
        outages.append(outage)
    await asyncio.sleep(2 * (world.tick_s + 1))
    for outage in outages:
        done_s = world.writings[outage.store].done_s
        written_s = next((at_s for at_s in done_s if at_s > outage.undone_s), outage.undone_s)
        outage.refilled_s = written_s + world.slack_s[outage.store] + _REDISCOVERY_S.get(outage.store, 0.0)
    return outages


class Askers:
    """50 panels that refresh, and an alert rule for each store."""

    def __init__(self, base: str, refresh_s: float, fresh_s: float, seed: int) -> None:
        self._base = base
        self._refresh_s = refresh_s
        self._fresh_s = fresh_s
        self._chance = random.Random(seed)
        self.answers: list[Answer] = []

    async def run(self, panels: int) -> None:
        """Ask until cancelled."""
        limits = aiohttp.ClientTimeout(total=20)
        async with (
            aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as self._session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(panels):
                route = "rows" if number % 8 < 4 else "frames"
                group.create_task(self._refresh(STORES[number % 4], route, number // 4 % PANELS))
            for store in STORES:
                group.create_task(self._refresh(store, "alert", 0))

    async def _refresh(self, store: str, route: str, panel: int) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._chance.uniform(0, self._refresh_s)
        while True:
            await asyncio.sleep(max(due_s - loop.time(), 0))
            due_s += self._refresh_s
            self.answers.append(await self._ask(store, route, panel))

    async def _ask(self, store: str, route: str, panel: int) -> Answer:
        path = {"rows": "/v1/rows", "frames": "/v1/frames", "alert": "/alert/v1/rows"}[route]
        params = {"metric": f"{store}_seq", "from": "now-60s", "step": f"{_STEP_S}s", "by": "panel", "where": f"panel={panel}"}
        asked_s, asked_ms = time.monotonic(), time.time() * 1000
        try:
            async with self._session.get(self._base + path, params=params) as reply:
                body = json.loads(await reply.read())
                done_s, http = time.monotonic(), reply.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as problem:
            return Answer(store, route, panel, asked_s, time.monotonic(), 0, type(problem).__name__, 0.0, None)
        status, age_s, number = _seen(route, body, asked_ms, self._fresh_s) if http == 200 else ("error", 0.0, None)
        return Answer(store, route, panel, asked_s, done_s, http, status, age_s, number)


def _seen(route: str, body: Any, asked_ms: float, fresh_s: float) -> tuple[str, float, int | None]:
    """Status, age, and the value of the bucket that was open when the source was asked; an earlier one says what was."""
    if route == "frames":
        meta = body[0]["schema"]["meta"]["custom"]
        points = list(zip(*body[0]["data"]["values"], strict=True))
    else:
        [meta] = body["meta"]["metrics"].values()
        points = [(row["time"], row["value"]) for row in body["rows"]]
    at_ms, value = points[-1] if points else (0, None)
    open_s = (asked_ms / 1000 - meta["age_s"] - fresh_s) // _STEP_S * _STEP_S
    return meta["status"], meta["age_s"], round(value) if value is not None and at_ms >= open_s * 1000 else None


@asynccontextmanager
async def bridge(folder: Path, settings: dict[str, Any]) -> AsyncIterator[str]:
    """A bridge process: its URL."""
    port, file = free_port(), folder / "bridge.json"
    file.write_text(json.dumps(settings | {"http": {"port": port, "lame_duck_s": 0}}), encoding="utf-8")
    with (folder / "bridge.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "app", "serve", "--config", str(file), stderr=log)
    try:
        async with aiohttp.ClientSession() as probe, asyncio.timeout(20):
            while not await _is_ready(probe, port):
                if process.returncode is not None:
                    raise RuntimeError((folder / "bridge.log").read_text(encoding="utf-8"))
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _is_ready(probe: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with probe.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def chaos(folder: Path, arguments: argparse.Namespace, say: Callable[[str], None]) -> list[Finding]:
    """One run."""
    pace = Pace(arguments.speed)
    request = {"budget_s": pace.s(4.8, 1.0)}
    with World(folder, pace.s(3, 0.2)) as world:
        async with bridge(folder, world.settings(pace.policy(), request=request)) as url:
            askers = Askers(url, pace.s(5), pace.s(10), arguments.seed)
            asking = asyncio.create_task(askers.run(arguments.panels))
            try:
                steps = script(pace, arguments.seed, arguments.life, arguments.outage)
                outages = await breaks(world, steps, say)
            finally:
                asking.cancel()
                await asyncio.wait({asking})
    if arguments.keep:
        lines = [json.dumps({name: getattr(answer, name) for name in Answer.__slots__}) for answer in askers.answers]
        arguments.keep.write_text("\n".join(lines), encoding="utf-8")
    return findings(world, askers.answers, outages, pace.limits())


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.lab", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=15.0, help="how many times faster than life")
    parser.add_argument("--life", type=float, default=1800.0, help="seconds of life that the script fills")
    parser.add_argument("--outage", type=float, help="each store killed, then hung, for so many seconds of life; then the end")
    parser.add_argument("--panels", type=int, default=50)
    parser.add_argument("--keep", type=Path, help="write the whole history here, a line an answer")
    return parser.parse_args(argv)


def main() -> int:
    arguments = arguments_of()
    print(f"seed {arguments.seed}, {arguments.speed:g} times faster than life", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(chaos(Path(folder) / "lab", arguments, lambda line: print(line, flush=True)))
    table = Table("promise", "seen", "target", "", box=box.SIMPLE_HEAD)
    for line in found:
        table.add_row(line.name, line.figure, line.target, "ok" if line.ok else "BROKEN")
    Console(width=150).print(table)
    return 0 if all(line.ok for line in found if line.name not in _REPORTED_ONLY) else 1


if __name__ == "__main__":
    sys.exit(main())
