"""The master that Sentinels name, followed through failovers.

redis-py's `Sentinel` believes the first Sentinel that answers. One that is cut off together with the old master would keep it the
master for ever. So here all Sentinels are asked at once: a majority of those configured must answer, and of their answers the one
of the newest failover (`config-epoch`) counts. Every pipeline asks the server for its ROLE, too: a master that has become a
replica is found out by its next answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app import clock
from app.errors import SourceDenied, SourceError, SourceUnavailable
from app.model import NO_REMARKS, Remarks, gap_remark
from app.sources.redis.addresses import join_address
from app.sources.redis.connections import Command, RedisConnections, Reply, accept_replies
from app.sources.redis.link import Exchange, Look, Replied
from app.sources.redis.parse import pairs
from app.sources.redis.reads import expect_reply
from app.sources.redis.replicas import Replicas
from app.sources.redis.server import LOOK_COMMANDS, LOOK_MISSING, looked_server

_log = logging.getLogger(__name__)

_ROLE: Command = ("ROLE",)
#: A finding older than this is renewed beside the reads.
_RENEW_S = 1.0
#: A finding older than this is not used: so long may a master be read that the Sentinels have replaced.
MOST_S = 3.0
#: For how long the other Sentinels are waited for when a majority has answered.
_GRACE_S = 0.05

#: Makes the connections to one server.
Connect = Callable[[str, int], RedisConnections]


@dataclass(frozen=True, slots=True)
class _Word:
    """What one Sentinel says: which server is the master since which failover, and whether it holds it for down."""

    host: str
    port: int
    epoch: int
    is_down: bool
    #: its reply to SENTINEL REPLICAS; empty where that is not asked for
    replicas: Reply = ()


@dataclass(frozen=True, slots=True)
class _Master:
    """The server that is held for the master, and why that is not certain."""

    address: str
    connections: RedisConnections
    found_s: float
    doubt: Remarks = NO_REMARKS


class SentinelLink:
    """The master of a service. `sentinels` has one connection each, `connect` makes those to the master. With `replicas` these
    answer reads of the past where they can."""

    def __init__(
        self,
        name: str,
        service: str,
        sentinels: Sequence[RedisConnections],
        connect: Connect,
        replicas: Replicas | None = None,
    ) -> None:
        self._name = name
        self._service = service
        self._sentinels = tuple(sentinels)
        self._connect = connect
        self._master: _Master | None = None
        self._finding: asyncio.Task[_Master] | None = None
        self._left: list[RedisConnections] = []
        self._replicas = replicas

    async def exchange(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> Replied:
        """See Link. Raises SourceUnavailable also where the Sentinels name no master or the server is none any more."""
        if not commands:
            return Replied([])
        master, asked_ms = await self._current_master(), clock.wall_ms()
        try:
            *replies, role = await master.connections.raw_replies([*commands, _ROLE])
            self._expect_master(master, role, asked_ms)
        except (SourceError, asyncio.CancelledError):
            self._outdate()
            raise
        return Replied(accept_replies(self._name, replies, missing), master.doubt)

    def for_past(self, until_ms: int) -> Exchange:
        """See Link."""
        return _PastReads(self, self._replicas, until_ms) if self._replicas else self

    async def doubt(self) -> Remarks:
        """What is not certain of the master. Raises SourceError where there is none."""
        return (await self._current_master()).doubt

    async def look(self) -> Look:
        """See Link. The Sentinels are asked anew."""
        master = await self._find_master()
        _, now, info = (await self.exchange(LOOK_COMMANDS, LOOK_MISSING)).replies
        warning = "; ".join(notice.text for notice in master.doubt.notices) or None
        shape = f"master {master.address} of {self._service} by Sentinel"
        return Look((looked_server(self._name, master.address, now, info),), shape, warning)

    async def renew(self) -> None:
        """See Link."""
        for connections in (*self._sentinels, *([self._master.connections] if self._master else [])):
            await connections.renew()
        if self._replicas:
            await self._replicas.renew()

    async def close(self) -> None:
        """See Link."""
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.wait((self._finding,))
        for connections in (*self._sentinels, *self._left, *([self._master.connections] if self._master else [])):
            await connections.close()
        if self._replicas:
            await self._replicas.close()

    def _expect_master(self, master: _Master, role: Reply, asked_ms: int) -> None:
        if isinstance(role, Exception):
            raise SourceDenied(self._name, f"{master.address} does not tell its role; the bridge's user needs +role: {role}")
        with expect_reply(self._name, "ROLE"):
            is_master = role[0] == b"master"
            if is_master and self._replicas:
                self._replicas.note_offset(master.address, asked_ms, int(role[1]))
        if not is_master:
            raise SourceUnavailable(self._name, f"{master.address} is no master any more; the Sentinels are asked again")

    def _outdate(self) -> None:
        """Ask the Sentinels before the next read: a failure may be a failover."""
        if self._master is not None:
            self._master = replace(self._master, found_s=time.monotonic() - MOST_S)

    async def _current_master(self) -> _Master:
        master = self._master
        age_s = time.monotonic() - master.found_s if master else MOST_S
        if master is None or age_s >= MOST_S:
            return await self._find_master()
        if age_s >= _RENEW_S:
            self._start_finding()
        return master

    async def _find_master(self) -> _Master:
        """The master, by asking the Sentinels; all callers share one asking."""
        task = self._start_finding()
        await asyncio.wait((task,))
        failure = task.exception()
        if isinstance(failure, SourceError):
            raise failure.again()
        return task.result()

    def _start_finding(self) -> asyncio.Task[_Master]:
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(self._ask_for_master(), name=f"{self._name}: asking the Sentinels")
            self._finding.add_done_callback(_mark_seen)
        return self._finding

    async def _ask_for_master(self) -> _Master:
        words, failures = await self._ask_sentinels()
        if not words:
            return self._master_without_sentinels(failures)
        newest = max(words, key=lambda word: word.epoch)
        address = join_address(newest.host, newest.port)
        agreed = [word for word in words if (word.host, word.port) == (newest.host, newest.port)]
        if sum(word.is_down for word in agreed) >= self._majority:
            raise SourceUnavailable(self._name, f"the Sentinels hold the master {address} for down")
        doubt = NO_REMARKS if len(words) >= self._majority else self._doubt_remark(len(words), address)
        await self._close_left()
        if self._master is not None and self._master.address == address:
            connections = self._master.connections
        else:
            if self._master is not None:
                former = self._master.address
                _log.warning("%s: the master of %s is %s now, it was %s", self._name, self._service, address, former)
                self._left.append(self._master.connections)
            connections = self._connect(newest.host, newest.port)
        self._master = _Master(address, connections, time.monotonic(), doubt)
        if self._replicas:
            await self._replicas.take_list(newest.replicas)
        await self._close_left()
        return self._master

    async def _close_left(self) -> None:
        """Close the connections to former masters, those in use too."""
        while self._left:
            await self._left[-1].close()
            self._left.pop()

    def _master_without_sentinels(self, failures: Sequence[SourceError]) -> _Master:
        """The master known so far. Raises SourceError where there is none, or where a Sentinel refuses to name one."""
        refusals = [failure for failure in failures if not failure.retryable and not failure.timed_out]
        failure = (refusals or failures)[0]
        if self._master is None or refusals:
            kind = SourceDenied if failure.denied else SourceUnavailable
            raise kind(self._name, f"no Sentinel names a master of {self._service}: {failure.reason}")
        doubt = self._doubt_remark(0, self._master.address)
        self._master = replace(self._master, found_s=time.monotonic(), doubt=doubt)
        return self._master

    def _doubt_remark(self, answered: int, address: str) -> Remarks:
        of_all = f"{answered} of {len(self._sentinels)} Sentinels answer"
        return gap_remark(f"{of_all}: another server may have replaced the master {address}, whose figures these are")

    @property
    def _majority(self) -> int:
        return len(self._sentinels) // 2 + 1

    async def _ask_sentinels(self) -> tuple[list[_Word], list[SourceError]]:
        """What the Sentinels say, those that answer soon after the majority."""
        words, failures = list[_Word](), list[SourceError]()
        waiting = {asyncio.create_task(self._word_of(sentinel)) for sentinel in self._sentinels}
        try:
            while waiting:
                grace_s = _GRACE_S if len(words) >= self._majority else None
                done, waiting = await asyncio.wait(waiting, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in done:
                    found = task.result()
                    if isinstance(found, SourceError):
                        failures.append(found)
                    else:
                        words.append(found)
        finally:
            for task in waiting:
                task.cancel()
        return words, failures

    async def _word_of(self, sentinel: RedisConnections) -> _Word | SourceError:
        commands: tuple[Command, ...] = (
            ("SENTINEL", "MASTER", self._service),
            # During a failover this one names the promoted server before the other does.
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
            *([("SENTINEL", "REPLICAS", self._service)] if self._replicas else ()),
        )
        try:
            state, named, *listed = await sentinel.ask(commands)
            with expect_reply(self._name, "SENTINEL MASTER"):
                return replace(_word_from(pairs(state), named), replicas=listed[0] if listed else ())
        except SourceError as failure:
            return failure


@dataclass(frozen=True, slots=True)
class _PastReads:
    """Reads of what was written before an instant: by a replica that has it, else by the master."""

    link: SentinelLink
    replicas: Replicas
    until_ms: int

    async def exchange(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> Replied:
        """See Link."""
        doubt = await self.link.doubt()
        replies = await self.replicas.read_settled(self.until_ms, commands, missing)
        return Replied(replies, doubt) if replies is not None else await self.link.exchange(commands, missing)


def _word_from(facts: dict[bytes, Reply], named: Reply) -> _Word:
    host, port = named[0].decode(), int(named[1])
    is_same = (facts[b"ip"].decode(), int(facts[b"port"])) == (host, port)
    flags = facts[b"flags"].split(b",")
    return _Word(host, port, int(facts[b"config-epoch"]), is_same and (b"s_down" in flags or b"o_down" in flags))


def _mark_seen(ended: asyncio.Task[_Master]) -> None:
    """Mark a failure as retrieved: there may be no caller left."""
    if not ended.cancelled():
        ended.exception()
