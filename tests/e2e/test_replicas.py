"""Three bridge processes behind a real HAProxy: restarts, crashes and a replica that is cut off lose nobody's request."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.servers.askers import load, until
from tests.servers.faulty import FaultProxy
from tests.servers.fleet import FRESH_S, Fleet, settings
from tests.servers.haproxy import HAProxyServer
from tests.servers.redis import RedisServer
from tests.servers.world import Stores, running_stores


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with running_stores(tmp_path_factory.mktemp("fleet"), hours=1, instances=2) as running:
        yield running


async def test_a_rolling_restart_a_crash_and_a_reconnect_lose_no_request(own: Stores, tmp_path: Path) -> None:
    with Fleet(tmp_path, 3, lambda _: settings(own)) as fleet, HAProxyServer(tmp_path, fleet.ports) as haproxy:
        async with load(f"http://127.0.0.1:{haproxy.port}") as asked:
            await asyncio.sleep(2)
            codes = []
            for number in range(3):
                codes.append(await asyncio.to_thread(fleet.stop, number))
                await asyncio.to_thread(fleet.start, number)
                await until(10, lambda number=number: haproxy.stats()[f"b{number + 1}"]["status"].startswith("UP"))  # type: ignore[misc]  # a loop's own
            restarted = dict(asked.statuses)
            fleet.kill(1)
            await asyncio.sleep(2)
            await asyncio.to_thread(fleet.start, 1)
            await until(10, lambda: haproxy.stats()["b2"]["status"].startswith("UP"))
            command = [sys.executable, "-m", "app", "haproxy", "reconnect", "b1", "b3", "--socket", haproxy.socket_path]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
            await asyncio.sleep(0.5)
    assert codes == [0, 0, 0]
    assert (list(restarted), restarted[200] > 300) == ([200], True)
    assert (done.returncode, done.stdout.count("state ready")) == (0, 2), done.stderr
    assert (asked.failed, asked.blank) == ({}, 0)


async def test_a_replica_that_is_cut_off_from_its_stores_gets_less_weight_and_nobody_is_sent_away(
    own: Stores, tmp_path: Path
) -> None:
    async with (
        FaultProxy(own.redis.port) as redis,
        FaultProxy(own.clickhouse.port) as clickhouse,
        FaultProxy(own.prometheus_port) as prometheus,
    ):
        ports = {"redis": redis.port, "clickhouse": clickhouse.port, "prometheus": prometheus.port}

        def settings_of(number: int) -> Mapping[str, Any]:
            values = settings(own, ports if number == 0 else None)
            if number == 0:
                values["sources"]["duckdb"] = {"enabled": False}  # no network leads to it
            return values

        def weight() -> int:
            return int(haproxy.stats()["b1"]["weight"])

        with Fleet(tmp_path, 3, settings_of) as fleet, HAProxyServer(tmp_path, fleet.ports) as haproxy:
            await until(10, lambda: weight() == 100)
            async with load(f"http://127.0.0.1:{haproxy.port}") as asked:
                await asyncio.sleep(1)
                await prometheus.set("refuse")
                partly_s = await until(5, lambda: weight() == 50)
                await asyncio.gather(redis.set("refuse"), clickhouse.set("refuse"))
                wholly_s = await until(5, lambda: weight() == 1)
                ready = fleet.ready(0)
                for proxy in (redis, clickhouse, prometheus):
                    await proxy.set("none")
                await until(8, lambda: weight() == 100)
    assert (partly_s < 2, wholly_s < 2, ready) == (True, True, True), (partly_s, wholly_s)
    assert (asked.failed, sum(asked.statuses.values()) > 100) == ({}, True)


async def test_replicas_that_share_answers_ask_a_store_at_most_twice_for_two_hundred(own: Stores, tmp_path: Path) -> None:
    with RedisServer(tmp_path) as tier:
        shared = {"host": "127.0.0.1", "port": tier.port}
        with Fleet(tmp_path, 3, lambda _: settings(own, tier=shared)) as fleet:
            urls = [f"http://127.0.0.1:{http}/v1/rows" for http, _ in fleet.ports]
            params = {"metric": "slippage", "from": "now-30m", "step": "60s", "by": "broker"}
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

                async def ask(url: str) -> tuple[int, Any]:
                    async with session.get(url, params=params) as reply:
                        return reply.status, (await reply.json())["rows"]

                await asyncio.gather(*(ask(url) for url in urls))
                # The answers are old by then. A minute that ends meanwhile would make it another question.
                left_s = 60 - time.time() % 60
                await asyncio.sleep(1.5 if left_s > 6 else left_s + 0.5)
                before = await asyncio.to_thread(_selects, own)
                begun_s = time.monotonic()
                found = await asyncio.gather(*(ask(urls[number % 3]) for number in range(200)))
                periods = 1 + int((time.monotonic() - begun_s) / FRESH_S)  # on a busy machine the answers age meanwhile
                asked = await asyncio.to_thread(_selects, own) - before
    assert {status for status, _ in found} == {200}
    assert (1 <= asked <= 2 * periods, all(rows == found[0][1] for _, rows in found)) == (True, True), (asked, periods)


def _selects(stores: Stores) -> int:
    """How many statements ClickHouse has been asked so far, pings aside."""
    return int(stores.clickhouse.state()["asked"])


async def test_a_bridge_restarted_during_an_outage_shows_what_the_one_before_knew(own: Stores, tmp_path: Path) -> None:
    async with FaultProxy(own.redis.port) as redis:
        with Fleet(tmp_path, 1, lambda _: settings(own, {"redis": redis.port}), lame_duck_s=0.1) as fleet:
            url = f"http://127.0.0.1:{fleet.ports[0][0]}/v1/rows"
            params = {"metric": "open_trades", "from": "now-30m", "step": "60s"}
            async with aiohttp.ClientSession() as session:

                async def ask() -> Any:
                    async with session.get(url, params=params) as reply:
                        return await reply.json()

                before = await ask()
                await redis.set("refuse")
                code = await asyncio.to_thread(fleet.stop, 0)
                await asyncio.to_thread(fleet.start, 0)
                after = await ask()
                log = fleet.log(0)
    facts = after["meta"]["metrics"]["open_trades"]
    assert (code, facts["status"], facts["age_s"] > 0.5) == (0, "stale", True)
    assert after["rows"][-1]["value"] == before["rows"][-1]["value"]
    assert log.count("answers are kept for the next run") == 1
    assert "answers of the last run are loaded, none of them fresh" in log
