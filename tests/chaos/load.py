"""`python -m tests.chaos.load`: what a bridge process does with three times the load it can bear, as a table.

The answers have to be written anew each time (`request.ready_bytes: 0`). The bridge runs on one core, the load generator (this
process) and the redis-server on the other. First a closed loop finds the peak: the most panels a second that are answered with
200. Then an open loop offers three times as many, whatever comes back, while /livez and /readyz are asked 20 times a second on
connections of their own. Latencies count from the instant at which a request was due, not from when the generator got round to
it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from demo.stores import free_port
from tests.servers.redis import RedisServer

REPOSITORY = Path(__file__).parents[2]
#: requests at the same time that the bridge is told to let in
UNDER_WAY = 64
TIMES_PEAK = 3.0
PROBES_A_SECOND = 20
PROBES = ("/livez", "/readyz")

_CATALOGUE = """
group: accounts
title: Accounts
labels:
  account: {title: Account, metric: equity}
  broker: {title: Broker, metric: equity}
metrics:
""" + "".join(
    f"""
  {name}:
    title: {name}
    description: {name} of each account
    unit: currencyUSD
    aggregate: sum
    over_time: last
    resolution_s: 10
    labels: [account, broker]
    live: {{source: rts, read: hashes, index: "index", hash: "account:{{id}}", history: "hist:{{field}}:{{id}}", field: {name},
           aggregate: sum, labels: {{account: $id, broker: broker}}}}
"""
    for name in ("equity", "balance", "margin")
)


def fill(server: RedisServer, accounts: int = 12, minutes: int = 75) -> None:
    """Accounts of three brokers, a sample a minute of each field up to now and for an hour to come."""
    now_ms = time.time_ns() // 60_000_000_000 * 60_000
    times = range(now_ms - minutes * 60_000, now_ms + 3_600_000, 60_000)
    pipe = server.client.pipeline(transaction=False)
    for number in range(accounts):
        name = f"A{number:02}"
        pipe.sadd("index", name)
        pipe.hset(f"account:{name}", mapping={"broker": f"B{number % 3}", "equity": 1000 + number, "balance": 990, "margin": 55})
        for metric in ("equity", "balance", "margin"):
            pipe.zadd(f"hist:{metric}:{name}", {f"{at}:{1000 + number + at % 977}": at for at in times})
    pipe.execute()


def settings(folder: Path, redis_port: int, port: int, **more: Any) -> Path:
    """The bridge's configuration over one Redis, with a catalogue of its own: the file."""
    (folder / "catalog").mkdir(exist_ok=True)
    (folder / "catalog" / "accounts.yaml").write_text(_CATALOGUE, encoding="utf-8")
    values = {
        "http": {"port": port, "lame_duck_s": 0},
        "agent": {"port": None},
        "log_level": "warning",
        "catalog": str(folder / "catalog"),
        "sources": {"rts": {"connect": {"kind": "redis", "port": redis_port}}},
    }
    file = folder / "bridge.json"
    file.write_text(json.dumps(values | more), encoding="utf-8")
    return file


@dataclass(frozen=True, slots=True)
class Running:
    """A bridge process, its port, and the Redis behind it."""

    pid: int
    port: int
    redis: RedisServer


@asynccontextmanager
async def running_bridge(folder: Path, server: RedisServer, core: int | None = None, **more: Any) -> AsyncIterator[Running]:
    """`bridge serve` over the server, ready, on a core of its own where one is named. Raises RuntimeError when it dies."""
    port = free_port()
    file = settings(folder, server.port, port, **more)
    with (folder / "bridge.log").open("wb") as log:
        command = (sys.executable, "-m", "app", "serve", "--config", str(file))
        process = await asyncio.create_subprocess_exec(*command, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        await _ready(process, port, folder)
        if core is not None:
            _pin(process.pid, core)
        yield Running(process.pid, port, server)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
    async with asyncio.timeout(20):
        while process.returncode is None:
            pool = Pool(port, 1)
            try:
                if (await pool.ask(get("/readyz"))).status == 200:
                    return
            except OSError:
                await asyncio.sleep(0.05)
            finally:
                pool.close()
    raise RuntimeError(f"the bridge did not start: {(folder / 'bridge.log').read_text()[-2000:]}")


def _pin(pid: int, core: int) -> None:
    """Every thread of the process on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


@contextmanager
def cores() -> Iterator[int | None]:
    """This process and the children it starts on one core while the block runs; the core that is left over for the bridge."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        yield None
        return
    first, second, *_ = sorted(allowed)
    os.sched_setaffinity(0, {second})
    try:
        yield first
    finally:
        os.sched_setaffinity(0, allowed)


def cpu_s(pid: int) -> float:
    """Processor seconds that the process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(path: str) -> bytes:
    """A GET as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: bridge\r\n\r\n".encode()


def post(path: str, content: Any) -> bytes:
    """A POST of JSON as it goes over the wire."""
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bridge\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def panels(number: int = 20, targets: int = 2) -> list[bytes]:
    """A dashboard's panels as Grafana asks for them: an hour up to now, no two panels and no two targets of one alike."""
    lines = [{"target": metric, "payload": {"by": by}} for by in ("broker", "", "account") for metric in ("equity", "balance")]
    asked = [{"refId": chr(ord("A") + place), **line} for place, line in enumerate(lines[:targets])]
    return [
        post(
            "/json/query",
            {
                "targets": asked,
                "range": {"from": f"now-{60 - place}m", "to": "now"},
                "intervalMs": 60_000,
                "maxDataPoints": 1000,
            },
        )
        for place in range(number)
    ]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: status 0 where the connection broke; seconds since it was due."""

    status: int
    seconds: float
    retry_after: bool = False
    size: int = 0


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, free: deque[_Connection]) -> None:
        self._free = free
        self._buffer = b""
        self._ends = 0
        self._due_s = 0.0
        self._told: Callable[[Reply], None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes, due_s: float, told: Callable[[Reply], None]) -> None:
        assert self.transport is not None
        self._buffer, self._ends, self._due_s, self._told = b"", 0, due_s, told
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._ends:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            length = self._buffer.lower().index(b"content-length:", 0, head + 2) + 15
            self._ends = head + 4 + int(self._buffer[length : self._buffer.index(b"\r\n", length)])
        if len(self._buffer) >= self._ends:
            self._free.append(self)
            self._tell(int(self._buffer[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        self._tell(0)

    def _tell(self, status: int) -> None:
        told, self._told = self._told, None
        if told is not None:
            retry = status == 429 and b"retry-after:" in self._buffer[: self._ends].lower()
            told(Reply(status, time.perf_counter() - self._due_s, retry, self._ends))


class Pool:
    """Connections to one port; a request takes a free one, or makes one where there are fewer than `most`."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._most = most
        #: connections that there are
        self.made = 0
        self._free: deque[_Connection] = deque()

    async def fill(self, number: int) -> None:
        """Connect in advance."""
        for _ in range(number):
            await self._connect()

    def send(self, request: bytes, due_s: float, told: Callable[[Reply], None]) -> bool:
        """Send on a free connection; False where there is none."""
        while self._free:
            connection = self._free.pop()  # the one used last, as a proxy does
            if connection.transport is not None:
                connection.ask(request, due_s, told)
                return True
            self.made -= 1
        return False

    async def ask(self, request: bytes) -> Reply:
        """Send now and wait for the answer."""
        due_s = time.perf_counter()
        told: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        while not self.send(request, due_s, lambda reply: None if told.done() else told.set_result(reply)):
            await self._connect()
        return await told

    async def _connect(self) -> None:
        if self.made >= self._most:
            raise RuntimeError("every connection is in use")
        self.made += 1
        try:
            _, made = await asyncio.get_running_loop().create_connection(lambda: _Connection(self._free), "127.0.0.1", self._port)
        except OSError:
            self.made -= 1
            raise
        self._free.append(made)

    def close(self) -> None:
        """Close what is free."""
        while self._free:
            transport = self._free.popleft().transport
            if transport is not None:
                transport.close()


@dataclass(slots=True)
class Tally:
    """What came back, by status."""

    seconds: float = 0.0
    offered: int = 0
    unsent: int = 0
    untold: int = 0
    cpu_s: float = 0.0
    replies: dict[int, list[Reply]] = field(default_factory=dict)

    def add(self, reply: Reply) -> None:
        self.replies.setdefault(reply.status, []).append(reply)

    @property
    def statuses(self) -> dict[int, int]:
        """How many of each."""
        return {status: len(replies) for status, replies in sorted(self.replies.items())}

    def rate(self, status: int) -> float:
        """Answers a second of that status."""
        return len(self.replies.get(status, ())) / self.seconds

    def per_cpu_s(self, status: int) -> float:
        """Answers of that status for each second of processor time that the bridge really got."""
        return len(self.replies.get(status, ())) / max(self.cpu_s, 0.01)

    def ms(self, status: int, share: float) -> float:
        """The latency that this share of the answers of that status stays within."""
        return quantile([reply.seconds for reply in self.replies.get(status, ())], share) * 1000


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


async def closed_loop(port: int, requests: Sequence[bytes], callers: int, seconds: float) -> Tally:
    """So many callers, each with one request at a time."""
    tally, pool, begun_s = Tally(), Pool(port, callers), time.perf_counter()

    async def caller(number: int) -> None:
        turn = number
        while time.perf_counter() - begun_s < seconds:
            tally.add(await pool.ask(requests[turn % len(requests)]))
            turn += callers

    await asyncio.gather(*(caller(number) for number in range(callers)))
    tally.seconds = time.perf_counter() - begun_s
    pool.close()
    return tally


async def open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Tally:
    """`rate` requests a second, whatever comes back."""
    tally, pool = Tally(seconds=seconds), Pool(port, 2000)
    await pool.fill(256)
    begun_s, waited_for = time.perf_counter(), 0

    def told(reply: Reply) -> None:
        nonlocal waited_for
        waited_for -= 1
        tally.add(reply)

    while (now_s := time.perf_counter()) < begun_s + seconds:
        while (due_s := begun_s + tally.offered / rate) <= now_s:
            went = pool.send(requests[tally.offered % len(requests)], due_s, told)
            waited_for += went
            tally.unsent += not went
            tally.offered += 1
        await asyncio.sleep(0.0005)
    while waited_for and time.perf_counter() < begun_s + seconds + 10:
        await asyncio.sleep(0.01)
    tally.untold = waited_for
    pool.close()
    return tally


async def probed(port: int, path: str, ended: asyncio.Event) -> Tally:
    """A probe's path asked 20 times a second on a connection of its own, until the event."""
    tally, pool, begun_s = Tally(), Pool(port, 3), time.perf_counter()
    for number in range(10**6):
        await asyncio.sleep(max(begun_s + number / PROBES_A_SECOND - time.perf_counter(), 0))
        if ended.is_set():
            break
        try:
            async with asyncio.timeout(2):
                tally.add(await pool.ask(get(path)))
        except (TimeoutError, OSError):
            tally.add(Reply(0, 2.0))
    tally.seconds = time.perf_counter() - begun_s
    pool.close()
    return tally


@dataclass(frozen=True)
class Report:
    """One run's figures: rates a second, latencies in ms."""

    peak: float
    peaks: tuple[float, float]
    peak_p99_ms: float
    offered: float
    goodput: float
    ratio: float
    #: the same for each second of processor time that the bridge got: what a neighbour on the machine took is not in it
    cpu_ratio: float
    served_p50_ms: float
    served_p99_ms: float
    refused: float
    refused_p50_ms: float
    refused_p99_ms: float
    refused_without_retry_after: int
    statuses: dict[int, int]
    unsent: int
    untold: int
    probes: dict[str, dict[int, int]]
    probe_p99_ms: dict[str, float]


async def costing(pid: int, run: Awaitable[Tally]) -> Tally:
    """The run, with the processor time that the bridge had for it."""
    begun_s = cpu_s(pid)
    tally = await run
    tally.cpu_s = cpu_s(pid) - begun_s
    return tally


async def peak(running: Running, requests: Sequence[bytes], seconds: float) -> Tally:
    """The most that is answered with 200, by callers who wait for their answer before they ask again."""
    found = [
        await costing(running.pid, closed_loop(running.port, requests, callers, max(seconds / 3, 1.0))) for callers in (4, 16)
    ]
    return max(found, key=lambda tally: tally.rate(200))


async def overload(running: Running, seconds: float, targets: int, times: float = TIMES_PEAK) -> Report:
    """`times` the peak between two measurements of the peak (the machine is not equally fast all the time)."""
    requests, port = panels(targets=targets), running.port
    await closed_loop(port, requests, 8, 1.0)  # caches, connections, code paths
    before = await peak(running, requests, seconds)
    ended = asyncio.Event()
    probing = [asyncio.create_task(probed(port, path, ended)) for path in PROBES]
    over = await costing(running.pid, open_loop(port, requests, before.rate(200) * times, seconds))
    ended.set()
    probes = await asyncio.gather(*probing)
    after = await peak(running, requests, seconds)
    return report(before, over, after, dict(zip(PROBES, probes, strict=True)))


def report(before: Tally, over: Tally, after: Tally, probes: Mapping[str, Tally]) -> Report:
    """The figures of one run."""
    most = (before.rate(200) + after.rate(200)) / 2
    return Report(
        peak=most,
        peaks=(before.rate(200), after.rate(200)),
        peak_p99_ms=before.ms(200, 0.99),
        offered=over.offered / over.seconds,
        goodput=over.rate(200),
        ratio=over.rate(200) / most,
        cpu_ratio=over.per_cpu_s(200) * 2 / (before.per_cpu_s(200) + after.per_cpu_s(200)),
        served_p50_ms=over.ms(200, 0.5),
        served_p99_ms=over.ms(200, 0.99),
        refused=over.rate(429),
        refused_p50_ms=over.ms(429, 0.5),
        refused_p99_ms=over.ms(429, 0.99),
        refused_without_retry_after=sum(not reply.retry_after for reply in over.replies.get(429, ())),
        statuses=over.statuses,
        unsent=over.unsent,
        untold=over.untold,
        probes={path: tally.statuses for path, tally in probes.items()},
        probe_p99_ms={path: round(tally.ms(200, 0.99), 1) for path, tally in probes.items()},
    )


async def measured(folder: Path, seconds: float, under_way: int, targets: int) -> Report:
    """A report on a bridge process of this run's own."""
    with cores() as core, RedisServer(folder) as server:
        fill(server)
        # Answers that are ready cost so little that this generator could not offer three times as many.
        async with running_bridge(folder, server, core, request={"under_way": under_way, "ready_bytes": 0}) as running:
            return await overload(running, seconds, targets)


def show(found: Report) -> None:
    """The table."""
    table = Table("what", "figure", "target", "", box=box.SIMPLE_HEAD)
    before, after = found.peaks
    probes = {path: sum(by.values()) for path, by in found.probes.items()}
    good = all(set(by) == {200} for by in found.probes.values())
    for what, figure, target, ok in (
        (
            "peak, closed loop",
            f"{found.peak:.0f}/s ({before:.0f} before, {after:.0f} after), p99 {found.peak_p99_ms:.1f} ms",
            "",
            True,
        ),
        ("offered, open loop", f"{found.offered:.0f}/s, {found.unsent} of them not sent", "3 x peak", not found.unsent),
        ("answered with 200", f"{found.goodput:.0f}/s = {found.ratio:.0%} of the peak", ">= 90 %", found.ratio >= 0.9),
        ("... for the processor time it had", f"{found.cpu_ratio:.0%} of the peak", "", True),
        ("... their latency", f"p50 {found.served_p50_ms:.1f} ms, p99 {found.served_p99_ms:.1f} ms", "", True),
        ("refused with 429", f"{found.refused:.0f}/s", "with Retry-After", not found.refused_without_retry_after),
        (
            "... their latency",
            f"p50 {found.refused_p50_ms:.1f} ms, p99 {found.refused_p99_ms:.1f} ms",
            "p99 <= 10 ms",
            found.refused_p99_ms <= 10,
        ),
        ("every status", str(found.statuses), "200, 429", set(found.statuses) <= {200, 429} and not found.untold),
        (f"probes, {probes}", f"p99 {found.probe_p99_ms}", "all 200", good),
    ):
        table.add_row(what, figure, target, "ok" if ok else "MISSED")
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--under-way", type=int, default=UNDER_WAY)
    parser.add_argument("--targets", type=int, choices=range(1, 7), default=2, help="of each panel: how heavy an answer is")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(measured(Path(folder), arguments.seconds, arguments.under_way, arguments.targets))
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
    else:
        show(found)


if __name__ == "__main__":
    main()
