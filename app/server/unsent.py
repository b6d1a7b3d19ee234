"""Answers that are written and not read yet: how much memory they hold, and the end of connections that read nothing.

The event loop keeps an answer until its reader has taken it, as the very object that was written. So many readers of one kept
response hold its bytes once, and it is counted once. When too much waits, `query.admission` lets in no more heavy requests, and
kept responses are refused, too.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from app.server.coalesced_write import LARGE_BYTES
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)

#: how often within the patience a reader is looked at
_LOOKS = 4
#: At so many times the limit the readers that have taken nothing for longest lose their connections.
_HARD_LIMIT = 2


@dataclass(slots=True)
class _Held:
    """An answer that one connection has not read yet."""

    transport: asyncio.Transport
    body: Any
    left_bytes: int
    since_s: float


class UnsentBodies:
    """The answers that wait for their readers, by connection."""

    def __init__(self, most_bytes: int, reader_s: float, telemetry: Telemetry) -> None:
        self._most_bytes = most_bytes
        self._reader_s = reader_s
        self._closed = telemetry.deaf_readers
        self._held: dict[asyncio.Transport, _Held] = {}
        #: by the identity of an answer: for how many connections it waits
        self._readers: dict[int, int] = {}
        self._total_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def total_bytes(self) -> int:
        """The size of all answers that wait; one that waits for several readers counts once."""
        return self._total_bytes

    def has_room_for(self, body: bytes) -> bool:
        """Whether this answer may be written: it is small, there is room, or it waits for another reader already."""
        return len(body) <= LARGE_BYTES or self._total_bytes + len(body) <= self._most_bytes or id(body) in self._readers

    def hold(self, transport: asyncio.Transport, body: Any) -> None:
        """The connection's reader has not taken this answer as fast as it was written."""
        self.release(transport)
        loop = asyncio.get_running_loop()
        self._held[transport] = _Held(transport, body, _left_bytes(transport), loop.time())
        self._readers[id(body)] = self._readers.get(id(body), 0) + 1
        if self._readers[id(body)] == 1:
            self._total_bytes += len(body)
        while self._total_bytes > self._most_bytes * _HARD_LIMIT:
            self._close_deaf(min(self._held.values(), key=lambda held: held.since_s))
        if self._timer is None:
            self._timer = loop.call_later(self._reader_s / _LOOKS, self._look)

    def release(self, transport: asyncio.Transport) -> None:
        """The connection's reader has taken its answer, or is gone."""
        held = self._held.pop(transport, None)
        if held is None:
            return
        self._readers[id(held.body)] -= 1
        if not self._readers[id(held.body)]:
            del self._readers[id(held.body)]
            self._total_bytes -= len(held.body)

    def _look(self) -> None:
        """Close the connections whose readers have taken nothing for too long."""
        loop = asyncio.get_running_loop()
        for held in list(self._held.values()):
            left_bytes = _left_bytes(held.transport)
            if left_bytes != held.left_bytes:
                held.left_bytes, held.since_s = left_bytes, loop.time()
            elif loop.time() - held.since_s >= self._reader_s:
                self._close_deaf(held)
        self._timer = loop.call_later(self._reader_s / _LOOKS, self._look) if self._held else None

    def _close_deaf(self, held: _Held) -> None:
        peer, silent_s = held.transport.get_extra_info("peername"), asyncio.get_running_loop().time() - held.since_s
        _log.warning("the reader %s has taken nothing of its answer for %.1fs; its connection is closed", peer, silent_s)
        self._closed.inc()
        self.release(held.transport)
        held.transport.abort()


def _left_bytes(transport: asyncio.Transport) -> int:
    return transport.get_write_buffer_size()
