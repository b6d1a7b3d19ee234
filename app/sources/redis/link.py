"""What the reads need of a way to reach Redis: one server (`server`), a master that Sentinels name (`sentinel`), a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.errors import SourceError
from app.model import NO_REMARKS, Remarks, gap_remark
from app.sources.redis.connections import Command, Reply


@dataclass(frozen=True, slots=True)
class LookedServer:
    """What one server said at a ping: its time as TIME gives it, INFO's lines; None and none where it may not be asked."""

    address: str
    now: Reply
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """What all servers of a link said at a ping. `is_whole` says whether all that hold data answered: False where one has not
    for some time, None where it has just not."""

    servers: tuple[LookedServer, ...]
    shape: str = ""
    warning: str | None = None
    is_whole: bool | None = True


@dataclass(frozen=True, slots=True)
class Loss:
    """So many of a kind of keys ("hashes") that a server has which did not answer, and why."""

    address: str
    failure: SourceError
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class Replied:
    """The replies to commands, and what is not certain of them. Lost ones are as if there were no such key: how many of each kind
    were asked for, and which were lost."""

    replies: list[Reply]
    remarks: Remarks = NO_REMARKS
    asked: Mapping[str, int] = field(default_factory=dict)
    losses: tuple[Loss, ...] = ()


class Exchange(Protocol):
    """Sends commands."""

    async def exchange(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> Replied:
        """The replies, as `RedisConnections.ask` gives them. Raises SourceError."""


class Link(Exchange, Protocol):
    """A way to reach Redis."""

    def for_past(self, until_ms: int) -> Exchange:
        """The way for a read of what was written before `until_ms` (epoch ms) and nothing newer."""

    async def look(self) -> Look:
        """Ask every server what it is. Raises SourceError where there would be no answer to a read."""

    async def renew(self) -> None:
        """Close the idle connections."""

    async def close(self) -> None:
        """Close every connection and end every task."""


class Session:
    """The commands of one statement, and what there is to say of their replies."""

    def __init__(self, source: str, link: Exchange) -> None:
        self._source = source
        self._link = link
        self._remarks = NO_REMARKS
        self._asked: Counter[str] = Counter()
        self._losses: list[Loss] = []

    async def ask(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> list[Reply]:
        """The replies; an error reply with one of the `missing` texts is None. Raises SourceError for the first other one."""
        replied = await self._link.exchange(commands, missing)
        self._remarks += replied.remarks
        self._asked.update(replied.asked)
        self._losses += replied.losses
        return replied.replies

    def conclude(self) -> Remarks:
        """What is not certain of all replies, or missing. Raises SourceError where everything of a kind is missing: nothing of
        the answer would be true."""
        lost: Counter[str] = Counter()
        by_node: dict[str, list[Loss]] = {}
        for loss in self._losses:
            lost[loss.what] += loss.count
            by_node.setdefault(loss.address, []).append(loss)
        for loss in self._losses:
            if lost[loss.what] == self._asked[loss.what]:
                raise node_failure(self._source, loss.address, loss.failure)
        return sum((self._loss_remark(losses) for losses in by_node.values()), self._remarks)

    def _loss_remark(self, losses: Sequence[Loss]) -> Remarks:
        """What one node has."""
        counts: Counter[str] = Counter()
        for loss in losses:
            counts[loss.what] += loss.count
        of_all = " and ".join(f"{count} of {self._asked[what]} {what}" for what, count in counts.items())
        node = f"node {losses[0].address} of the cluster does not answer ({losses[0].failure.reason})"
        return gap_remark(f"{node}: {of_all} are missing from the figures")


def node_failure(source: str, address: str, failure: SourceError) -> SourceError:
    """The failure of one node as that of the source."""
    return type(failure)(source, f"node {address} of the cluster: {failure.reason}")
