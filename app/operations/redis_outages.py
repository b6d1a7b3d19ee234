"""Reports Redis outages to the backend: one call when a server fails, one when it is back, with what it lost."""

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
    """The known state of one Redis server. Several sources may share it."""

    name: str
    sources: list[str] = field(default_factory=list)
    memory: Memory | None = None
    seen_ms: int | None = None
    down_since_ms: int | None = None


class RedisOutages:
    """Follows the Redis servers and reports to the backend, once for a server that several sources share."""

    def __init__(self, sync: BackendSync, clock: Clock) -> None:
        self._sync = sync
        self._clock = clock
        self._servers: dict[str, _Server] = {}

    def follow(self, server: str, source: str) -> None:
        """Add a source and its server (as `RedisConnect.server` names it)."""
        self._servers.setdefault(server, _Server(server)).sources.append(source)

    def failed(self, server: str) -> None:
        """Report that the server no longer answers."""
        known = self._servers[server]
        if known.down_since_ms is None:
            # Everything written after the last good ping may be lost.
            known.down_since_ms = known.seen_ms if known.seen_ms is not None else self._clock()
            self._sync.tell(self._sync_call("redis.down", known, None, None))

    def answered(self, server: str, memory: Memory | None) -> None:
        """Report the end of an outage, if there was one: also a restart between two pings, which shows in the run id."""
        known, now_ms = self._servers[server], self._clock()
        restarted = known.memory is not None and memory is not None and memory.run_id != known.memory.run_id
        if known.down_since_ms is None and restarted:
            known.down_since_ms = known.seen_ms
        if known.down_since_ms is not None:
            call = self._sync_call("redis.up", known, now_ms, memory)
            _log.info(
                "redis %s is back, memory lost: %s", server, {True: "yes", False: "no", None: "not known"}[call.memory_lost]
            )
            self._sync.tell(call)
        known.memory, known.seen_ms, known.down_since_ms = memory, now_ms, None

    def _sync_call(
        self, event: Literal["redis.down", "redis.up"], known: _Server, to_ms: int | None, after: Memory | None
    ) -> SyncCall:
        before = known.memory
        return SyncCall(
            event=event,
            server=known.name,
            sources=tuple(sorted(known.sources)),
            from_ms=known.down_since_ms or 0,
            to_ms=to_ms,
            memory_lost=_memory_lost(before, after),
            run_id_before=before.run_id if before else None,
            run_id_after=after.run_id if after else None,
            keys_before=before.keys if before else None,
            keys_after=after.keys if after else None,
        )


def _memory_lost(before: Memory | None, after: Memory | None) -> bool | None:
    """Whether another process (run id) came back with fewer keys. None if that is not known, as where another server took over
    with as many keys: it may lack what was written last."""
    if before is None or after is None:
        return None
    if before.run_id == after.run_id:
        return False
    fewer = after.keys < before.keys
    return None if before.servers != after.servers and not fewer else fewer
