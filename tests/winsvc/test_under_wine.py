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

from demo.stores import free_port
from tests.servers.faulty import FaultProxy
from tests.servers.world import Stores, running_stores
from tests.winsvc.wine.machine import Machine, windows
from tests.winsvc.wine.tree import PYTHON

pytestmark = pytest.mark.wine

NAME = "TDSBridge"
_LINE = frozenset({"time", "level", "logger", "message"})
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
    live = {"connect": {"kind": "redis", "port": redis, "reply_timeout_s": 4.0}, "policy": policy}
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
def bridge(machine: Machine, stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    installed = Installed(machine, tmp_path_factory.mktemp("data"), stores)
    installed.configure()
    limits = ("--log-bytes", "300", "--log-files", "3")
    said = machine.winsvc("install", "bridge", "--data", windows(installed.data), *limits, expect=1)
    assert set(re.findall(r"^sc.exe (\w+)", said, re.M)) == REFUSED
    assert re.findall(r"^(?!sc.exe|    exit code 1: |these commands failed)\S.*", said, re.M) == []
    return installed


@pytest.fixture
def started(bridge: Installed) -> Iterator[Installed]:
    bridge.configure()
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
        again = httpx.get(answer.url, timeout=10)
        assert again.json()["rows"][0] == found["rows"][0]
    exposed = httpx.get(f"{started.url}/metrics", timeout=10).text
    assert sum(map(float, re.findall(r'bridge_cache_hits_total\{how="ready",.*\} (\S+)', exposed))) > 0


async def test_a_request_under_way_is_finished_when_the_service_is_told_to_stop(bridge: Installed, stores: Stores) -> None:
    async with FaultProxy(stores.redis.port) as proxy, httpx.AsyncClient(base_url=bridge.url, timeout=20) as client:
        bridge.configure(redis=proxy.port)
        await asyncio.to_thread(bridge.start)
        await client.get("/v1/rows", params={"metric": "active_orders", "from": "now-1m"})  # the connections are made
        proxy.latency_s = 1.8
        under_way = asyncio.create_task(client.get("/v1/rows", params={"metric": "open_trades", "instant": "true"}))
        ready = asyncio.create_task(_probes(client))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(bridge.machine.run, "sc", "stop", NAME)
        assert await asyncio.to_thread(bridge.machine.state, NAME) == "stopping"
        answer = await under_way
        assert (answer.status_code, answer.headers["bridge-result"].split(";")[1]) == (200, "status=fresh"), answer.text
        await asyncio.to_thread(bridge.machine.until, NAME, "stopped")
        assert list(dict.fromkeys(await ready)) == [200, 503, 0], "first not ready any more, then no new connections"
    assert bridge.machine.exits(NAME) == (0, 0)
    bridge.machine.events_end_with(("info", f"{NAME} has started"), ("info", f"{NAME} has stopped in good order"))


async def _probes(client: httpx.AsyncClient) -> list[int]:
    """What a load balancer sees, until nobody listens (0)."""
    seen = [200]
    while seen[-1]:
        await asyncio.sleep(0.05)
        try:
            seen.append((await client.get("/readyz", headers={"connection": "close"}, timeout=2)).status_code)
        except httpx.TransportError:
            seen.append(0)
    return seen


def test_a_taken_port_is_a_failure_of_the_service_and_status_says_so(bridge: Installed) -> None:
    bridge.configure()
    with socket.create_server(("127.0.0.1", bridge.port)):
        said = bridge.machine.winsvc("start", expect=1)
    assert said.strip() == f"{NAME}: stopped, exit code 3: a port is taken by another program"
    assert bridge.machine.exits(NAME) == (1066, 3)
    last = bridge.log()[-1]
    assert (last["level"], last["logger"]) == ("critical", "winsvc")
    assert (
        last["message"] == f"http.port: {bridge.port} is taken by another program; name a free one, for example {bridge.port + 1}"
    )


def test_a_wrong_configuration_is_a_failure_of_the_service_and_check_lists_all_of_it(bridge: Installed) -> None:
    bridge.configure(log_levl="info", http={"port": "many"})
    bridge.machine.winsvc("start", expect=1)
    assert bridge.machine.exits(NAME) == (1066, 2)
    config, secrets = (windows(bridge.folder / file) for file in ("bridge.yaml", "secrets.env"))
    wrong = [
        f"{config}: http.port: Input should be a valid integer, unable to parse string as an integer; found 'many'",
        f"{config}: log_levl: unknown key; nearest: log_level, log_style",
    ]
    assert bridge.log()[-1]["message"].splitlines() == wrong
    bridge.machine.events_end_with(("error", f"{NAME} has failed: " + "\\n".join(wrong)))
    said = bridge.machine.winsvc("check", "--config", config, expect=1).splitlines()
    open_to_all = f"{secrets}: may be read by Everyone; it is for administrators and the service only"
    assert said == ["3 problems:", open_to_all, *wrong]


def test_the_log_is_json_and_turns_over(started: Installed) -> None:
    files = sorted(file.name for file in (started.folder / "logs").glob("bridge.log*"))
    assert files == ["bridge.log", "bridge.log.1", "bridge.log.2"]
    assert all((started.folder / "logs" / file).stat().st_size <= 300 for file in files)
    assert {frozenset(line) for line in started.log()} <= {_LINE, _LINE | {"exception"}}


_DIES_WHEN_ASKED = """
import http.server, os, socket, subprocess, sys, time
port = int(sys.argv[1])
if len(sys.argv) > 2:
    held = socket.create_server(("127.0.0.1", port))
    time.sleep(600)
subprocess.Popen([sys.executable, __file__, str(port + 1), "plugin"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(7)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{os.getpid()} {os.environ['WORD']}".encode())
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_program_is_kept_running_as_a_service_and_gone_with_its_own_programs_when_it_stops(
    machine: Machine, tmp_path: Path
) -> None:
    port = free_port()  # and the one after it for the program's own program
    folder = tmp_path / "tdsprogram"
    folder.mkdir()
    (folder / "secrets.env").write_text("WORD=hidden\n")
    (tmp_path / "program.py").write_text(_DIES_WHEN_ASKED)
    program = (windows(PYTHON / "python.exe"), windows(tmp_path / "program.py"), str(port))
    waits = ("--restart", "0.5", "--grace", "2")
    machine.winsvc("install", "program", "--name", "TDSProgram", "--data", windows(tmp_path), *waits, "--", *program, expect=1)
    machine.winsvc("start", "TDSProgram", "--ready", f"http://127.0.0.1:{port}/")
    first, word = httpx.get(f"http://127.0.0.1:{port}/").text.split()
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{port}/die")
    second = _answered(f"http://127.0.0.1:{port}/").split()[0]
    _until_listening(port + 1)
    machine.winsvc("stop", "TDSProgram")
    assert machine.exits("TDSProgram") == (0, 0)
    machine.winsvc("remove", "TDSProgram")
    assert (word, first == second) == ("hidden", False)
    assert not _listening(port)
    assert not _listening(port + 1)
    lines = [json.loads(line)["message"] for line in (folder / "logs" / "supervisor.log").read_text().splitlines()]
    assert "listening" in lines
    assert len([line for line in lines if line.startswith("ended by itself with code 7 after")]) == 1


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until_listening(port: int) -> None:
    ends_s = time.monotonic() + 20
    while not _listening(port):
        assert time.monotonic() < ends_s, f"nobody listens on {port}"
        time.sleep(0.05)


def _answered(url: str) -> str:
    ends_s = time.monotonic() + 20
    while True:
        try:
            return httpx.get(url).text
        except httpx.HTTPError:
            assert time.monotonic() < ends_s, f"{url} does not answer"
            time.sleep(0.1)


def test_a_removed_service_is_gone_and_its_files_stay(bridge: Installed) -> None:
    bridge.machine.winsvc("remove")
    said = bridge.machine.winsvc("status", expect=1)
    assert said.strip() == f"{NAME}: Service does not exist. (error 1060)"
    assert (bridge.folder / "bridge.yaml").exists()
    assert bridge.log()
