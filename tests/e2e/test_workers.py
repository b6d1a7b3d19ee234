"""`bridge serve --workers 2`, real processes: shared load, a killed, hung and orphaned worker, metrics, weight, the stop."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import aiohttp
import pytest

from tests.servers.askers import until
from tests.servers.fleet import settings
from tests.servers.redis import RedisServer
from tests.servers.team import ROOT, Team, is_alive, wait_for
from tests.servers.world import running_stores

_ROWS = {"metric": "open_trades", "from": "now-30m", "step": "60s", "by": "account"}


def worker_at(connection: http.client.HTTPConnection) -> int:
    """Which worker has accepted this connection."""
    connection.request("GET", "/health/sources")
    return int(json.loads(connection.getresponse().read())["worker"])


def test_both_workers_answer_and_each_says_which_one_it_is(tmp_path: Path) -> None:
    with Team(tmp_path, 2) as team, ExitStack() as stack:
        found = set[int]()
        for _ in range(200):  # a busy machine may not let one of them run for a while
            connection = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", team.port)))
            found.add(worker_at(connection))
            if len(found) == 2:
                break
    assert found == {0, 1}


class Asker:
    """A caller on one kept connection at a time: what it asked which worker, and what it got."""

    def __init__(self) -> None:
        self.worker = -1
        self.got: Counter[tuple[int, int | str]] = Counter()

    async def ask_on(self, url: str, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            try:
                async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=1)) as session:
                    async with session.get("/health/sources") as reply:
                        self.worker = (await reply.json())["worker"]
                    while not stopped.is_set():
                        async with session.get("/v1/rows", params=_ROWS) as reply:
                            await reply.read()
                            self.got[self.worker, reply.status] += 1
                        await asyncio.sleep(0.01)
            except aiohttp.ClientError as lost:
                self.got[self.worker, type(lost).__name__] += 1


async def test_a_worker_that_is_killed_is_replaced_and_the_others_requests_are_all_answered(tmp_path: Path) -> None:
    (tmp_path / "tier").mkdir()
    with (
        running_stores(tmp_path, hours=1, instances=2) as stores,
        RedisServer(tmp_path / "tier") as tier,
        Team(tmp_path, 2, settings(stores, tier={"host": tier.host, "port": tier.port})) as team,
    ):
        stopped, askers = asyncio.Event(), [Asker() for _ in range(8)]
        asking = [asyncio.create_task(asker.ask_on(f"http://127.0.0.1:{team.port}", stopped)) for asker in askers]
        await until(20, lambda: {worker for asker in askers for worker, _ in asker.got} == {0, 1})
        victim = team.pid_of(1)
        before = sum((asker.got for asker in askers), Counter())
        os.kill(victim, signal.SIGKILL)
        replaced_s = await until(30, lambda: team.pid_of(1) != victim)
        counted = sum((asker.got for asker in askers), Counter())
        await until(20, lambda: sum((asker.got for asker in askers), Counter()).total() > counted.total() + 50)
        stopped.set()
        await asyncio.gather(*asking)
        page = await asyncio.to_thread(team.page)
    got = sum((asker.got for asker in askers), Counter())
    lost = {key: count for key, count in got.items() if key[1] != 200}
    assert (before[0, 200] > 0, got[0, 200] > before[0, 200]) == (True, True)
    # Each caller of the killed worker may lose the one request that it had under way there.
    assert ({worker for worker, _ in lost}, sum(lost.values()) <= len(askers)) in (({1}, True), (set(), True)), lost
    assert replaced_s < 30
    shared = re.findall(r'^bridge_cache_hits_total\{how="replica",source="\w+"\} (\S+)$', page, re.MULTILINE)
    assert sum(map(float, shared)) > 0, "no worker has taken an answer of the other"


def test_the_metrics_are_those_of_all_workers_and_never_go_back(tmp_path: Path) -> None:
    counter = "bridge_http_requests_total"
    with Team(tmp_path, 2) as team:
        for _ in range(30):
            team.get("/v1/metrics")
        pages = [team.page() for _ in range(4)]
        asked = [line for line in pages[-1].splitlines() if line.startswith(counter) and 'route="/v1/metrics"' in line]
        before, victim = team.total(counter), team.pid_of(0)
        os.kill(victim, signal.SIGKILL)
        seen = [before]
        while team.total("bridge_workers_up") < 2 or team.pid_of(0) == victim:
            seen.append(team.total(counter))
        seen.append(team.total(counter))
        facts = [team.total(name) for name in ("bridge_workers", "bridge_workers_replaced_total", "bridge_build_info")]
    assert asked == [f'{counter}{{route="/v1/metrics",status="200"}} 30.0']
    assert (seen == sorted(seen), facts) == (True, [2.0, 1.0, 1.0]), seen


def test_a_worker_that_hangs_lowers_the_weight_and_is_replaced_while_the_other_answers(tmp_path: Path) -> None:
    with Team(tmp_path, 2, worker_hang_s=5) as team:
        hung = team.pid_of(1)
        os.kill(hung, signal.SIGSTOP)
        wait_for(lambda: team.agent_line() == "up 50%", "the weight stays")
        answers = [team.get("/livez") for _ in range(20)]
        page = team.page()
        wait_for(lambda: team.pid_of(1) != hung and team.all_serve(), "it is not replaced")
        replaced = team.page()
    assert answers == [b"ok\n"] * 20
    assert ("bridge_workers_up 1.0" in page, is_alive(hung)) == (True, False)
    assert 'bridge_workers_replaced_total{why="hung"} 1.0' in replaced


def test_a_stop_drains_all_workers_and_leaves_no_process(tmp_path: Path) -> None:
    with Team(tmp_path, 2) as team:
        pids = {team.process.pid, team.pid_of(0), team.pid_of(1), *team.descendants()}
        team.process.terminate()
        wait_for(lambda: team.agent_line() == "drain up 100%", "the agent does not say that it drains", 10)
        answers = {team.get("/livez") for _ in range(10)}
        readiness = {team.ready() for _ in range(10)}
        code = team.process.wait(20)
    wait_for(lambda: not any(map(is_alive, pids)), "a process is left", 10)
    assert (code, answers, readiness) == (0, {b"ok\n"}, {False}), team.log
    assert ("Traceback" in team.log, "leaked" in team.log, "is killed" in team.log) == (False, False, False), team.log


def test_a_stop_signal_to_every_process_of_the_terminal_is_one_stop(tmp_path: Path) -> None:
    with Team(tmp_path, 2) as team:
        for pid in (team.pid_of(0), team.pid_of(1)):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        still = team.all_serve()
        team.process.send_signal(signal.SIGINT)
        code = team.process.wait(20)
    assert (still, code, "Traceback" in team.log) == (True, 0, False), team.log


def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with Team(tmp_path, 2) as team:
        pids = {team.pid_of(0), team.pid_of(1), *team.descendants()}
        team.process.kill()
        team.process.wait(10)
        wait_for(lambda: not any(map(is_alive, pids)), "an orphan is left", 20)
    assert len(pids) >= 2
    assert ("Traceback" in team.log, team.log.count("the supervisor is gone")) == (False, 2)


class Backend:
    """Takes the bridge's calls, and keeps the events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        kept = self.events

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kept.append(json.loads(body)["event"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/redis-events"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_what_a_replica_does_once_the_leader_alone_does(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "backups").mkdir()
    with RedisServer(tmp_path / "redis") as redis, Backend() as backend:
        source = {"connect": {"kind": "redis", "port": redis.port}, "policy": {"probe_s": 0.5, "look_s": 0.5}}
        values = {
            "sources": {"rts": source},
            "sync": {"url": backend.url, "secret": "a secret of sixteen"},
            "state": str(tmp_path / "state"),
            "backup": {"folder": str(tmp_path / "backups")},
        }
        with Team(tmp_path, 2, values) as team:
            wait_for(lambda: "bridge_backup_age_seconds" in team.page(), "nobody looks at the backups")
            redis.kill()
            wait_for(lambda: team.agent_line() == "up 1% #isolated", "not both workers notice")
            wait_for(lambda: backend.events == ["redis.down"], "the backend is not told")
            redis.restart()
            wait_for(team.all_serve, "not both workers are back")
            wait_for(lambda: len(backend.events) == 2, "the backend is not told")
            calls = team.total("bridge_sync_calls_total")
            team.process.terminate()
            code = team.process.wait(20)
        files = sorted(str(file.relative_to(tmp_path / "state")) for file in (tmp_path / "state").rglob("*.bin"))
    assert (backend.events, calls, code) == (["redis.down", "redis.up"], 2.0, 0)
    assert files == ["answers.bin", "worker-1/answers.bin"]


def test_one_worker_is_one_process_without_any_of_this(tmp_path: Path) -> None:
    with Team(tmp_path, 1) as team:
        children, page, sources = team.descendants(), team.page(), json.loads(team.get("/health/sources"))
    code = "import sys, app.cli.serve; print([name for name in sys.modules if name.startswith('app.workers')])"
    imported = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (children, "bridge_workers" in page, sources, imported) == (set(), False, {"ok": True, "sources": {}}, "[]\n")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"http": {"lame_duck": 3}, "agent": {"ports": 1}}, ["http.lame_duck:", "agent.ports:"]),
        ({"catalog": "catalog", "agent": {"port": None}}, ["one.yaml", "two.yaml"]),
    ],
    ids=["settings", "catalogue"],
)
def test_a_wrong_configuration_is_told_once_whole_and_ends_with_2(
    tmp_path: Path, values: dict[str, object], words: list[str]
) -> None:
    (tmp_path / "catalog").mkdir()
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / "catalog" / name).write_text("group: none\ntitle: None\nmetrics: []\n", encoding="utf-8")
    if "catalog" in values:
        values = values | {"catalog": str(tmp_path / "catalog")}
    (tmp_path / "bridge.json").write_text(json.dumps(values), encoding="utf-8")
    command = [sys.executable, "-m", "app", "serve", "--workers", "3", "--config", str(tmp_path / "bridge.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, [done.stderr.count(word) for word in words]) == (2, [1] * len(words)), done.stderr


@pytest.mark.parametrize(
    ("workers", "words"),
    [("0", "allowed: 1 to 64"), ("65", "allowed: 1 to 64"), ("2", "clickhouse is an engine inside the process")],
)
def test_a_number_of_workers_that_cannot_be_is_refused(tmp_path: Path, workers: str, words: str) -> None:
    embedded = {"connect": {"kind": "clickhouse", "interface": "chdb", "path": str(tmp_path)}}
    (tmp_path / "bridge.json").write_text(json.dumps({"sources": {"clickhouse": embedded}}), encoding="utf-8")
    command = [sys.executable, "-m", "app", "serve", "--workers", workers, "--config", str(tmp_path / "bridge.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "--workers" in done.stderr, words in done.stderr) == (2, True, True), done.stderr
