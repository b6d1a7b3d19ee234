"""One Redis server at a fixed address, and what any server is asked at a ping."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import SourceUnavailable
from app.sources.redis.connections import Command, RedisConnections, Reply
from app.sources.redis.link import Exchange, Look, LookedServer, Replied
from app.sources.redis.reads import expect_reply

#: What a server is asked for at a ping.
LOOK_COMMANDS: tuple[Command, ...] = (("PING",), ("TIME",), ("INFO",))
#: Error replies to these that say nothing of reads. MISCONF: it cannot save to its disk and refuses writes, and PING with them.
LOOK_MISSING = ("unknown command", "no permissions", "MISCONF")


class ServerLink:
    """One server at a fixed address."""

    def __init__(self, name: str, address: str, connections: RedisConnections) -> None:
        self._name = name
        self._address = address
        self._connections = connections

    async def exchange(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> Replied:
        """See Link."""
        return Replied(await self._connections.ask(commands, missing))

    def for_past(self, until_ms: int) -> Exchange:
        """See Link."""
        return self

    async def look(self) -> Look:
        """See Link. Raises SourceUnavailable also for a replica that has lost its master."""
        _, now, info = await self._connections.ask(LOOK_COMMANDS, LOOK_MISSING)
        server = looked_server(self._name, self._address, now, info)
        if server.facts.get("role") == "slave" and server.facts.get("master_link_status") == "down":
            raise SourceUnavailable(self._name, "is a replica that has lost its master: what it has is old")
        in_cluster = server.facts.get("cluster_enabled") == "1"
        return Look((server,), warning="is a node of a Redis Cluster; set `cluster: true`" if in_cluster else None)

    async def renew(self) -> None:
        """See Link."""
        await self._connections.renew()

    async def close(self) -> None:
        """See Link."""
        await self._connections.close()


def looked_server(source: str, address: str, now: Reply, info: Reply) -> LookedServer:
    """What a server said; INFO has no lines where the command is not allowed. Raises SourceGarbled."""
    with expect_reply(source, "INFO and TIME"):
        text = (info or b"").decode("utf-8", "replace")
    return LookedServer(address, now, dict(line.split(":", 1) for line in text.splitlines() if ":" in line))
