"""Two nodes of Grafana behind the committed haproxy.cfg: a node that dies or hangs costs no read, and nothing is saved twice."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.provisioning.stack import say
from tests.servers.balancer import Balancer, make_certificates
from tests.servers.grafana_node import GrafanaNode


@dataclass(frozen=True)
class Pair:
    """Two nodes and the balancer in front of them."""

    nodes: tuple[GrafanaNode, GrafanaNode]
    balancer: Balancer
    trust: ssl.SSLContext

    def arrivals(self, method: str) -> Counter[str]:
        """How often each request with this method arrived at any node."""
        lines = [line for node in self.nodes for line in node.requests()]
        return Counter(line for line in lines if line.startswith(f"{method} "))


@dataclass
class Answers:
    """What a load of requests got."""

    statuses: dict[str, Counter[int | str]] = field(default_factory=dict)
    slowest_s: float = 0.0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """The pair, both nodes up."""
    certificates = make_certificates(tmp_path / "tls")
    with GrafanaNode(tmp_path / "g1") as first, GrafanaNode(tmp_path / "g2") as second:
        named = {"LB_GRAFANA_1": first.address, "LB_GRAFANA_2": second.address}
        with Balancer(tmp_path / "lb", certificates, **named) as balancer:
            wait_until_up(balancer, 2)
            yield Pair((first, second), balancer, ssl.create_default_context(cafile=str(certificates / "ca.crt")))


def wait_until_up(balancer: Balancer, servers: int) -> None:
    """Until HAProxy has seen that many nodes."""
    ends_s = time.monotonic() + 15
    while nodes_up(balancer) != servers:
        assert time.monotonic() < ends_s, balancer.stats("be_grafana")
        time.sleep(0.05)


def nodes_up(balancer: Balancer) -> int:
    return sum(row["status"] == "UP" for row in balancer.stats("be_grafana").values())


async def ask_during(pair: Pair, seconds: float, trouble: signal.Signals) -> Answers:
    """32 GETs and 8 POSTs a second, so several are under way at each node when the trouble comes, after a second."""
    answers = Answers({"GET": Counter(), "POST": Counter()})
    # Each connection is new: on a kept one a client repeats a GET by itself, and a lost one would not be seen.
    connector = aiohttp.TCPConnector(ssl=pair.trust, limit=0, force_close=True)
    url = f"https://localhost:{pair.balancer.grafana_port}"
    async with aiohttp.ClientSession(url, connector=connector) as session:

        async def ask(method: str, number: int) -> None:
            begun_s = time.monotonic()
            try:
                async with session.request(method, f"/api/dashboards/{number}") as reply:
                    await reply.read()
                    answers.statuses[method][reply.status] += 1
            except aiohttp.ClientError as problem:
                answers.statuses[method][type(problem).__name__] += 1
            answers.slowest_s = max(answers.slowest_s, time.monotonic() - begun_s)

        async with asyncio.TaskGroup() as group:
            for number in range(int(seconds * 40)):
                group.create_task(ask("POST" if number % 5 == 4 else "GET", number))
                if number == 40:
                    pair.nodes[0].send(trouble)
                await asyncio.sleep(0.025)
        await connector.close(abort_ssl=True)
    return answers


async def test_a_node_that_is_killed_under_load_costs_no_get_and_no_post_arrives_twice(pair: Pair) -> None:
    answers = await ask_during(pair, 4, signal.SIGKILL)
    say(f"killed: {answers}")
    assert answers.statuses["GET"].keys() == {200}
    # The reads that were under way there were sent again; what was to be saved was not.
    assert (max(pair.arrivals("GET").values()), max(pair.arrivals("POST").values())) == (2, 1)


async def test_a_node_that_hangs_costs_no_get_and_no_post_arrives_twice_even_when_it_goes_on(pair: Pair) -> None:
    answers = await ask_during(pair, 6, signal.SIGSTOP)
    pair.nodes[0].send(signal.SIGCONT)  # what waited in its sockets arrives now
    await asyncio.to_thread(wait_until_up, pair.balancer, 2)
    say(f"hung: {answers}")
    assert answers.statuses["GET"].keys() == {200}
    assert (max(pair.arrivals("GET").values()), max(pair.arrivals("POST").values())) == (2, 1)
    assert answers.slowest_s < 6.5
    assert answers.statuses["POST"][502] > 0, "no POST was under way at the node that hung, so nothing was tried here"


async def test_a_node_that_is_back_gets_its_share_again(pair: Pair) -> None:
    pair.nodes[0].send(signal.SIGSTOP)
    await asyncio.to_thread(wait_until_up, pair.balancer, 1)
    pair.nodes[0].send(signal.SIGCONT)
    await asyncio.to_thread(wait_until_up, pair.balancer, 2)
    before = len(pair.nodes[0].requests())
    answers = await ask_during(pair, 3, signal.SIGCONT)
    assert {*answers.statuses["GET"], *answers.statuses["POST"]} == {200}
    assert len(pair.nodes[0].requests()) > before
