"""A Redis Cluster: one pipeline for each node, redirections followed, and a node that is down told of.

redis-py's `RedisCluster` is not used: its pipeline fails as a whole with one node, and its pools are the ones that `connections`
avoids. Its slots (`redis.crc`) and its errors for redirections are.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from redis.exceptions import AskError, ClusterDownError, MovedError

from app.cooperative import Background
from app.errors import SourceError, SourceTimeout, SourceUnavailable
from app.sources.redis.addresses import join_address
from app.sources.redis.connections import Command, RedisConnections, Reply, accept_replies
from app.sources.redis.link import Exchange, Look, LookedServer, Replied
from app.sources.redis.reads import expect_reply
from app.sources.redis.server import LOOK_COMMANDS, LOOK_MISSING, looked_server
from app.sources.redis.slots import SLOTS, Unanswered, count_kinds, fill_unanswered, slot_of, slot_ranges

_log = logging.getLogger(__name__)

_LOOK: tuple[Command, ...] = (*LOOK_COMMANDS, ("CLUSTER", "INFO"))
_ASKING: Command = ("ASKING",)
_LOOK_LIMIT_S = 0.5
#: The pause between two looks at nodes that are down.
_MEND_S = 0.5
#: A command is redirected at most so many times.
_MOST_HOPS = 4

#: Makes the connections to one node.
Connect = Callable[[str, int], RedisConnections]


@dataclass(slots=True, eq=False)
class _Node:
    """One node, and why it is not asked just now."""

    host: str
    address: str
    connections: RedisConnections
    failure: SourceError | None = None


@dataclass(slots=True)
class _Round:
    """The commands (by their places) that go to each node next. `asking` have to say first that they were redirected."""

    plain: dict[_Node, list[int]] = field(default_factory=lambda: defaultdict(list))
    asking: dict[_Node, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __bool__(self) -> bool:
        return bool(self.plain or self.asking)


@dataclass(slots=True)
class _Found:
    """The replies so far, and the commands without one."""

    replies: list[Reply]
    unanswered: list[Unanswered] = field(default_factory=list)


class ClusterLink:
    """The masters of a cluster, found from any of the `seeds`. Replicas are asked for nothing."""

    def __init__(self, name: str, seeds: Sequence[tuple[str, int]], connect: Connect) -> None:
        self._name = name
        self._connect = connect
        self._nodes: dict[str, _Node] = {}
        self._seeds = tuple(self._node_at(host, port) for host, port in seeds)
        #: the node of each slot, and the nodes in the order of their slots
        self._owners: list[_Node | None] = []
        self._masters: tuple[_Node, ...] = ()
        self._reading: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._background = Background()
        #: the nodes that did not answer the last ping
        self._failing: set[str] = set()
        #: whether it refused the last read, as clusters do that are told to be whole or nothing
        self._refuses = False

    async def exchange(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> Replied:
        """See Link. What a node has that does not answer is lost where it is one of many ids, else its failure is raised."""
        if not commands:
            return Replied([])
        if not self._owners:
            await self._read_map()
        found = _Found([None] * len(commands))
        planned = self._first_round(commands, found)
        for _ in range(_MOST_HOPS):
            planned = await self._play_round(planned, commands, found)
            if not planned:
                break
        else:
            raise SourceUnavailable(self._name, f"the cluster redirected a command more than {_MOST_HOPS - 1} times")
        replies = accept_replies(self._name, found.replies, missing)
        losses = tuple(fill_unanswered(self._name, commands, replies, found.unanswered))
        self._refuses = self._refuses and bool(losses)
        return Replied(replies, asked=count_kinds(commands), losses=losses)

    def for_past(self, until_ms: int) -> Exchange:
        """See Link."""
        return self

    async def look(self) -> Look:
        """See Link. Every master is asked; beside that, the map of slots is read again."""
        if self._owners:
            self._start_reading()
        else:
            await self._read_map()
        masters = self._masters
        found = await asyncio.gather(*(self._look_at(node) for node in masters))
        servers = tuple(server for server in found if server is not None)
        failures = {node.address: node.failure for node in masters if node.failure}
        if not servers:
            raise next(iter(failures.values())).again()
        if self._refuses:
            raise SourceUnavailable(
                self._name, "CLUSTERDOWN: the cluster refuses to be read while some of its slots have no node"
            )
        warnings = [f"node {address} does not answer: {failure.reason}" for address, failure in failures.items()]
        if unowned := sum(owner is None for owner in self._owners):
            warnings.append(f"{unowned} of {SLOTS} slots have no node")
        # One ping may fail by chance; the backend is told of an outage.
        is_whole = not failures or (False if self._failing & failures.keys() else None)
        self._failing = {*failures}
        shape = f"cluster, {len(servers)} of {len(masters)} masters"
        return Look(servers, shape, "; ".join(warnings) or None, is_whole)

    async def renew(self) -> None:
        """See Link."""
        for node in list(self._nodes.values()):
            await node.connections.renew()

    async def close(self) -> None:
        """See Link."""
        await self._background.close()
        for node in self._nodes.values():
            await node.connections.close()

    def _first_round(self, commands: Sequence[Command], found: _Found) -> _Round:
        planned, anywhere, unowned = _Round(), list[int](), list[int]()
        for place, command in enumerate(commands):
            slot = slot_of(command)
            if slot is None:
                anywhere.append(place)
            elif owner := self._owners[slot]:
                planned.plain[owner].append(place)
            else:
                unowned.append(place)
        if anywhere:
            planned.plain[next(iter(planned.plain), self._masters[0])] += anywhere
        if unowned:
            found.unanswered.append(Unanswered("(none)", SourceUnavailable(self._name, "no node has these slots"), unowned))
        return planned

    async def _play_round(self, planned: _Round, commands: Sequence[Command], found: _Found) -> _Round:
        """Send the commands, note replies and losses; what was redirected is the next round."""
        parts = [(node, places, False) for node, places in planned.plain.items()]
        parts += [(node, places, True) for node, places in planned.asking.items()]
        asked = [self._ask_node(node, [commands[place] for place in places], asking) for node, places, asking in parts]
        following = _Round()
        for (node, places, _), told in zip(parts, await asyncio.gather(*asked), strict=True):
            if not isinstance(told, SourceError):
                self._sort_replies(node, dict(zip(places, told, strict=True)), found, following)
            elif told.trips_breaker:
                found.unanswered.append(Unanswered(node.address, told, places))
            else:
                raise told.again()
        return following

    def _sort_replies(self, node: _Node, replies: Mapping[int, Reply], found: _Found, following: _Round) -> None:
        refused = list[int]()
        for place, reply in replies.items():
            if isinstance(reply, AskError):
                self._redirect(place, reply, following)
            elif isinstance(reply, ClusterDownError):
                refused.append(place)
            else:
                found.replies[place] = reply
        if refused:
            self._refuses = True
            reason = f"CLUSTERDOWN {replies[refused[0]]}"
            found.unanswered.append(Unanswered(node.address, SourceUnavailable(self._name, reason), refused))

    def _redirect(self, place: int, reply: AskError, following: _Round) -> None:
        node = self._node_at(reply.host, reply.port)
        if isinstance(reply, MovedError):
            self._owners[reply.slot_id] = node
            self._start_reading()
            following.plain[node].append(place)
        else:
            following.asking[node].append(place)

    async def _ask_node(self, node: _Node, commands: Sequence[Command], asking: bool) -> list[Reply] | SourceError:
        if node.failure:
            return node.failure
        try:
            if not asking:
                return await node.connections.raw_replies(commands)
            in_pairs = [one for command in commands for one in (_ASKING, command)]
            return (await node.connections.raw_replies_in_order(in_pairs))[1::2]
        except SourceError as failure:
            if failure.trips_breaker:
                self._note_failure(node, failure)
            return failure

    def _note_failure(self, node: _Node, failure: SourceError) -> None:
        if node.failure is None:
            _log.warning("%s: node %s of the cluster is not asked any more: %s", self._name, node.address, failure.reason)
        node.failure = failure
        if self._mending is None or self._mending.done():
            self._mending = self._background.start(self._mend_nodes(), f"{self._name}: nodes that are down")

    async def _mend_nodes(self) -> None:
        """Look at the nodes that are down until they answer or others have their slots."""
        while failing := [node for node in self._masters if node.failure]:
            self._start_reading()
            await asyncio.gather(*(self._look_at(node) for node in failing))
            await asyncio.sleep(_MEND_S)

    async def _look_at(self, node: _Node) -> LookedServer | None:
        """What the node says; None, and its failure noted, where it does not answer."""
        try:
            async with asyncio.timeout(_LOOK_LIMIT_S):
                _, now, info, state = await node.connections.ask(_LOOK, LOOK_MISSING)
            server = looked_server(self._name, node.address, now, info)
        except TimeoutError:
            self._note_failure(node, SourceTimeout(self._name, f"no answer within {_LOOK_LIMIT_S:g}s (ping)"))
            return None
        except SourceError as failure:
            self._note_failure(node, failure)
            return None
        if b"cluster_state:ok" in (state or b""):
            self._refuses = False
        if node.failure is not None:
            _log.info("%s: node %s of the cluster answers again", self._name, node.address)
        node.failure = None
        return server

    async def _read_map(self) -> None:
        """Read which node has which slots; all callers share one reading. Raises SourceError where no node tells."""
        task = self._start_reading()
        await asyncio.wait((task,))
        failure = task.exception()
        if isinstance(failure, SourceError):
            raise failure.again()
        task.result()

    def _start_reading(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = self._background.start(self._read_map_from_any(), f"{self._name}: reading the map of slots")
            self._reading.add_done_callback(_mark_seen)
        return self._reading

    async def _read_map_from_any(self) -> None:
        failures = list[SourceError]()
        known = dict.fromkeys((*self._masters, *self._seeds))
        for node in sorted(known, key=lambda one: one.failure is not None):
            try:
                async with asyncio.timeout(_LOOK_LIMIT_S):
                    [reply] = await node.connections.ask([("CLUSTER", "SLOTS")])
                with expect_reply(self._name, "CLUSTER SLOTS"):
                    await self._take_map(reply, node.host)
            except TimeoutError:
                failures.append(SourceTimeout(self._name, f"{node.address}: no answer within {_LOOK_LIMIT_S:g}s"))
                self._note_failure(node, failures[-1])  # the next reading asks it last
            except SourceError as failure:
                failures.append(type(failure)(self._name, f"{node.address}: {failure.reason}"))
            else:
                return
        raise failures[0]

    async def _take_map(self, reply: Reply, asked_host: str) -> None:
        owners: list[_Node | None] = [None] * SLOTS
        for first, last, host, port in slot_ranges(reply, asked_host):
            owners[first : last + 1] = [self._node_at(host, port)] * (last + 1 - first)
        if not any(owners):
            raise SourceUnavailable(self._name, "no node of the cluster has slots")
        self._owners = owners
        self._masters = tuple(dict.fromkeys(owner for owner in owners if owner is not None))
        for node in set(self._nodes.values()).difference(self._masters):
            node.failure = None
            if node not in self._seeds:
                del self._nodes[node.address]
                await node.connections.close()

    def _node_at(self, host: str, port: int) -> _Node:
        address = join_address(host, port)
        if address not in self._nodes:
            self._nodes[address] = _Node(host, address, self._connect(host, port))
        return self._nodes[address]


def _mark_seen(ended: asyncio.Task[None]) -> None:
    """Mark a failure as retrieved: there may be no caller left."""
    if not ended.cancelled():
        ended.exception()
