"""Two bridges and two Prometheus behind HAProxy, all by the committed files: what is killed or drained costs nobody anything.

Each test says what it counted (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.provisioning.stack import KEY, Stack, other_balancer, running_stack
from tests.provisioning.test_prometheus import ELSEWHERE
from tests.servers.askers import PANEL, Load, client, load, until
from tests.servers.faulty import FaultProxy
from tests.servers.fleet import Fleet, settings
from tests.servers.world import Stores, running_stores

BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with running_stores(tmp_path_factory.mktemp("stores"), hours=1, instances=2) as running:
        yield running


@pytest.fixture(scope="module")
def stack(own: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), own) as running:
        yield running


def say(text: str) -> None:
    sys.stdout.write(f"\n  {text}\n")


def told(asked: Load) -> str:
    return f"{asked.asked} asked, {len(asked.failed)} kinds of failure, slowest {asked.worst_s:.2f} s"


@asynccontextmanager
async def asking(stack: Stack, **rows: str) -> AsyncIterator[Load]:
    async with load(stack.balancer.url, rows or None, BEARER, stack.trust) as asked:
        yield asked


def session(stack: Stack, url: str) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    return client(url, stack.trust, BEARER)


def up(stack: Stack, server: str) -> Callable[[], bool]:
    return lambda: stack.balancer.stats()[server]["status"].startswith("UP")


async def test_a_rolling_restart_a_crash_and_a_reload_of_haproxy_lose_no_request(stack: Stack) -> None:
    codes = []
    async with asking(stack) as asked:
        await asyncio.sleep(1)
        for number in (0, 1):
            codes.append(await asyncio.to_thread(stack.fleet.stop, number))
            await asyncio.to_thread(stack.fleet.start, number)
            await until(15, up(stack, f"b{number + 1}"))
        restarted = asked.asked
        stack.fleet.kill(1)
        await asyncio.sleep(2)
        await asyncio.to_thread(stack.fleet.start, 1)
        await until(15, up(stack, "b2"))
        crashed = asked.asked
        stack.balancer.reload()
        await asyncio.sleep(1.5)
    say(f"rolling restart, kill -9, reload: {told(asked)} ({restarted} + {crashed - restarted} + {asked.asked - crashed})")
    assert codes == [0, 0]
    assert (asked.failed, asked.blank, restarted > 200, asked.asked > crashed) == ({}, 0, True, True)


async def test_what_is_under_way_in_a_bridge_that_is_told_to_stop_is_finished(own: Stores, stack: Stack, tmp_path: Path) -> None:
    async with FaultProxy(own.clickhouse.port) as slow:
        replicas = Fleet(tmp_path, 2, lambda _: settings(own, {"clickhouse": slow.port}), lame_duck_s=3.0)
        with replicas as fleet, other_balancer(tmp_path / "lb", stack, *fleet.ports) as balancer:
            async with session(stack, balancer.url) as asker:

                async def ask(minutes: int) -> int:
                    params = {"metric": "total_pnl", "from": f"now-{minutes}m", "step": "60s", "timeout": "4.7"}
                    async with asker.get("/alert/v1/rows", params=params) as reply:
                        await reply.read()
                        return reply.status

                await until(10, lambda: {row["agent_status"] for row in balancer.stats().values()} == {"L7OK"})
                assert await asyncio.gather(*map(ask, range(10, 14))) == [200] * 4
                slow.latency_s = 2.5
                running = [asyncio.create_task(ask(20 + number)) for number in range(4)]
                await asyncio.sleep(0.4)
                under_way = int(balancer.stats()["b1"]["scur"])
                stopping = asyncio.create_task(asyncio.to_thread(fleet.stop, 0))
                statuses = Counter(await asyncio.gather(*running))
                state = balancer.stats()["b1"]["status"]
                code = await stopping
    say(f"SIGTERM with {under_way} requests of 2.5 s under way: {dict(statuses)}, b1 by then {state}, exit code {code}")
    assert (code, statuses, under_way > 0) == (0, {200: 4}, True)
    assert state.startswith("DOWN"), "HAProxy must have given it up before they were finished, or this shows nothing"


class Broken:
    """A replica whose probe is always well and whose every other answer is `words`, or the end of the connection."""

    def __init__(self, words: bytes) -> None:
        self.asked = 0
        self._words = words

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[int, int]]:
        http, agent = (
            await asyncio.start_server(self._http, "127.0.0.1", 0),
            await asyncio.start_server(self._agent, "127.0.0.1", 0),
        )
        async with http, agent:
            yield http.sockets[0].getsockname()[1], agent.sockets[0].getsockname()[1]

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            probed = b"/readyz" in head
            self.asked += not probed
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" if probed else self._words)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    async def _agent(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"up 100%\n")
        await writer.drain()
        writer.close()


DRAINING = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"


@pytest.mark.parametrize(("words", "name"), [(DRAINING, "answers 503"), (b"", "closes without an answer")])
async def test_a_post_to_a_replica_that_fails_is_sent_to_the_other_one(
    stack: Stack, tmp_path: Path, words: bytes, name: str
) -> None:
    broken, body = Broken(words), json.dumps(PANEL).encode()

    async def in_two_pieces() -> AsyncIterator[bytes]:
        yield body[:40]
        await asyncio.sleep(0.01)
        yield body[40:]

    async with broken.serving() as ports:
        with other_balancer(tmp_path / "lb", stack, ports, stack.fleet.ports[1]) as balancer:
            async with session(stack, balancer.url) as asker:

                async def post(number: int) -> int:
                    kind = {"Content-Type": "application/json"}
                    body_of = in_two_pieces() if number % 2 else body
                    async with asker.post("/json/query", data=body_of, headers=kind) as reply:
                        await reply.read()
                        return reply.status

                statuses: Counter[int] = Counter()
                for _ in range(15):
                    statuses.update(await asyncio.gather(*map(post, range(4))))
    say(f"POST to a replica that {name}: {dict(statuses)}; {broken.asked} of 60 were tried there first")
    assert (statuses, broken.asked > 15) == ({200: 60}, True)


async def test_a_refusal_by_all_is_passed_on_after_two_tries_and_nobody_left_is_said_as_the_bridge_says_errors(
    stack: Stack, tmp_path: Path
) -> None:
    refusing = Broken(DRAINING)
    async with refusing.serving() as ports:
        with other_balancer(tmp_path / "lb", stack, ports, ports) as balancer:
            async with session(stack, balancer.url) as asker, asker.post("/json/query", json=PANEL) as reply:
                refused = (reply.status, reply.headers["Retry-After"], await reply.text(), refusing.asked)
    with other_balancer(tmp_path / "none", stack, (9, 9), (9, 9)) as balancer:
        await until(10, lambda: {row["status"].split()[0] for row in balancer.stats().values()} == {"DOWN"})
        async with session(stack, balancer.url) as asker:
            async with asker.get("/v1/metrics") as reply:
                nobody = (reply.status, await reply.json())
            async with asker.get("/readyz") as reply:
                ready = reply.status
    assert refused == (503, "1", "busy", 2)
    assert nobody == (503, {"message": "no bridge can serve", "error": {"code": "no_replica", "message": "no bridge can serve"}})
    assert ready == 503


async def test_prometheus_fails_over_and_the_panels_do_not_break_and_the_node_with_a_hole_is_not_preferred(stack: Stack) -> None:
    preferred, spare = stack.prometheus

    def taken() -> tuple[int, int]:
        stats = stack.balancer.stats("be_prometheus")
        return int(stats["p1"]["stot"]), int(stats["p2"]["stot"])

    seen = {}
    async with asking(stack, metric="cpu_load", **{"from": "now-30m", "step": "60s"}) as asked:
        await asyncio.sleep(1.5)
        seen["both run"] = taken()
        preferred.kill()
        await until(5, lambda: stack.balancer.stats("be_prometheus")["p1"]["status"].startswith("DOWN"))
        await asyncio.sleep(1.5)
        seen["p1 killed"] = taken()
        await asyncio.to_thread(preferred.start)
        await until(10, lambda: stack.balancer.stats("be_prometheus")["p1"]["status"].startswith("UP"))
        seen["p1 is back"] = taken()
        await asyncio.sleep(1.5)
        seen["some time later"] = taken()
        spare.pause()
        await until(10, lambda: taken()[0] > seen["some time later"][0])
        spare.resume()
    say(f"Prometheus failover: {told(asked)}, panels {dict(asked.results)}, questions to (p1, p2): {seen}")
    assert (asked.failed, asked.blank) == ({}, 0)
    assert asked.results.keys() <= {"fresh", "stale"}
    assert asked.results["stale"] < asked.results["fresh"]
    assert seen["both run"][1] == 0
    assert seen["p1 killed"][1] > 0
    assert (seen["p1 is back"][0], seen["p1 is back"][1] < seen["some time later"][1]) == (seen["some time later"][0], True)


async def test_what_an_operator_drains_gets_no_request_until_it_is_ready_again(stack: Stack) -> None:
    def taken() -> int:
        return int(stack.balancer.stats()["b1"]["stot"])

    def announces() -> bool:
        with socket.create_connection(("127.0.0.1", stack.fleet.ports[0][1]), timeout=2) as agent:
            return agent.recv(100).startswith(b"ready")

    await until(8, lambda: not announces())  # for 5 s after its start, the bridge takes back a drain
    async with asking(stack) as asked:
        stack.balancer.ask("set server be_bridge/b1 state drain")
        await asyncio.sleep(0.3)
        before, drained = taken(), asked.asked
        await asyncio.sleep(1.5)
        during, drained = taken() - before, asked.asked - drained
        stack.balancer.ask("set server be_bridge/b1 state ready")
        await until(5, lambda: taken() > before)
    say(f"drained by hand: {told(asked)}; {drained} of them while b1 was drained, {during} of these at b1")
    assert (asked.failed, during, drained > 50) == ({}, 0, True)


async def test_prometheus_cannot_be_changed_through_haproxy(stack: Stack) -> None:
    base = f"http://127.0.0.1:{stack.balancer.prometheus_port}"
    async with aiohttp.ClientSession(base) as asker:
        statuses = {}
        for path in (
            "/api/v1/query?query=up",
            "/-/ready",
            "/api/v1/admin/tsdb/snapshot",
            "/-/quit",
            "/%2D/reload",
            "/-/ready/../quit",
        ):
            async with asker.post(path) if "query" not in path else asker.get(path) as reply:
                statuses[path] = reply.status
    assert list(statuses.values())[2:] == [403, 403, 403, 403]
    assert statuses["/api/v1/query?query=up"] == 200


async def test_a_caller_over_the_rate_is_told_when_to_come_back_and_probes_and_others_are_not_harmed(
    stack: Stack, tmp_path: Path
) -> None:
    with other_balancer(tmp_path / "lb", stack, LB_RATE_KEY="20", LB_RATE_ADDRESS="60") as balancer:
        async with session(stack, balancer.url) as asker:

            async def ask(path: str, key: str) -> tuple[int, str | None, str]:
                headers = {"Authorization": key} if key else {}
                async with asker.get(path, headers=headers) as reply:
                    return reply.status, reply.headers.get("Retry-After"), await reply.text()

            first = [await ask("/v1/metrics", "Bearer one") for _ in range(30)]
            second = [await ask("/v1/metrics", "Bearer two") for _ in range(10)]
            probes = Counter([(await ask("/readyz", "Bearer one"))[0] for _ in range(50)])
            many = [(await ask("/v1/metrics", f"Bearer {number}"))[0] for number in range(40)]
            states = {row["status"].split()[0] for row in balancer.stats().values()}
        table = balancer.ask("show table st_callers")
    found = Counter(status for status, *_ in first)
    say(f"limit of 20: {dict(found)}; probes {dict(probes)}; new keys from one address {dict(Counter(many))}")
    assert found == {200: 20, 429: 10}
    status, after, text = first[-1]
    assert (status, after, json.loads(text)["error"]["code"]) == (429, "5", "rate_limited")
    assert {status for status, *_ in second} == {200}
    assert (probes, states) == ({200: 50}, {"UP"})
    assert Counter(many) == {200: 30, 429: 10}
    assert ("Bearer" in table, len(re.findall(r"key=[0-9A-F]{64}", table)) > 10) == (False, True)


async def test_the_bridges_metrics_are_not_shown_to_the_outside(stack: Stack) -> None:
    async with session(stack, stack.balancer.url) as asker:
        found = {}
        for path in ("/metrics", "/METRICS", "/%6detrics", "/metrics/"):
            async with asker.get(path) as reply:
                found[path] = reply.status
        async with asker.delete("/v1/rows") as reply:
            found["DELETE"] = reply.status
    assert found == {"/metrics": 404, "/METRICS": 404, "/%6detrics": 404, "/metrics/": 404, "DELETE": 405}


async def test_tls_is_verified_both_ways_where_certificates_are_required(stack: Stack, tmp_path: Path) -> None:
    async def ask(trust: ssl.SSLContext, url: str) -> int | str:
        async with client(None, trust) as asker:
            try:
                async with asker.get(f"{url}/readyz") as reply:
                    return reply.status
            except aiohttp.ClientError as problem:
                return type(problem).__name__

    authority = str(stack.certificates / "ca.crt")
    old = ssl.create_default_context(cafile=authority)
    old.maximum_version, old.minimum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    known = ssl.create_default_context(cafile=authority)
    known.load_cert_chain(stack.certificates / "client.crt", stack.certificates / "client.key")
    stranger = ssl.create_default_context()
    url = stack.balancer.url
    assert [await ask(trust, url) for trust in (stack.trust, old, stranger)] == [200, 200, "ClientConnectorCertificateError"]
    assert await ask(stack.trust, url.replace("localhost", "127.0.0.1")) == 200
    with other_balancer(tmp_path / "lb", stack, LB_CLIENT_CERTS="required") as strict:
        assert await ask(known, strict.url) == 200
        assert await ask(stack.trust, strict.url) != 200


def ask_prometheus(stack: Stack, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.balancer.prometheus_port}/api/v1/{path}", timeout=5) as answer:
        return json.load(answer)["data"]


async def test_prometheus_scrapes_bridges_haproxy_and_itself_and_its_rules_evaluate(stack: Stack) -> None:
    def scraped() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for target in ask_prometheus(stack, "targets?state=active")["activeTargets"]:
            found.setdefault(target["labels"]["job"], set()).add(target["health"])
        return found

    def healths() -> Counter[str]:
        groups = ask_prometheus(stack, "rules")["groups"]
        return Counter(rule["health"] for group in groups for rule in group["rules"])

    await until(20, lambda: scraped() == {"bridge": {"up"}, "haproxy": {"up"}, "prometheus": {"up"}})
    await until(20, lambda: healths().keys() == {"ok"})
    say(f"rules: {dict(healths())}; targets {scraped()}")
    config = ask_prometheus(stack, "status/config")["yaml"]
    assert re.findall(r"^    (cluster|replica): (\w+)$", config, re.MULTILINE) in (
        [("cluster", "test"), ("replica", "p1")],
        [("cluster", "test"), ("replica", "p2")],
    )


def test_haproxy_shows_the_metrics_that_the_rules_ask_for_and_promtool_has_no_remark(stack: Stack) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.balancer.stats_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    shown = set(re.findall(r"^(\w+)\{", text, re.MULTILINE))
    assert ELSEWHERE["haproxy"] - shown == set()
    states = set(re.findall(r'haproxy_server_status\{proxy="be_bridge",server="b1",state="(\w+)"\}', text))
    assert {"UP", "DOWN", "MAINT", "NOLB", "DRAIN"} == states
    assert set(re.findall(r'haproxy_backend_status\{proxy="be_bridge",state="(\w+)"\}', text)) == {"UP", "DOWN"}
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.balancer.stats_port}/stats", timeout=5) as answer:
        assert b"be_bridge" in answer.read()
    bridge = stack.fleet.ports[0][0]
    with urllib.request.urlopen(f"http://127.0.0.1:{bridge}/metrics", timeout=5) as answer:
        exposed = answer.read()
    linted = subprocess.run(["promtool", "check", "metrics"], input=exposed, capture_output=True, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, b"")
