"""`bridge haproxy`: drive the HAProxy in front of the replicas."""

from __future__ import annotations

import asyncio

from app.cli.output import print_lines
from app.operations.haproxy import reconnect


def reconnect_servers(address: str, backend: str, servers: list[str]) -> int:
    """Make HAProxy reconnect to each replica, one after the other."""
    for server in servers:
        print_lines(*asyncio.run(reconnect(address, backend, server)))
    return 0
