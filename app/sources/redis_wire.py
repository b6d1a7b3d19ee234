"""The connections to one Redis: a bounded set, one pipeline at a time on each, and none used again with a reply outstanding.

What is asked in one turn of the event loop, by however many targets of however many panels, leaves as one pipeline, and what
several of them ask is in it once.

redis-py's own pools and pipelines are left aside for two reasons found in 8.1. A waiter of `BlockingConnectionPool` that is
cancelled just after it was notified takes the wake-up with it (Python 3.11's Condition), and a release that is awaited can itself
be cancelled half way; here a connection is given back by a call that cannot be interrupted. And an error inside its pipelines
quotes the command with its arguments, which must not reach a panel.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import hiredis
from redis import exceptions as fault
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
)
from app.sources.base import ErrorTable, translate

#: One command: its name and arguments. Values are arguments of their own, so nothing in them can be taken for a command.
Command = tuple[str | bytes | int, ...]

#: What a command answers: bytes, int, None, or a list of these.
Reply = Any

_REFUSALS: Mapping[str, type[SourceError]] = {"BUSY": SourceUnavailable, "DENIED": SourceDenied}


def _refusal(problem: BaseException) -> type[SourceError]:
    """Replies that redis-py has no class of their own for are told apart by their first word."""
    return _REFUSALS.get(str(problem).partition(" ")[0], SourceRejected)


ERRORS: ErrorTable = {
    OSError: SourceUnavailable,
    TimeoutError: SourceTimeout,
    fault.TimeoutError: SourceTimeout,
    fault.ConnectionError: SourceUnavailable,
    fault.BusyLoadingError: SourceUnavailable,
    fault.ReadOnlyError: SourceUnavailable,
    fault.MasterDownError: SourceUnavailable,
    fault.ClusterError: SourceUnavailable,
    fault.AskError: SourceUnavailable,
    fault.TryAgainError: SourceUnavailable,
    fault.AuthenticationError: SourceDenied,
    fault.AuthorizationError: SourceDenied,
    fault.NoPermissionError: SourceDenied,
    fault.OutOfMemoryError: SourceOverloaded,
    fault.InvalidResponse: SourceGarbled,
    fault.ResponseError: _refusal,
    hiredis.ProtocolError: SourceGarbled,
}


class _Pipeline:
    """Commands that leave together, each once, and how many wait for the replies. When the last of them leaves it is given up."""

    def __init__(self) -> None:
        self.commands: dict[bytes, int] = {}
        self.task: asyncio.Task[list[Reply]] | None = None
        self.given_up = False
        self._waiting = 0

    def place(self, command: bytes) -> int:
        """Where the command's reply will be."""
        return self.commands.setdefault(command, len(self.commands))

    async def replies(self) -> list[Reply]:
        """What all of the commands were answered. Raises what went wrong with them together."""
        assert self.task is not None  # noqa: S101  it was given one before anybody could ask
        self._waiting += 1
        try:
            await asyncio.wait((self.task,))
            return self.task.result()
        finally:
            self._waiting -= 1
            if not self._waiting and not self.task.done():
                self.given_up = self.task.cancel()


class Wire:
    """At most `size` connections to one server. Connections are made when first needed and kept.

    `address` holds redis-py's own words for where and as whom (host, port, db, username, password, ssl_...). `connect_s` bounds a
    connection's making and the wait for a free one, `reply_s` the time until all replies of one pipeline are in.
    """

    def __init__(self, name: str, address: Mapping[str, Any], *, tls: bool, size: int, connect_s: float, reply_s: float) -> None:
        self._name = name
        self._connect_s = connect_s
        self._reply_s = reply_s
        self._all = tuple(_connection(address, tls, connect_s) for _ in range(size))
        # last in, first out: no more connections are opened than were ever needed at once
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for connection in self._all:
            self._free.put_nowait(connection)
        #: the pipeline that leaves at the loop's next turn
        self._next: _Pipeline | None = None

    async def ask(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> list[Reply]:
        """The replies to the commands, which leave in one pipeline; [] for none. Raises SourceError for the first error reply.

        An error reply that has one of the `missing` texts in it is None instead. When all whose commands are in a pipeline are
        cancelled, its connection goes with them: the server sees it closed, and no later caller can read what is still to come.
        """
        if not commands:
            return []
        pipeline = self._pipeline()
        places = [pipeline.place(_packed(command)) for command in commands]
        with translate(self._name, ERRORS):
            found = await pipeline.replies()
            replies = [found[place] for place in places]
            for place, reply in enumerate(replies):
                if isinstance(reply, fault.ResponseError):
                    if not any(expected in str(reply) for expected in missing):
                        raise _told(reply)
                    replies[place] = None
        return replies

    async def close(self) -> None:
        """Close every connection, also those in use."""
        for connection in self._all:
            await connection.disconnect()

    async def renew(self) -> None:
        """Close the connections that nobody is using; they are made anew when needed."""
        idle = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for connection in idle:
            await connection.disconnect(nowait=True)
            self._free.put_nowait(connection)

    def _pipeline(self) -> _Pipeline:
        # One whose askers have all left again already, before it could leave, takes nobody with it.
        if self._next is None or self._next.given_up:
            self._next = _Pipeline()
            self._next.task = asyncio.create_task(self._sent(self._next))
            self._next.task.add_done_callback(_seen)
        return self._next

    async def _sent(self, pipeline: _Pipeline) -> list[Reply]:
        if self._next is pipeline:
            self._next = None
        return await self._borrowed(b"".join(pipeline.commands), len(pipeline.commands))

    async def _borrowed(self, packed: bytes, count: int) -> list[Reply]:
        connection = await self._take()
        try:
            await self._ready(connection)
            async with _within(self._reply_s, "no answer"):
                return await _exchange(connection, packed, count)
        except BaseException:
            # Without `nowait` this would wait, and a second cancellation could end the wait. It does not, so this is certain.
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._free.put_nowait(connection)

    async def _take(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_s):
                return await self._free.get()
        except TimeoutError:
            busy = f"all {len(self._all)} connections were in use for {self._connect_s:g}s (pool_size)"
            raise SourceBusy(self._name, busy) from None

    async def _ready(self, connection: Connection) -> None:
        async with _within(self._connect_s, "no connection"):
            # Something to read before anything was asked: the server's goodbye, or bytes that are not ours.
            if connection.is_connected and (_reset(connection) or await connection.can_read()):
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                await connection.connect()  # type: ignore[no-untyped-call]  # not annotated in redis-py 8.1


@asynccontextmanager
async def _within(limit_s: float, failed: str) -> AsyncIterator[None]:
    """A time limit that says what it ended. A caller's own limit passes through as the cancellation that it is."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise TimeoutError(f"{failed} within {limit_s:g}s") from None


async def _exchange(connection: Connection, packed: bytes, count: int) -> list[Reply]:
    """All replies. redis-py's own `read_response` costs several times what the parser does."""
    await connection.send_packed_command(packed, check_health=False)
    parser: Any = connection._parser  # noqa: SLF001  it has no other name
    replies: list[Reply] = []
    while True:
        while (reply := parser._reader.gets()) is not NOT_ENOUGH_DATA:  # noqa: SLF001  as above
            if isinstance(reply, fault.ConnectionError):
                raise reply
            replies.append(reply)
        if len(replies) > count:
            raise fault.InvalidResponse("more replies than commands")
        if len(replies) == count:
            return replies
        await parser.read_from_socket()


def _seen(ended: asyncio.Task[list[Reply]]) -> None:
    """Whoever waits has its failure; where nobody does any more it is nobody's."""
    if not ended.cancelled():
        ended.exception()


def _reset(connection: Connection) -> bool:
    """Whether it was reset while nobody used it: redis-py's `can_read` sees an end of file, and a reset is none."""
    writer = connection._writer  # noqa: SLF001  it has no other name
    return writer is not None and writer.is_closing()


def _packed(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of exactly one
    return packed


def _connection(address: Mapping[str, Any], tls: bool, connect_s: float) -> Connection:
    # No socket timeout: it would start a timer for each reply, and on Python 3.11 the `wait_for` around its write can swallow a
    # cancellation. One limit around the whole pipeline says the same. No driver info: it costs each new connection two commands.
    kind = SSLConnection if tls else Connection
    return kind(
        **address,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=connect_s,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        driver_info=None,
    )


def _told(refused: fault.ResponseError) -> fault.ResponseError:
    """The refusal without the arguments that the server quotes back for a command it does not know."""
    text, quoted, _ = str(refused).partition(", with args beginning with")
    if not quoted:
        return refused
    return fault.ResponseError(f"{text}: this Redis has no such command (a module that is not loaded, or an older version)")
