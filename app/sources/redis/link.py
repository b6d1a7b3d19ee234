"""What the reads need of a way to reach Redis: one server (`server`), a master that Sentinels name (`sentinel`), a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.model import NO_REMARKS, Remarks
from app.sources.redis.connections import Command, Reply


@dataclass(frozen=True, slots=True)
class LookedServer:
    """What one server said at a ping: its time as TIME gives it, INFO's lines; None and none where it may not be asked."""

    address: str
    now: Reply
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """What all servers of a link said at a ping. `absent` are the addresses of those that hold data and did not answer."""

    servers: tuple[LookedServer, ...]
    shape: str = ""
    warning: str | None = None
    absent: tuple[str, ...] = ()


class Link(Protocol):
    """A way to reach Redis."""

    async def exchange(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> tuple[list[Reply], Remarks]:
        """The replies, as `RedisConnections.ask` gives them, and what is not certain of them or missing. Raises SourceError."""

    async def look(self) -> Look:
        """Ask every server what it is. Raises SourceError where there would be no answer to a read."""

    async def renew(self) -> None:
        """Close the idle connections."""

    async def close(self) -> None:
        """Close every connection and end every task."""


@dataclass(slots=True)
class Session:
    """The commands of one statement. When it is answered, `remarks` says what is not certain of the replies or missing."""

    link: Link
    remarks: Remarks = NO_REMARKS

    async def ask(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> list[Reply]:
        """The replies; an error reply with one of the `missing` texts is None. Raises SourceError for the first other one."""
        replies, remarks = await self.link.exchange(commands, missing)
        self.remarks += remarks
        return replies
