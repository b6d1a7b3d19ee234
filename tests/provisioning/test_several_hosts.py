"""The committed haproxy.cfg in front of two hosts, where everything listens on the same ports: two addresses of the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from demo.stores import free_port
from tests.servers.askers import until
from tests.servers.balancer import Balancer, make_certificates

HOSTS = ("127.0.0.2", "127.0.0.3")
KINDS = ("BRIDGE", "GRAFANA", "PROMETHEUS")


@asynccontextmanager
async def host(address: str, http_port: int, agent_port: int, says: bytes) -> AsyncIterator[None]:
    """A host with a replica of the bridge, a Grafana and a Prometheus, all well, and an agent that says something."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwell")
        writer.close()

    async def agent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()

    async with AsyncExitStack() as stack:
        for port, serve in ((http_port, answer), (agent_port, agent)):
            await stack.enter_async_context(await asyncio.start_server(serve, address, port))
        yield


async def test_each_replica_is_asked_on_its_own_host_for_its_health_and_for_its_weight(tmp_path: Path) -> None:
    http_port, agent_port = free_port(), free_port()
    variables = {f"LB_{kind}_{number}": f"{address}:{http_port}" for number, address in enumerate(HOSTS, 1) for kind in KINDS}
    variables |= {f"LB_BRIDGE_{number}_AGENT": str(agent_port) for number in (1, 2)}
    with Balancer(tmp_path / "lb", make_certificates(tmp_path / "tls"), **variables) as balancer:

        def states(backend: str) -> dict[str, str]:
            return {name: row["status"].split()[0] for name, row in balancer.stats(backend).items()}

        async with AsyncExitStack() as stack:
            for address, says in zip(HOSTS, (b"up 100%\n", b"drain\n"), strict=True):
                await stack.enter_async_context(host(address, http_port, agent_port, says))
            await until(15, lambda: states("be_bridge") == {"b1": "UP", "b2": "DRAIN"})
            await until(15, lambda: states("be_grafana") == {"g1": "UP", "g2": "UP"})
            await until(15, lambda: states("be_prometheus") == {"p1": "UP", "p2": "UP"})
        await until(15, lambda: set(states("be_grafana").values()) == {"DOWN"})
