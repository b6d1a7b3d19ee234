"""Reads of the past from replicas, where it is proven that they have it.

A replica may be behind its master, and does not say by how much time. But the master's replication offset at an instant is known
from its ROLE. A replica whose own offset is not less has everything that was written before that instant. So a read of closed
buckets may be answered by a replica that had such an offset before the read; everything else is read from the master.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from app.errors import SourceError
from app.sources.redis.addresses import join_address
from app.sources.redis.connections import Command, RedisConnections, Reply, accept_replies
from app.sources.redis.parse import pairs
from app.sources.redis.reads import expect_reply

_ROLE: Command = ("ROLE",)
#: How many of the master's offsets are kept; at least one a second comes with the pings.
_NOTES = 120
#: Flags of a server that a Sentinel cannot reach.
_GONE = {b"s_down", b"o_down", b"disconnected"}


class Replicas:
    """The replicas of the present master, and which offset it had when."""

    def __init__(self, name: str, connect: Callable[[str, int], RedisConnections]) -> None:
        self._name = name
        self._connect = connect
        self._master = ""
        self._notes: deque[tuple[int, int]] = deque(maxlen=_NOTES)
        self._known: dict[str, RedisConnections] = {}
        self._usable: deque[str] = deque()

    def note_offset(self, master: str, at_ms: int, offset: int) -> None:
        """The master had this offset at this instant (epoch ms) or later; each instant by itself once a second is enough."""
        if master != self._master:
            self._master = master
            self._notes.clear()
        if not self._notes or at_ms - self._notes[-1][0] >= 1000:
            self._notes.append((at_ms, offset))

    async def take_list(self, reply: Reply) -> None:
        """The replicas as SENTINEL REPLICAS lists them."""
        with expect_reply(self._name, "SENTINEL REPLICAS"):
            listed = {_address_of(facts): facts for facts in map(pairs, reply)}
            addresses = [address for address, facts in listed.items() if not _GONE & {*facts[b"flags"].split(b",")}]
        for address in addresses:
            if address not in self._known:
                self._known[address] = self._connect(listed[address][b"ip"].decode(), int(listed[address][b"port"]))
        self._usable = deque(addresses)
        for address in self._known.keys() - listed.keys():
            await self._known.pop(address).close()

    async def read_settled(self, until_ms: int, commands: Sequence[Command], missing: tuple[str, ...]) -> list[Reply] | None:
        """The replies of a replica that has everything written before `until_ms`; None where none is known to.

        Raises SourceError for an error reply. A replica that fails is not asked again before the next `take_list`.
        """
        needed = next((offset for at_ms, offset in self._notes if at_ms >= until_ms), None)
        if needed is None or not self._usable:
            return None
        self._usable.rotate()
        address = self._usable[0]
        try:
            # First its role, so that the offset is not newer than what is read.
            role, *replies = await self._known[address].raw_replies([_ROLE, *commands])
        except (SourceError, asyncio.CancelledError) as failure:
            self._leave_out(address)
            if isinstance(failure, SourceError):
                return None
            raise
        with expect_reply(self._name, "ROLE"):
            is_proven = not isinstance(role, Exception) and self._has_all(role, needed)
        if not is_proven:
            return None
        return accept_replies(self._name, replies, missing)

    def _has_all(self, role: Reply, needed: int) -> bool:
        if role[0] != b"slave":
            return False
        _, host, port, state, offset = role
        follows = join_address(host.decode(), int(port)) == self._master
        return follows and state == b"connected" and int(offset) >= needed

    def _leave_out(self, address: str) -> None:
        if address in self._usable:
            self._usable.remove(address)

    async def renew(self) -> None:
        """Close the idle connections."""
        for connections in self._known.values():
            await connections.renew()

    async def close(self) -> None:
        """Close every connection."""
        for connections in self._known.values():
            await connections.close()


def _address_of(facts: dict[bytes, Reply]) -> str:
    return join_address(facts[b"ip"].decode(), int(facts[b"port"]))
