"""Accepting from a socket that several processes share, evenly.

Left alone, the worker that wakes first takes all connections that wait, and keeps them: Grafana and HAProxy hold theirs open.
So a worker takes one at a time, and one that holds more than another waits a moment for that one to take it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from app.workers.scoreboard import Scoreboard, surplus_connections

_log = logging.getLogger(__name__)

#: for a worker with fewer connections to take the next one, for each that it has less; it may be busy, so the wait ends
_PATIENCE_S = 0.002
_MOST_PATIENCE_S = 0.01
#: after an error such as "too many open files"
_PAUSE_S = 1.0
_BACKLOG = 2048


class SharedListener:
    """Accepts for one worker. It has the methods of `asyncio.Server` that uvicorn calls at its stop."""

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol], board: Scoreboard, number: int
    ) -> None:
        self._socket = listening
        self._protocol = protocol
        self._board = board
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[object]] = set()
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._loop.add_reader(listening, self._on_readable)

    def close(self) -> None:
        """Accept no more. The socket goes on listening until its last process has closed it."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for: uvicorn ends the connections itself."""

    def _on_readable(self) -> None:
        surplus = surplus_connections(self._board, self._number, time.monotonic())
        if surplus <= 0:
            self._accept_one()
        else:
            self._wait(min(surplus * _PATIENCE_S, _MOST_PATIENCE_S))

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket)
        self._waiting = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._waiting = None
        self._loop.add_reader(self._socket, self._on_readable)
        self._accept_one()

    def _accept_one(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker was faster, or the client has left
            return
        except OSError as problem:
            _log.error("no connection can be accepted, tried again in %gs: %s", _PAUSE_S, problem)
            if self._waiting is None:
                self._wait(_PAUSE_S)
            return
        self._board[self._number].connections += 1
        connection.setblocking(False)
        opening = self._loop.create_task(self._open_connection(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open_connection(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # the client has left already
            connection.close()
