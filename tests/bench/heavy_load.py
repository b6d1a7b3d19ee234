"""Many heavy requests at once, readers that never read, and light panels and probes beside them, on one bridge over DuckDB.

24 accounts with a sample every ten seconds. A heavy request asks for four metrics by account over 24 hours, in a window that
nobody else asks for. What is seen is figures, no judgement: `heavy` compares them, and so does a test.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from demo.stores import free_port
from tests.bench.hits import get, pinned
from tests.chaos.load import Pool, quantile
from tests.chaos.load import get as get_request
from tests.chaos.load import post as post_request
from tests.servers.snapshots import snapshot_name

METRICS = ("equity", "balance", "margin", "credit")
ACCOUNTS = 24
HOUR_MS = 3_600_000
HOURS = 24
#: each window begins so much earlier than the one before
_SHIFT_MS = 40_000
_LIGHTS_A_SECOND = 20
_PROBES_A_SECOND = 20
_LONGEST_S = 12.0
#: Readers that never read share so many windows.
_MUTE_WINDOWS = 5

_SQL = """
SELECT time, {{by}}, sum(value) AS value
FROM (SELECT epoch_ms(ts) // $step_ms * $step_ms AS time, account_id, arg_max({column}, ts) AS value FROM samples
      WHERE ts >= make_timestamp_ms($from_ms) AND ts < make_timestamp_ms($to_ms) {{where}} GROUP BY time, account_id)
GROUP BY ALL ORDER BY time"""
_CATALOGUE = {
    "group": "heavy",
    "title": "Heavy",
    "labels": {"account": {"title": "Account", "values": ["any"]}},
    "metrics": {
        name: {
            "title": name,
            "description": "For the benchmark.",
            "unit": "currencyUSD",
            "aggregate": "sum",
            "over_time": "last",
            "resolution_s": 10,
            "labels": ["account"],
            "history": {"source": "duckdb", "labels": {"account": "account_id"}, "sql": _SQL.format(column=name)},
        }
        for name in METRICS
    },
}
_WAVES = ", ".join(
    f"round(100000 + 1000 * sin(n / {50 + place}.0 + a) + hash(n * {place + 3} + a) % 1000, 2) AS {name}"
    for place, name in enumerate(METRICS)
)
_FILL = f"""
CREATE TABLE samples AS
SELECT make_timestamp_ms($until_ms - 10000 * n) AS ts, (100000 + a)::VARCHAR AS account_id, {_WAVES}
FROM range(1, $samples + 1) AS t(n), range({ACCOUNTS}) AS u(a) ORDER BY ts"""


@dataclass(frozen=True, slots=True)
class HeavyBridge:
    """A running bridge: its port, its process, what it logs, and where the samples end."""

    port: int
    pid: int
    log: Path
    until_ms: int

    def heavy(self, number: int) -> bytes:
        """The request of that number, as it goes over the wire: no two have the same window."""
        to_ms = self.until_ms - number * _SHIFT_MS
        targets = [{"refId": name[0].upper(), "target": name, "payload": {"by": ["account"]}} for name in METRICS]
        return _panel(to_ms - HOURS * HOUR_MS, to_ms, targets)

    def light(self, number: int) -> bytes:
        """A panel of one account over an hour, in a window that nobody has asked for."""
        to_ms = self.until_ms - number * _SHIFT_MS
        return _panel(to_ms - HOUR_MS, to_ms, [{"refId": "A", "target": "equity", "payload": {"account": "100003"}}])

    def worked_s(self) -> float:
        """Processor time that all its threads have had."""
        worked_ns = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):  # a thread may have ended
                worked_ns += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        return worked_ns / 1e9

    def memory_bytes(self) -> int:
        """What the process holds."""
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text(encoding="ascii"))[0]) * 1024


def _panel(from_ms: int, to_ms: int, targets: Sequence[dict[str, Any]]) -> bytes:
    since, until = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (from_ms, to_ms))
    content = {"range": {"from": since, "to": until}, "intervalMs": 60_000, "maxDataPoints": 1000, "targets": targets}
    return post_request("/json/query", content)


@contextmanager
def heavy_bridge(folder: Path, module: str = "tests.bench.probed", hours: int = HOURS + 3, **more: Any) -> Iterator[HeavyBridge]:
    """The bridge on core 0 over so many hours of samples, every setting as it is by default but for `more`."""
    until_ms = time.time_ns() // 1_000_000 // 10_000 * 10_000
    snapshots, catalogue = folder / "snapshots", folder / "catalogue"
    snapshots.mkdir()
    catalogue.mkdir()
    with duckdb.connect(str(snapshots / snapshot_name(until_ms))) as database:
        database.execute(_FILL, {"until_ms": until_ms, "samples": hours * 360})
    (catalogue / "heavy.yaml").write_text(json.dumps(_CATALOGUE), encoding="utf-8")
    port, file, log = free_port(), folder / "heavy.json", folder / "bridge.log"
    values: dict[str, Any] = {"catalog": str(catalogue), "agent": {"port": None}, "log_level": "warning", **more}
    values["http"] = {"lame_duck_s": 0, **values.get("http", {}), "port": port}
    values["sources"] = {"duckdb": {"connect": {"kind": "duckdb", "snapshots": str(snapshots)}}}
    file.write_text(json.dumps(values), encoding="utf-8")
    with pinned([sys.executable, "-m", module, "serve", "--config", str(file)], port, log=log) as process:
        yield HeavyBridge(port, process.pid, log, until_ms)


@dataclass(frozen=True, slots=True)
class Timed:
    """A light panel's or a probe's answer: seconds since it was due, and how many of them the bridge itself was working."""

    status: int
    seconds: float
    own_s: float


@dataclass(slots=True)
class Seen:
    """What came back: (status, seconds) of the heavy requests, the light panels and probes, and the most memory."""

    heavy: list[tuple[int, float]] = field(default_factory=list)
    light: list[Timed] = field(default_factory=list)
    probes: list[Timed] = field(default_factory=list)
    before_bytes: int = 0
    most_bytes: int = 0

    @property
    def statuses(self) -> Counter[int]:
        """How many heavy requests were answered with what; 0 is a broken connection."""
        return Counter(status for status, _ in self.heavy)

    def slowest_s(self) -> float:
        """The longest that a heavy request took."""
        return max((seconds for _, seconds in self.heavy), default=0.0)


def own_and_all_ms(replies: Sequence[Timed], share: float = 0.99) -> tuple[float, float]:
    """The latency that this share of the replies stays within, as far as the bridge was working, and in all."""
    return quantile([one.own_s for one in replies], share) * 1000, quantile([one.seconds for one in replies], share) * 1000


async def idle(bridge: HeavyBridge, seconds: float, first: int = 0) -> Seen:
    """Light panels and probes alone."""
    seen, ended = Seen(before_bytes=bridge.memory_bytes()), asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, ended.set)
    await _beside(bridge, seen, ended, first)
    return seen


async def loaded(bridge: HeavyBridge, heavies: int, mutes: int, first: int = 0) -> Seen:
    """The heavy requests all at once, and readers that ask the same and never read, with light panels and probes beside them."""
    seen, ended = Seen(before_bytes=bridge.memory_bytes()), asyncio.Event()
    beside = asyncio.create_task(_beside(bridge, seen, ended, first))
    deaf = [_ask_and_not_read(bridge, heavies + number % _MUTE_WINDOWS) for number in range(mutes)]
    try:
        if mutes:
            await _until_idle(bridge)
        seen.heavy = list(await asyncio.gather(*(_ask(bridge, bridge.heavy(number)) for number in range(heavies))))
        await asyncio.sleep(0.5)
    finally:
        ended.set()
        await beside
        for one in deaf:
            one.close()
    return seen


async def _until_idle(bridge: HeavyBridge) -> None:
    """Wait until no heavy request is under way: the readers that never read have their answers, or were refused."""
    for _ in range(100):
        await asyncio.sleep(0.1)
        said = (await asyncio.to_thread(get, bridge.port, "/metrics")).decode()
        if "bridge_heavy_bytes 0.0" in said and "bridge_heavy_waiting 0.0" in said:
            return


def _ask_and_not_read(bridge: HeavyBridge, number: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    one.connect(("127.0.0.1", bridge.port))
    one.sendall(bridge.heavy(number))
    return one


async def _ask(bridge: HeavyBridge, request: bytes) -> tuple[int, float]:
    begun_s = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port, limit=1 << 20)
    try:
        async with asyncio.timeout(_LONGEST_S * 3):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            left = int(re.findall(rb"content-length: (\d+)", head.lower())[0])
            while left > 0:
                if not (data := await reader.read(1 << 20)):
                    return 0, time.perf_counter() - begun_s
                left -= len(data)
            return int(head[9:12]), time.perf_counter() - begun_s
    except (OSError, EOFError, TimeoutError):
        return 0, time.perf_counter() - begun_s
    finally:
        writer.close()


async def _beside(bridge: HeavyBridge, seen: Seen, ended: asyncio.Event, first: int) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_repeat(bridge, _LIGHTS_A_SECOND, lambda number: bridge.light(first + number), seen.light, ended))
        group.create_task(_repeat(bridge, _PROBES_A_SECOND, lambda _: get_request("/livez"), seen.probes, ended))
        group.create_task(_watch_memory(bridge, seen, ended))


async def _repeat(bridge: HeavyBridge, rate: int, make: Any, replies: list[Timed], ended: asyncio.Event) -> None:
    """So many requests a second, whatever comes back; a latency counts from the instant at which its request was due."""
    pool, number = Pool(bridge.port, 2000), 0
    await pool.fill(20)
    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while not ended.is_set():
            due_s = begun_s + number / rate
            await asyncio.sleep(max(due_s - time.perf_counter(), 0))
            group.create_task(_note(bridge, pool, make(number), due_s, replies))
            number += 1
    pool.close()


async def _note(bridge: HeavyBridge, pool: Pool, request: bytes, due_s: float, replies: list[Timed]) -> None:
    worked_s = bridge.worked_s()
    try:
        async with asyncio.timeout(_LONGEST_S):
            status = (await pool.ask(request)).status
    except (TimeoutError, OSError):
        status = 0
    seconds = time.perf_counter() - due_s
    replies.append(Timed(status, seconds, min(seconds, bridge.worked_s() - worked_s)))


async def _watch_memory(bridge: HeavyBridge, seen: Seen, ended: asyncio.Event) -> None:
    while not ended.is_set():
        seen.most_bytes = max(seen.most_bytes, bridge.memory_bytes())
        await asyncio.sleep(0.02)


def lateness(bridge: HeavyBridge) -> list[tuple[float, float]]:
    """How late the bridge's event loop ran since the last asking (see `probed`)."""
    found: list[tuple[float, float]] = json.loads(get(bridge.port, "/bench/lag"))
    return found
