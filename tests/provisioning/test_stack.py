"""Two bridges and two Prometheus behind HAProxy, all by the committed files: what is killed or drained costs nobody anything.

Each test says what it counted (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path

import httpx

from tests.provisioning.stack import BEARER, Stack, asking, other_balancer, say, session, told, up
from tests.provisioning.test_prometheus import ELSEWHERE
from tests.servers.askers import until
from tests.servers.faulty import FaultProxy
from tests.servers.fleet import Fleet, settings
from tests.servers.world import Stores


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
        values = settings(own, {"clickhouse": slow.port})
        for source in values["sources"].values():
            source["policy"]["fresh_s"] = 10.0  # the live part must not grow old while the slow one is waited for
        replicas = Fleet(tmp_path, 2, lambda _: values, lame_duck_s=3.0)
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
                await until(2, lambda: balancer.stats()["b1"]["scur"] != "0")
                under_way = int(balancer.stats()["b1"]["scur"])
                stopping = asyncio.create_task(asyncio.to_thread(fleet.stop, 0))
                statuses = Counter(await asyncio.gather(*running))
                state = balancer.stats()["b1"]["status"]
                code = await stopping
    say(f"SIGTERM with {under_way} requests of 2.5 s under way: {dict(statuses)}, b1 by then {state}, exit code {code}")
    assert (code, statuses, under_way > 0) == (0, {200: 4}, True)
    assert state.startswith("DOWN"), "HAProxy must have given it up before they were finished, or this shows nothing"


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
        killed = set(asked.results)
        spare.pause()
        await until(10, lambda: taken()[0] > seen["some time later"][0])
        spare.resume()
    say(f"Prometheus failover: {told(asked)}, panels {dict(asked.results)}, questions to (p1, p2): {seen}")
    assert (asked.failed, asked.blank) == ({}, 0)
    assert killed == {"fresh"}
    # A node that hangs is found out by its checks only; some may be shown what stands in for Prometheus by then, marked.
    assert asked.results.keys() <= {"fresh", "stale", "partial"}
    assert asked.results["fresh"] > 0.9 * asked.results.total()
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


async def test_prometheus_scrapes_bridges_haproxy_and_itself_and_its_rules_evaluate(stack: Stack) -> None:
    node = stack.prometheus[1]  # whom no test starts anew: it has scraped by now, and does it every 15 s

    def scraped() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for target in node.get("targets?state=active")["activeTargets"]:
            found.setdefault(target["labels"]["job"], set()).add(target["health"])
        return found

    def healths() -> Counter[str]:
        groups = node.get("rules")["groups"]
        return Counter(rule["health"] for group in groups for rule in group["rules"])

    await until(20, lambda: scraped() == {"bridge": {"up"}, "haproxy": {"up"}, "prometheus": {"up"}})
    await until(20, lambda: healths().keys() == {"ok"})
    say(f"rules: {dict(healths())}; targets {scraped()}")
    config = node.get("status/config")["yaml"]
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
    exposed = httpx.get(f"http://127.0.0.1:{bridge}/metrics", headers=BEARER, timeout=5).content
    linted = subprocess.run(["promtool", "check", "metrics"], input=exposed, capture_output=True, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, b"")
