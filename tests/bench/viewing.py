"""What one more viewer costs: the stores, and the bridge. Everybody looks at the same dashboard, which refreshes every 5 s."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tests.bench.fan_out import TARGETS, bridge_process, panel
from tests.bench.metrics import Counts
from tests.bench.report import Line
from tests.servers.world import Stores

_VIEWERS = (1, 10, 100, 1000)
_EVERY_S = 5.0
_REFRESHES = 2


async def viewers(stores: Stores, folder: Path) -> list[Line]:
    """The lines of the report."""
    async with bridge_process(stores.settings(fresh_s=10), folder) as port:
        await _look(port, 1)  # connections
        idle = await _counted(port, 0)
        seen = [await _counted(port, count) for count in _VIEWERS]
    askings = [max(one.asked - idle.asked, 0) for one in seen]
    answers = [count * _REFRESHES * len(TARGETS) for count in _VIEWERS]
    cpu_ms = [max(one.cpu_s - idle.cpu_s, 0) * 1000 / count for one, count in zip(seen, answers, strict=True)]
    who = f"{', '.join(map(str, _VIEWERS))} viewers"
    return [
        Line(
            f"askings at the stores in {_EVERY_S * _REFRESHES:g} s of {who}",
            _listed(askings),
            "",
            f"x{askings[-1] / askings[0]:.2f}",
            "flat: <= x2",
            askings[-1] <= 2 * askings[0],
        ),
        Line(
            f"the bridge's processor time an answer, {who}",
            f"{_listed(cpu_ms, 2)} ms",
            f"{idle.cpu_s * 1000:.0f} ms in all with none",
            f"x{cpu_ms[-1] / cpu_ms[0]:.3f}",
            "falls: < x1",
            cpu_ms[-1] < cpu_ms[0],
        ),
    ]


def _listed(figures: Sequence[float], digits: int = 0) -> str:
    return ", ".join(f"{each:.{digits}f}" for each in figures)


async def _counted(port: int, count: int) -> Counts:
    """What the bridge has counted while so many looked, or as long a time without any."""
    before = await asyncio.to_thread(Counts.of, [port])
    await _look(port, count)
    return (await asyncio.to_thread(Counts.of, [port])).since(before)


async def _look(port: int, count: int) -> None:
    """Each viewer's refreshes, begun at different moments, on a connection of his own."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False) as session,
        asyncio.TaskGroup() as group,
    ):
        for number in range(count):
            group.create_task(_viewer(session, f"http://127.0.0.1:{port}/json/query", _EVERY_S * number / count))
        group.create_task(asyncio.sleep(_EVERY_S * _REFRESHES))


async def _viewer(session: aiohttp.ClientSession, url: str, begins_s: float) -> None:
    due_s = asyncio.get_running_loop().time() + begins_s
    for _ in range(_REFRESHES):
        await asyncio.sleep(due_s - asyncio.get_running_loop().time())
        due_s += _EVERY_S
        for target in TARGETS:
            async with session.post(url, data=json.dumps(panel(target))) as reply:
                assert reply.status == 200, await reply.text()
                await reply.read()
