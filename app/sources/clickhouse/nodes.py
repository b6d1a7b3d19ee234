"""Several ClickHouse nodes that have the same data, asked in order of preference.

A node that cannot be reached, or does not let us in, rests for some seconds, and the next one is asked within the same attempt.
Each look at the nodes (the ping of the source) also finds those that hang: their queries go on at the next node. Nodes that rest
are asked after all others, so nothing is missing for want of trying.

A replica that lags would show old figures as if they were new. It is asked only where no other node answers. Each of its answers
says so and is partial.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from app import clock
from app.errors import SourceDenied, SourceError, SourceGarbled, SourceTimeout, SourceUnavailable
from app.sources.base import translate
from app.sources.clickhouse.address import ClickHouseAddress, NodeAddress
from app.sources.clickhouse.link import ERRORS, KILLED, WHAT_ANSWERS, HttpLink, Presence, Reply

_log = logging.getLogger(__name__)

#: How long a node that has failed is asked last.
_REST_S = 5.0
#: How long a node may take for its first answers once it has taken the connection.
_GREET_S = 1.0
#: How long a look at one node may take: less than a ping of the source. A query that looks first waits for the connection, too.
_LOOK_S = 0.8
#: How long the findings of a look are believed. The watch looks each second.
_BELIEVED_S = 15.0
#: The server's error code for a grant that is missing.
_NOT_GRANTED = 497
#: Columns that are in the server's memory. Others would make it ask its keeper.
_REPLICAS = """,
    (SELECT max(absolute_delay) FROM system.replicas WHERE database = currentDatabase()) AS delay_s,
    (SELECT countIf(is_readonly) FROM system.replicas WHERE database = currentDatabase()) AS cut_off,
    getSetting('skip_unavailable_shards') AS skips_shards"""
_BLIND = "nobody sees whether it lags: the user may not read system.replicas (database, is_readonly, absolute_delay)"


class NodesLink:
    """A link to whichever node is the best one just now."""

    def __init__(self, source: str, config: ClickHouseAddress) -> None:
        self._source = source
        self._nodes = [_Node(source, config, address) for address in config.nodes]
        self._running: dict[str, _Node] = {}

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Reply:
        """See Link. Raises SourceError."""
        untried, failures = list(self._nodes), list[tuple[_Node, SourceError]]()
        while untried:
            node = min(untried, key=_Node.rank)
            try:
                await node.be_known(query_id)
                if node is min(untried, key=_Node.rank):
                    return await self._query_at(node, query_id, text, params)
            except SourceError as failure:
                if not _is_of_node(failure):
                    raise
                failures.append((node, failure))
                untried.remove(node)
        raise self._joined(failures)

    async def _query_at(self, node: _Node, query_id: str, text: str, params: dict[str, Any]) -> Reply:
        self._running[query_id] = node
        try:
            reply = await node.query(query_id, text, params)
        except SourceError:
            del self._running[query_id]
            raise
        # A query that is cancelled stays in the list: its kill comes after this, and goes to its node.
        del self._running[query_id]
        return reply

    async def look(self, query_id: str) -> Presence:
        """See Link. Raises SourceError where no node answers."""
        looks = [node.look(f"{query_id}-{number}", _LOOK_S) for number, node in enumerate(self._nodes)]
        found = await asyncio.gather(*looks, return_exceptions=True)
        for problem in found:
            if isinstance(problem, BaseException) and not isinstance(problem, SourceError):
                raise problem
        failures = [(node, one) for node, one in zip(self._nodes, found, strict=True) if isinstance(one, SourceError)]
        if len(failures) == len(self._nodes):
            raise self._joined(failures)
        for node, failure in failures:
            if failure.timed_out:
                node.give_up()
        return self._presence([node for node, one in zip(self._nodes, found, strict=True) if one is None])

    def _presence(self, answering: Sequence[_Node]) -> Presence:
        best = min(answering, key=_Node.rank)
        problems = "; ".join(problem for node in self._nodes if (problem := node.problem))
        rest = problems or f"{len(answering)} of {len(self._nodes)} nodes answer"
        return Presence(f"ClickHouse {best.version} at {best.name}; {rest}", best.skew_s, problems or None)

    async def kill(self, query_id: str) -> None:
        """See Link. The kill goes to the node that runs the query."""
        node = self._running.pop(query_id, None)
        if node is not None:
            await node.link.kill(query_id)

    async def close(self) -> None:
        """See Link."""
        await asyncio.gather(*(node.link.close() for node in self._nodes))

    async def drop_connections(self) -> None:
        """See Link."""
        await asyncio.gather(*(node.link.drop_connections() for node in self._nodes))

    def _joined(self, failures: Sequence[tuple[_Node, SourceError]]) -> SourceError:
        """One failure for all. Refused credentials decide only where every node has refused them."""
        kinds = [type(failure) for _, failure in failures]
        kind = next((kind for kind in kinds if not kind.denied), kinds[0])
        return kind(self._source, "; ".join(f"{node.name}: {failure.reason}" for node, failure in failures))


class _Node:
    """One node: its connections, and what the last look and the last failure have told."""

    def __init__(self, source: str, config: ClickHouseAddress, address: NodeAddress) -> None:
        self.name = str(address)
        self.link = HttpLink(config, address, config.connect_timeout_s + _GREET_S)
        self.version = ""
        self.skew_s = 0.0
        self._source = source
        self._max_delay_s = config.max_delay_s
        self._first_look_s = config.connect_timeout_s + _GREET_S + _LOOK_S
        self._failure: SourceError | None = None
        self._rests_until_s = 0.0
        self._looked_s = float("-inf")
        self._sees_replicas = True
        #: why rows may be missing in its answers; None where none are
        self._lag: str | None = None
        self._asking = set[asyncio.Task[Reply]]()

    def rank(self) -> tuple[bool, bool]:
        """The smaller, the better: nodes that have failed a moment ago come last, before them those that lag."""
        return time.monotonic() < self._rests_until_s, self._lag is not None

    @property
    def problem(self) -> str | None:
        """What is wrong with it; None where nothing is."""
        if self._failure is not None:
            return f"{self.name} is down: {self._failure.reason}"
        found = self._lag or (None if self._sees_replicas else _BLIND)
        return found and f"{self.name}: {found}"

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Reply:
        """Ask it. Raises SourceError."""
        lag = self._lag
        asking = asyncio.create_task(self.link.query(query_id, text, params))
        self._asking.add(asking)
        try:
            with translate(self._source, ERRORS):
                columns = (await self._unless_given_up(asking)).columns
        except SourceError as failure:
            self._note_failure(failure)
            raise
        finally:
            self._asking.discard(asking)
        self._note_answer()
        lag = self._lag or lag
        return Reply(columns, lag and f"{self.name} {lag}")

    async def _unless_given_up(self, asking: asyncio.Task[Reply]) -> Reply:
        try:
            return await asking
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
            raise SourceTimeout(self._source, "it hangs") from None

    def give_up(self) -> None:
        """End what is asked of it, so that the next node is asked."""
        for asking in self._asking:
            asking.cancel()

    async def be_known(self, query_id: str) -> None:
        """Look at it, unless that was done a moment ago. Raises SourceError."""
        if time.monotonic() - self._looked_s > _BELIEVED_S:
            await self.look(f"{query_id}-look", self._first_look_s)

    async def look(self, query_id: str, limit_s: float) -> None:
        """Learn its version, its clock, and whether its replicas lag. Raises SourceError."""
        before_ms = clock.wall_ms()
        try:
            facts = await self._ask_facts(query_id, limit_s)
        except SourceError as failure:
            self._note_failure(failure)
            raise
        if time.monotonic() >= self._rests_until_s:
            self._note_answer()
        self._looked_s = time.monotonic()
        self.version = facts["version"]
        self.skew_s = clock.skew_s(facts["now_ms"], before_ms)
        self._lag = self._lag_text(facts)

    async def _ask_facts(self, query_id: str, limit_s: float) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(limit_s):
                try:
                    facts = await self._select(query_id, WHAT_ANSWERS + _REPLICAS)
                except SourceDenied as denial:
                    if _code_of(denial) != _NOT_GRANTED:
                        raise
                    self._sees_replicas = False
                    return await self._select(query_id, WHAT_ANSWERS)
        except TimeoutError:
            raise SourceTimeout(self._source, f"no answer within {limit_s:g}s") from None
        self._sees_replicas = True
        return facts

    async def _select(self, query_id: str, columns: str) -> Mapping[str, Any]:
        with translate(self._source, ERRORS):
            reply = await self.link.query(query_id, f"SELECT {columns}", {})
            return {name: cells[0] for name, cells in reply.columns.items()}

    def _lag_text(self, facts: Mapping[str, Any]) -> str | None:
        if facts.get("skips_shards"):
            return "skips shards that do not answer (skip_unavailable_shards of its user must be 0): rows may be missing"
        if facts.get("cut_off"):
            return "is cut off from its keeper and gets no new rows: newer ones may be missing"
        delay_s = facts.get("delay_s") or 0
        if delay_s > self._max_delay_s:
            return f"lags {delay_s}s behind the other replicas (max_delay_s: {self._max_delay_s}): newer rows may be missing"
        return None

    def _note_failure(self, failure: SourceError) -> None:
        """Let it rest after a failure of its own. A garbled answer may come from the question, so it alone is no reason."""
        if not _is_of_node(failure) or isinstance(failure, SourceGarbled):
            return
        if self._failure is None:
            _log.warning("%s: %s is asked last from now on: %s", self._source, self.name, failure.reason)
        self._failure = failure.again()
        self._rests_until_s = time.monotonic() + _REST_S

    def _note_answer(self) -> None:
        if self._failure is not None:
            _log.info("%s: %s answers again", self._source, self.name)
        self._failure, self._rests_until_s = None, 0.0


def _is_of_node(failure: SourceError) -> bool:
    """Whether another node may do better. A query that somebody has killed, or that ran out of its time at the server, must not
    run again elsewhere."""
    code = _code_of(failure)
    if code is None:
        return isinstance(failure, SourceUnavailable | SourceDenied | SourceTimeout | SourceGarbled)
    return isinstance(failure, SourceUnavailable | SourceDenied) and code not in (KILLED, _NOT_GRANTED)


def _code_of(failure: SourceError) -> int | None:
    """The server's error code; None where the failure is not the server's word."""
    code: int | None = getattr(failure.__cause__, "code", None)
    return code
