"""The committed haproxy.cfg at work: what it asks again, what it refuses, and how it says so."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.provisioning.stack import KEY, OTHER, Stack, other_balancer, say, session
from tests.servers.askers import PANEL, client, until
from tests.servers.broken import DRAINING, WELL, Broken


@pytest.mark.parametrize("name", ["answers 503", "closes without an answer"])
async def test_a_post_to_a_replica_that_fails_is_sent_to_the_other_one(stack: Stack, tmp_path: Path, name: str) -> None:
    broken, body = Broken(DRAINING if name == "answers 503" else b""), json.dumps(PANEL).encode()

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


async def test_grafana_nodes_share_the_requests_one_that_goes_costs_nobody_anything_and_no_post_is_sent_twice(
    stack: Stack, tmp_path: Path
) -> None:
    first, second, silent = Broken(WELL), Broken(WELL), Broken(b"")
    async with second.serving() as (port, _):
        nodes = {"LB_GRAFANA_2": f"127.0.0.1:{port}"}

        async def ask(times: int, url: str, method: str = "GET") -> Counter[int]:
            statuses: Counter[int] = Counter()
            async with session(stack, url) as asker:
                for _ in range(times):
                    try:
                        async with asker.request(method, "/api/dashboards/db") as reply:
                            statuses[reply.status] += 1
                    except aiohttp.ServerDisconnectedError:  # what HAProxy makes of it on a connection that was used before
                        statuses[502] += 1
            return statuses

        async with first.serving() as (port, _):
            with other_balancer(tmp_path / "a", stack, LB_GRAFANA_1=f"127.0.0.1:{port}", **nodes) as balancer:
                url = f"https://localhost:{balancer.grafana_port}"
                together = await ask(20, url)
                shared = (first.asked, second.asked)
                first.close()
                alone = await ask(20, url)
        async with silent.serving() as (port, _):
            with other_balancer(tmp_path / "b", stack, LB_GRAFANA_1=f"127.0.0.1:{port}", **nodes) as balancer:
                before = second.asked
                posted = await ask(20, f"https://localhost:{balancer.grafana_port}", "POST")
    say(f"Grafana: {dict(together)} by two {shared}, {dict(alone)} after one went; POST with a silent one: {dict(posted)}")
    assert (together, alone) == ({200: 20}, {200: 20})
    assert min(shared) > 5
    assert posted == {200: second.asked - before, 502: silent.asked}
    assert silent.asked > 5


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

            first = [await ask("/v1/metrics", f"Bearer {KEY}") for _ in range(30)]
            second = [await ask("/v1/metrics", f"Bearer {OTHER}") for _ in range(10)]
            probes = Counter([(await ask("/readyz", f"Bearer {KEY}"))[0] for _ in range(50)])
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
    assert Counter(many) == {401: 30, 429: 10}
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
