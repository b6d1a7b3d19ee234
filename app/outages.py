"""Redis outages as the backend is told of them: one call when a server fails, one when it is back, with what it lost."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

from app.model import Clock
from app.sources.base import Memory
from app.sync import BackendSync, SyncCall

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Server:
    """What is known of one Redis server: it may be several sources at once."""

    name: str
    sources: list[str] = field(default_factory=list)
    memory: Memory | None = None
    seen_ms: int | None = None
    down_since_ms: int | None = None


class Outages:
    """Follows the Redis servers and tells the backend. A server that several sources name is told of once."""

    def __init__(self, sync: BackendSync, clock: Clock) -> None:
        self._sync = sync
        self._clock = clock
        self._servers: dict[str, _Server] = {}

    def follow(self, server: str, source: str) -> None:
        """This source is on that server (host:port)."""
        self._servers.setdefault(server, _Server(server)).sources.append(source)

    def failed(self, server: str) -> None:
        """The server answers no more."""
        known = self._servers[server]
        if known.down_since_ms is None:
            # It was last seen well then; what was written after that may be lost with it.
            known.down_since_ms = known.seen_ms if known.seen_ms is not None else self._clock()
            self._sync.tell(self._call("redis.down", known, None, None))

    def answered(self, server: str, memory: Memory | None) -> None:
        """The server answers, and this is what it has in memory, where it tells: ends an outage, also one that nobody met."""
        known, now_ms = self._servers[server], self._clock()
        restarted = known.memory is not None and memory is not None and memory.run_id != known.memory.run_id
        if known.down_since_ms is None and restarted:
            known.down_since_ms = known.seen_ms
        if known.down_since_ms is not None:
            call = self._call("redis.up", known, now_ms, memory)
            _log.info(
                "redis %s is back, memory lost: %s", server, {True: "yes", False: "no", None: "not known"}[call.memory_lost]
            )
            self._sync.tell(call)
        known.memory, known.seen_ms, known.down_since_ms = memory, now_ms, None

    def _call(
        self, event: Literal["redis.down", "redis.up"], known: _Server, to_ms: int | None, after: Memory | None
    ) -> SyncCall:
        before = known.memory
        return SyncCall(
            event=event,
            server=known.name,
            sources=tuple(sorted(known.sources)),
            from_ms=known.down_since_ms or 0,
            to_ms=to_ms,
            memory_lost=_lost(before, after),
            run_id_before=before.run_id if before else None,
            run_id_after=after.run_id if after else None,
            keys_before=before.keys if before else None,
            keys_after=after.keys if after else None,
        )


def _lost(before: Memory | None, after: Memory | None) -> bool | None:
    """Whether a server came back with less than it had: another process (run id) with fewer keys. None when that is not known."""
    if before is None or after is None:
        return None
    return before.run_id != after.run_id and after.keys < before.keys
