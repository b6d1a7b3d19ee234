"""`python -m tests.chaos.soak --minutes 10`: does a bridge process grow? Its memory, descriptors and threads under mixed load.

The load, all at once and all the time: dashboards that are in the cache, questions never asked before, wrong ones, callers that
leave in the middle, probes and scrapes; and every half minute the store is killed or hangs for a few seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console

from tests.chaos.load import Pool, Running, fill, get, panels, post, running_bridge
from tests.servers.redis import RedisServer

_EVERY_S = 15.0
_TROUBLE_EVERY_S = 30.0
_TROUBLE_S = 6.0
_say = Console(width=140, highlight=False).print


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds at one moment."""

    at_s: float
    rss_mib: float
    descriptors: int
    threads: int
    #: kept-alive connections of the load's own, which are so many of the descriptors
    callers: int


def sample(pid: int, begun_s: float, callers: int) -> Sample:
    """The process as /proc has it."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    facts = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("VmRSS", "Threads"))}
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(time.monotonic() - begun_s, int(facts["VmRSS"]) / 1024, descriptors, int(facts["Threads"]), callers)


class Load:
    """Callers of every kind against one bridge, until cancelled; `seen` counts what came back."""

    def __init__(self, running: Running, seed: int = 7) -> None:
        self._running = running
        self._random = random.Random(seed)
        self._pool = Pool(running.port, 200)
        self.seen: Counter[str] = Counter()

    async def run(self) -> None:
        """All of it."""
        known = panels()
        async with asyncio.TaskGroup() as group:
            for kind, a_second, ask in (
                ("hit", 40.0, lambda: self._ask("hit", self._random.choice(known))),
                ("miss", 15.0, lambda: self._ask("miss", self._new())),
                ("wrong", 5.0, lambda: self._ask("wrong", self._wrong())),
                ("left", 5.0, self._leave),
                ("operators", 1.0, lambda: self._ask("operators", self._operators())),
            ):
                group.create_task(self._often(kind, a_second, ask), name=kind)
            group.create_task(self._trouble())

    @property
    def connections(self) -> int:
        """Kept alive by the callers."""
        return self._pool.made

    async def _often(self, kind: str, a_second: float, ask: Callable[[], Awaitable[None]]) -> None:
        asking = set[asyncio.Task[None]]()
        while True:
            await asyncio.sleep(self._random.expovariate(a_second))
            if len(asking) < 50:
                task = asyncio.ensure_future(ask())
                asking.add(task)
                task.add_done_callback(asking.discard)
            else:
                self.seen[f"{kind} not asked"] += 1

    async def _ask(self, kind: str, request: bytes) -> None:
        try:
            async with asyncio.timeout(10):
                reply = await self._pool.ask(request)
            self.seen[f"{kind} {reply.status}"] += 1
        except (TimeoutError, OSError) as problem:
            self.seen[f"{kind} {type(problem).__name__}"] += 1

    def _new(self) -> bytes:
        """A window that nobody has asked for."""
        end_s = int(time.time()) - self._random.randrange(3000)
        targets = [{"refId": "A", "target": self._random.choice(("equity", "balance", "margin")), "payload": {"by": "account"}}]
        span = {"from": str((end_s - self._random.randrange(60, 3600)) * 1000), "to": str(end_s * 1000)}
        return post("/json/query", {"targets": targets, "range": span, "maxDataPoints": 500})

    def _wrong(self) -> bytes:
        name = f"n{self._random.randrange(10**9)}"
        return self._random.choice(
            (
                get(f"/v1/rows?metric={name}"),
                get(f"/{name}"),
                get(f"/v1/rows?metric=equity&where={name}=1"),
                post("/json/query", {"targets": [{"refId": name, "target": name}]}),
                post("/json/query", [name]),
            )
        )

    def _operators(self) -> bytes:
        return get(self._random.choice(("/metrics", "/health/sources", "/readyz", "/livez")))

    async def _leave(self) -> None:
        """Send a question, or a part of one, and leave before the answer."""
        request = self._new()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._running.port)
            writer.write(request if self._random.random() < 0.7 else request[: self._random.randrange(len(request))])
            await asyncio.sleep(self._random.uniform(0, 0.01))
            if self._random.random() < 0.5:
                writer.transport.abort()
            writer.close()
            self.seen["left"] += 1
        except OSError as problem:
            self.seen[f"left {type(problem).__name__}"] += 1

    async def _trouble(self) -> None:
        """The store is killed and comes back filled, or hangs and goes on."""
        server = self._running.redis
        while True:
            for begin, end in ((server.kill, self._come_back), (server.pause, server.resume)):
                await asyncio.sleep(_TROUBLE_EVERY_S - _TROUBLE_S)
                await asyncio.to_thread(begin)
                await asyncio.sleep(_TROUBLE_S)
                await asyncio.to_thread(end)

    def _come_back(self) -> None:
        self._running.redis.start()
        fill(self._running.redis)


def halves(samples: list[Sample]) -> tuple[Sample, Sample]:
    """The means of the first and the second half; the first minute, in which caches fill and code loads, is left out."""
    settled = [one for one in samples if one.at_s > min(60.0, samples[-1].at_s / 4)]
    middle = len(settled) // 2
    first, second = (
        Sample(
            part[0].at_s,
            statistics.fmean(one.rss_mib for one in part),
            round(statistics.fmean(one.descriptors for one in part)),
            round(statistics.fmean(one.threads for one in part)),
            round(statistics.fmean(one.callers for one in part)),
        )
        for part in (settled[:middle], settled[middle:])
    )
    return first, second


def verdict(samples: list[Sample]) -> str:
    """The last line."""
    first, second = halves(samples)
    rss = f"{first.rss_mib:.1f} -> {second.rss_mib:.1f} MiB (x{second.rss_mib / first.rss_mib:.3f})"
    fds = f"{first.descriptors} -> {second.descriptors} (callers' connections {first.callers} -> {second.callers})"
    return f"rss first half -> second half: {rss}, fds {fds}, threads {first.threads} -> {second.threads}"


async def soaked(folder: Path, minutes: float) -> list[Sample]:
    """Load for so long; a line every 15 s."""
    with RedisServer(folder) as server:
        fill(server)
        policy = {"attempt_timeout_s": 1.0, "total_timeout_s": 2.2, "fresh_s": 5}
        sources = {"rts": {"connect": {"kind": "redis", "port": server.port}, "policy": policy}}
        async with running_bridge(folder, server, sources=sources) as running:
            load = Load(running)
            loading = asyncio.create_task(load.run())
            samples = await _watched(running, load, minutes, loading)
            loading.cancel()
            await asyncio.wait((loading,))
            return samples


async def _watched(running: Running, load: Load, minutes: float, loading: asyncio.Task[None]) -> list[Sample]:
    begun_s = time.monotonic()
    samples: list[Sample] = []
    while time.monotonic() - begun_s < minutes * 60:
        await asyncio.wait((loading,), timeout=min(_EVERY_S, minutes * 60 / 8))
        if loading.done():
            loading.result()
        now = sample(running.pid, begun_s, load.connections)
        samples.append(now)
        _say(f"{now.at_s:6.0f}s rss {now.rss_mib:6.1f} MiB, fds {now.descriptors} ({now.callers} callers), threads {now.threads}")
    _say(json.dumps(dict(sorted(load.seen.items()))))
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = uvloop.run(soaked(Path(folder), arguments.minutes))
    _say(verdict(samples))


if __name__ == "__main__":
    main()
