"""The connections to one Redis: a bounded pool with one pipeline at a time on each. A connection with an outstanding reply is
never used again.

All commands of one turn of the event loop leave as one pipeline, from all targets of all panels, each command once.

redis-py's own pools and pipelines are not used, for two reasons found in 8.1. A waiter of `BlockingConnectionPool` that is
cancelled just after it was notified loses the wake-up (Python 3.11's Condition), and an awaited release can itself be cancelled
half way; here a connection is returned by a call that cannot be interrupted. And an error inside its pipelines quotes the command
with its arguments, which must not reach a panel.
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

#: One command: its name and arguments. Values are arguments of their own, so no value can be read as a command.
Command = tuple[str | bytes | int, ...]

#: The reply to a command: bytes, int, None, or a list of these.
Reply = Any

_REFUSALS: Mapping[str, type[SourceError]] = {"BUSY": SourceUnavailable, "DENIED": SourceDenied}


def _refusal_class(problem: BaseException) -> type[SourceError]:
    """The failure of an error reply without a class of its own in redis-py: its first word decides."""
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
    fault.ResponseError: _refusal_class,
    hiredis.ProtocolError: SourceGarbled,
}


class _Pipeline:
    """Commands that leave together, each once, and how many wait for the replies. When the last leaves it is cancelled."""

    def __init__(self) -> None:
        self.commands: dict[bytes, int] = {}
        self.task: asyncio.Task[list[Reply]] | None = None
        self.given_up = False
        self._waiting = 0

    def index_of(self, command: bytes) -> int:
        """The index of the command's reply."""
        return self.commands.setdefault(command, len(self.commands))

    async def replies(self) -> list[Reply]:
        """The replies to all commands. Raises the failure of the pipeline as a whole."""
        assert self.task is not None  # noqa: S101  set before the pipeline has callers
        self._waiting += 1
        try:
            await asyncio.wait((self.task,))
            return self.task.result()
        finally:
            self._waiting -= 1
            if not self._waiting and not self.task.done():
                self.given_up = self.task.cancel()


class RedisConnections:
    """At most `size` connections to one server. A connection is made when first needed, and kept.

    `address` has redis-py's keywords (host, port, db, username, password, ssl_...). `connect_s` limits the time to connect and
    the wait for a free connection, `reply_s` the time until all replies of one pipeline have arrived.
    """

    def __init__(self, name: str, address: Mapping[str, Any], *, tls: bool, size: int, connect_s: float, reply_s: float) -> None:
        self._name = name
        self._connect_s = connect_s
        self._reply_s = reply_s
        self._all = tuple(_new_connection(address, tls, connect_s) for _ in range(size))
        # last in, first out: so no more connections are opened than were needed at the same time
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for connection in self._all:
            self._free.put_nowait(connection)
        self._closed = False
        #: the pipeline that leaves at the loop's next turn
        self._next: _Pipeline | None = None

    async def ask(self, commands: Sequence[Command], missing: tuple[str, ...] = ()) -> list[Reply]:
        """The replies to the commands, which leave in one pipeline; [] for none. Raises SourceError for the first error reply.

        An error reply with one of the `missing` texts is None instead. When all callers of a pipeline are cancelled its
        connection is closed: the server sees that, and no later caller can read the outstanding replies.
        """
        return accept_replies(self._name, await self.raw_replies(commands), missing)

    async def raw_replies(self, commands: Sequence[Command]) -> list[Reply]:
        """As `ask`, but error replies are exceptions of redis-py among the replies. Raises SourceError where there are none."""
        if not commands:
            return []
        pipeline = self._next_pipeline()
        places = [pipeline.index_of(_pack_command(command)) for command in commands]
        with translate(self._name, ERRORS):
            found = await pipeline.replies()
        return [found[place] for place in places]

    async def raw_replies_in_order(self, commands: Sequence[Command]) -> list[Reply]:
        """As `raw_replies`, but on a connection of their own and every one sent, however often: for commands that change what
        the next one means."""
        with translate(self._name, ERRORS):
            return await self._exchange_on(b"".join(map(_pack_command, commands)), len(commands))

    async def close(self) -> None:
        """Close every connection, including those in use. Callers that wait for one get SourceUnavailable."""
        self._closed = True
        for connection in self._all:
            await connection.disconnect()

    async def renew(self) -> None:
        """Close the idle connections; they are made again when needed."""
        idle = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for connection in idle:
            await connection.disconnect(nowait=True)
            self._free.put_nowait(connection)

    def _next_pipeline(self) -> _Pipeline:
        # Do not join a pipeline that was cancelled because its callers left before it was sent.
        if self._next is None or self._next.given_up:
            self._next = _Pipeline()
            self._next.task = asyncio.create_task(self._send_pipeline(self._next))
            self._next.task.add_done_callback(_mark_seen)
        return self._next

    async def _send_pipeline(self, pipeline: _Pipeline) -> list[Reply]:
        if self._next is pipeline:
            self._next = None
        return await self._exchange_on(b"".join(pipeline.commands), len(pipeline.commands))

    async def _exchange_on(self, packed: bytes, count: int) -> list[Reply]:
        connection = await self._take_connection()
        try:
            await self._make_ready(connection)
            async with _time_limit(self._reply_s, "no answer"):
                return await _exchange_pipeline(connection, packed, count)
        except BaseException:
            # With `nowait` this does not wait, so a second cancellation cannot interrupt it.
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._free.put_nowait(connection)

    async def _take_connection(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_s):
                return await self._free.get()
        except TimeoutError:
            busy = f"all {len(self._all)} connections were in use for {self._connect_s:g}s (pool_size)"
            raise SourceBusy(self._name, busy) from None

    async def _make_ready(self, connection: Connection) -> None:
        if self._closed:
            raise fault.ConnectionError("the connections were closed")
        async with _time_limit(self._connect_s, "no connection"):
            # Data before any command: the server has closed the connection, or these are bytes of another reply.
            if connection.is_connected and (_is_reset(connection) or await connection.can_read()):
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                await connection.connect()  # type: ignore[no-untyped-call]  # not annotated in redis-py 8.1


def accept_replies(source: str, replies: Sequence[Reply], missing: tuple[str, ...] = ()) -> list[Reply]:
    """The replies, with None for an error reply that has one of the `missing` texts. Raises SourceError for the first other."""
    accepted = list(replies)
    with translate(source, ERRORS):
        for place, reply in enumerate(accepted):
            if isinstance(reply, fault.ResponseError):
                if isinstance(reply, fault.AskError):
                    raise SourceUnavailable(source, "is a node of a Redis Cluster and has not all keys; set `cluster: true`")
                if not any(expected in str(reply) for expected in missing):
                    raise _without_arguments(reply)
                accepted[place] = None
    return accepted


@asynccontextmanager
async def _time_limit(limit_s: float, failed: str) -> AsyncIterator[None]:
    """A time limit with a message of its own. A caller's own limit passes through as a cancellation."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise TimeoutError(f"{failed} within {limit_s:g}s") from None


async def _exchange_pipeline(connection: Connection, packed: bytes, count: int) -> list[Reply]:
    """All replies. redis-py's own `read_response` takes several times as long as the parser."""
    await connection.send_packed_command(packed, check_health=False)
    parser: Any = connection._parser  # noqa: SLF001  there is no public name
    replies: list[Reply] = []
    while True:
        try:
            while (reply := parser._reader.gets()) is not NOT_ENOUGH_DATA:  # noqa: SLF001  as above
                if isinstance(reply, fault.ConnectionError):
                    raise reply
                replies.append(reply)
        except (fault.InvalidResponse, hiredis.ProtocolError) as odd:
            raise fault.InvalidResponse("expected replies in Redis' protocol, found something else") from odd
        if len(replies) > count:
            raise fault.InvalidResponse("more replies than commands")
        if len(replies) == count:
            return replies
        await parser.read_from_socket()


def _mark_seen(ended: asyncio.Task[list[Reply]]) -> None:
    """Mark a failure as retrieved: callers get it from the task, and there may be none left."""
    if not ended.cancelled():
        ended.exception()


def _is_reset(connection: Connection) -> bool:
    """Whether it was reset while idle: redis-py's `can_read` sees an end of file, but not a reset."""
    writer = connection._writer  # noqa: SLF001  there is no public name
    return writer is not None and writer.is_closing()


def _pack_command(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of exactly one
    return packed


def _new_connection(address: Mapping[str, Any], tls: bool, connect_s: float) -> Connection:
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


def _without_arguments(refused: fault.ResponseError) -> fault.ResponseError:
    """The refusal of an unknown command without its arguments, which the server quotes."""
    text, quoted, _ = str(refused).partition(", with args beginning with")
    if not quoted:
        return refused
    return fault.ResponseError(f"{text}: this Redis has no such command (a module that is not loaded, or an older version)")
