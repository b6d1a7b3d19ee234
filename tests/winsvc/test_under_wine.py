"""The services on a real Windows CPython under wine: installed, started, asked, drained, failing, removed.

What wine 8 does not have is named here (REFUSED) and shown as command lines in test_plan.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.demo.stores import free_port
from tests.servers.faulty import FaultProxy
from tests.servers.world import Stores, running_stores
from tests.winsvc.wine.machine import Machine, windows
from tests.winsvc.wine.tree import PYTHON

pytestmark = pytest.mark.wine

NAME = "TDSBridge"
#: the steps of an installation that wine's `sc` does not know or does not carry out
REFUSED = {"config", "failureflag", "sidtype", "privs"}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine() as running:
        yield running


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with running_stores(tmp_path_factory.mktemp("world"), hours=1, instances=2) as running:
        yield running


class Installed:
    """The bridge, installed as a service on the stores, with a port of its own."""

    def __init__(self, machine: Machine, data: Path, stores: Stores) -> None:
        self.machine = machine
        self.data = data
        self.folder = data / "bridge"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._stores = stores

    def configure(self, **changes: Any) -> None:
        """Write the configuration, and the secret beside it; `redis` is another port for Redis."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        values = _configuration(self._stores, changes.pop("redis", self._stores.redis.port))
        values["http"] = {"port": self.port, "lame_duck_s": 1.0}
        (self.folder / "bridge.yaml").write_text(json.dumps(values | changes))
        (self.folder / "secrets.env").write_text(
            f"BRIDGE_SOURCES__CLICKHOUSE__CONNECT__PASSWORD={self._stores.clickhouse.password}\n"
        )

    def start(self) -> None:
        self.machine.winsvc("start", "--ready", f"{self.url}/readyz")

    def log(self) -> list[dict[str, Any]]:
        """Every line of the log, the oldest first."""
        files = sorted((self.folder / "logs").glob("bridge.log*"), reverse=True)
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _configuration(stores: Stores, redis: int) -> dict[str, Any]:
    # Generous limits: under wine the first asking of each store loads its driver.
    policy = {"attempt_timeout_s": 4.0, "total_timeout_s": 4.5}
    live = {"connect": {"kind": "redis", "port": redis}, "policy": policy}
    clickhouse = {"kind": "clickhouse", "port": stores.clickhouse.port}
    prometheus = {"kind": "prometheus", "url": f"http://127.0.0.1:{stores.prometheus_port}"}
    sources = {
        **dict.fromkeys(("rts", "ris", "rtss", "rtrs"), live),
        "clickhouse": {"connect": clickhouse, "policy": policy},
        "duckdb": {"connect": {"kind": "duckdb", "snapshots": windows(stores.snapshots)}, "policy": policy},
        "prometheus": {"connect": prometheus, "policy": policy},
    }
    return {"sources": sources, "agent": {"port": None}, "state": "state"}


@pytest.fixture(scope="module")
def bridge(machine: Machine, stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(machine, tmp_path_factory.mktemp("data"), stores)
    installed.configure()
    limits = ("--log-bytes", "4000", "--log-files", "3")
    said = machine.winsvc("install", "bridge", "--data", windows(installed.data), *limits, expect=1)
    assert set(re.findall(r"^sc.exe (\w+)", said, re.M)) == REFUSED
    assert re.findall(r"^(?!sc.exe|    exit code 1: |these commands failed)\S.*", said, re.M) == []
    yield installed
    machine.winsvc("remove")


@pytest.fixture
def started(bridge: Installed) -> Iterator[Installed]:
    bridge.start()
    yield bridge
    bridge.machine.winsvc("stop")


def test_an_installed_service_starts_and_answers_from_all_four_stores(started: Installed) -> None:
    assert started.machine.state(NAME) == "running"
    wanted = {"equity": {"duckdb", "rts"}, "slippage": {"clickhouse", "rtrs"}, "cpu_usage": {"prometheus", "ris"}}
    for metric, sources in wanted.items():
        answer = httpx.get(f"{started.url}/v1/rows", params={"metric": metric, "from": "now-1h", "step": "5m"}, timeout=10)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        asked = {source["name"] for source in found["meta"]["metrics"][metric]["sources"] if source["error"] is None}
        assert (len(found["rows"]) > 5, asked) == (True, sources), metric


async def test_a_request_under_way_is_finished_when_the_service_is_told_to_stop(bridge: Installed, stores: Stores) -> None:
    async with FaultProxy(stores.redis.port) as proxy, httpx.AsyncClient(base_url=bridge.url, timeout=20) as client:
        bridge.configure(redis=proxy.port)
        await asyncio.to_thread(bridge.start)
        await client.get("/v1/rows", params={"metric": "active_orders", "from": "now-1m"})  # the connections are made
        proxy.latency_s = 3.0
        under_way = asyncio.create_task(client.get("/v1/rows", params={"metric": "open_trades", "instant": "true"}))
        await asyncio.sleep(0.5)
        stopping = bridge.machine.popen("sc", "stop", NAME)
        seen = set()
        ready = []
        while (state := await asyncio.to_thread(bridge.machine.state, NAME)) != "stopped":
            seen.add(state)
            ready += await _ready(client)
        answer = await under_way
        assert (answer.status_code, answer.headers["bridge-result"].split(";")[1]) == (200, "status=fresh"), answer.text
        assert "stopping" in seen
        assert 503 in ready, "the load balancer is told before the listening socket is closed"
        exits = {key: value for key, value in bridge.machine.query(NAME).items() if key.endswith("exit_code")}
        assert exits == {"win32_exit_code": 0, "service_exit_code": 0}
        stopping.communicate()


async def _ready(client: httpx.AsyncClient) -> list[int]:
    try:
        return [(await client.get("/readyz", timeout=2)).status_code]
    except httpx.HTTPError:
        return []
