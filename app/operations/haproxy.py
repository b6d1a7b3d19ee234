"""The HAProxy in front of the bridge: answering its agent-checks, and making it reconnect.

`reconnect` uses HAProxy's Runtime API. That API is as powerful as root on the balancer, so only a unix socket or the loopback is
accepted.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, cast

from app.errors import BadQuery, SourceError, SourceTimeout, SourceUnavailable

_NAME = "haproxy"
_SAFE = re.compile(r"[A-Za-z0-9_.-]+")
#: how long a poll stays open after its answer
_LINGER_S = 0.02
_LATE_S = 0.05
_VERY_LATE_S = 0.5
#: A reconnect takes at most 5 s. The last second is reserved for making the server ready again.
_WORK_S = 4.0
_REPAIR_S = 1.0
_LONGEST_ANSWER = 300

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Standing(Protocol):
    """What a load balancer needs to know of a bridge."""

    @property
    def ready(self) -> bool:
        """False while it drains."""

    @property
    def percent(self) -> int:
        """Its weight."""

    @property
    def isolated(self) -> bool:
        """Whether none of its sources answers."""


@dataclass(frozen=True)
class Condition:
    """The state of one bridge process for a load balancer. `ready` is False while it drains."""

    ready: bool
    loop_lag_s: float
    sources_up: int
    sources: int

    @property
    def isolated(self) -> bool:
        """Whether it has sources, and none of them answers."""
        return self.sources_up == 0 < self.sources

    @property
    def percent(self) -> int:
        """Less with a source that does not answer, and with a late event loop."""
        percent = 1 if self.isolated else 50 if self.sources_up < self.sources else 100
        if self.loop_lag_s >= _VERY_LATE_S:
            return percent // 10
        return percent // 2 if self.loop_lag_s >= _LATE_S else percent


@dataclass(frozen=True)
class TeamCondition:
    """The state of several workers behind one port. A request may come to any of them, so their mean counts."""

    #: those that serve
    members: Sequence[Condition]
    #: how many there should be
    workers: int
    draining: bool

    @property
    def ready(self) -> bool:
        """Whether anybody serves, and will go on."""
        return bool(self.members) and not self.draining

    @property
    def isolated(self) -> bool:
        """Whether no worker reaches any source."""
        return bool(self.members) and all(member.isolated for member in self.members)

    @property
    def percent(self) -> int:
        """The mean weight; a worker that is missing has none."""
        return sum(max(member.percent, 1) for member in self.members) // self.workers


def agent_words(condition: Standing) -> str:
    """The weight of the bridge, in agent-check words. Never 0: every replica may see the same source down."""
    # The note must be a word of its own: HAProxy ignores the whole of `1%#isolated`.
    return f"up {max(condition.percent, 1)}%{' #isolated' if condition.isolated else ''}"


class Agent:
    """Answers HAProxy's agent-checks: one line with the bridge's state and weight for each connection.

    Several HAProxy processes may poll one agent and cannot be told apart, so no word can be sent "once".
    - `drain` is sent while the bridge is not ready. Repeating it changes nothing.
    - `ready` is sent for `announce_s` after the start and after each drain of our own. It takes back the `drain` of an earlier
      process. Sent for ever, it would undo the `drain` or `maint` that an operator sets by hand. `announce_s` must be longer than
      HAProxy's `agent-inter`.
    - `up` is always sent: a server that an agent has marked down stays down until then.
    """

    def __init__(self, condition: Callable[[], Standing], announce_s: float = 5.0) -> None:
        self._condition = condition
        self._announce_s = announce_s
        self._announce_until = 0.0
        self._server: asyncio.Server | None = None
        self._polls: set[asyncio.BaseTransport] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (0 asks for any). Raises OSError if the port is taken."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Poll(self._agent_line, self._polls), host, port)
        self._announce_ready()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening and cut open polls. HAProxy keeps the last answer."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for poll in list(self._polls):
            poll.close()
        await server.wait_closed()

    def _announce_ready(self) -> None:
        self._announce_until = time.monotonic() + self._announce_s

    def _agent_line(self) -> str:
        condition = self._condition()
        if not condition.ready:
            self._announce_until = float("inf")
            return f"drain {agent_words(condition)}"
        if self._announce_until == float("inf"):
            self._announce_ready()
        return ("ready " if time.monotonic() < self._announce_until else "") + agent_words(condition)


class _Poll(asyncio.Protocol):
    """One agent-check. It answers at once, even if HAProxy is configured to send something first."""

    def __init__(self, line: Callable[[], str], polls: set[asyncio.BaseTransport]) -> None:
        self._line = line
        self._polls = polls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # what create_server makes
        self._polls.add(transport)
        # If we closed before reading HAProxy's `agent-send`, the connection would be reset and our line might be lost.
        asyncio.get_running_loop().call_later(_LINGER_S, transport.close)
        # HAProxy ignores a line without its end.
        transport.write(f"{self._line()}\n".encode("ascii"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._polls.discard(self._transport)


async def reconnect(address: str, backend: str, server: str) -> list[str]:
    """Make HAProxy drop its connections to one server and reconnect; returns the commands that it executed.

    `address` is HAProxy's Runtime API: the path of a unix socket, or host:port on the loopback. The server ends up ready, even if
    a step fails (SourceUnavailable or SourceTimeout is raised) or an operator had put it into maint before. Requests under way at
    that server are cut; HAProxy retries them elsewhere only with `retry-on ... empty-response`.
    """
    api, name = _RuntimeApi(address), f"{_checked_name('backend', backend)}/{_checked_name('server', server)}"
    ready = f"set server {name} state ready"
    steps = [f"set server {name} state maint", f"shutdown sessions server {name}", ready]
    try:
        async with _time_limit(_WORK_S):
            for step in steps:
                await api.execute(step)
    except SourceError as problem:
        if await _make_ready(api, ready):
            raise
        raise type(problem)(_NAME, f"{problem.reason}; if it is in maint, say to HAProxy: {ready}") from problem
    except asyncio.CancelledError:  # the caller gives up; the server must not stay in maint
        await _make_ready(api, ready)
        raise
    return steps


async def _make_ready(api: _RuntimeApi, ready: str) -> bool:
    with suppress(SourceError):
        async with _time_limit(_REPAIR_S):
            await api.execute(ready)
            return True
    return False


@asynccontextmanager
async def _time_limit(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise SourceTimeout(
            _NAME, f"the Runtime API gave no answer within {seconds:g}s: look at HAProxy's log and load"
        ) from None


def _checked_name(what: str, name: str) -> str:
    if not _SAFE.fullmatch(name):  # a space, `;` or line end would start another command
        raise BadQuery(f"{what} {name[:60]!r} is not a name of HAProxy's: use letters, digits, '_', '.' and '-' only")
    return name


class _RuntimeApi:
    """HAProxy's command socket. HAProxy closes it after each command, so each command gets its own connection."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._host, self._port = ("", 0) if "/" in address else _loopback_address(address)

    async def execute(self, command: str) -> None:
        """Raises SourceUnavailable if HAProxy is not there or answers at all: a command that worked has an empty answer."""
        try:
            answer = await self._answer_to(command)
        except TimeoutError:  # it is an OSError too, but belongs to the time limit
            raise
        except OSError as problem:
            advice = "is HAProxy running, and is this its 'stats socket' with level admin?"
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            raise SourceUnavailable(_NAME, f"{self._address}: {reason}; {advice}") from problem
        if answer:
            raise SourceUnavailable(_NAME, f"'{command}' was answered with: {answer[:_LONGEST_ANSWER]}")

    async def _answer_to(self, command: str) -> str:
        reader, writer = await self._open_connection()
        try:
            writer.write(f"{command}\n".encode("ascii"))
            return " ".join((await reader.read()).decode("utf-8", "replace").split())
        finally:
            writer.close()

    async def _open_connection(self) -> _Streams:
        if self._host:
            return await asyncio.open_connection(self._host, self._port)
        if sys.platform == "win32":
            raise BadQuery(f"{self._address}: Windows has no unix sockets here; give host:port on the loopback")
        return await asyncio.open_unix_connection(self._address)


def _loopback_address(address: str) -> tuple[str, int]:
    """Host and port. The API has no password, so an address on the network is refused as a mistake."""
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        if ipaddress.ip_address(host).is_loopback and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
            return host, int(port)
    except ValueError:  # no IP address
        pass
    raise BadQuery(f"address {address[:100]!r}: give a unix socket's path (with a '/') or host:port with a loopback host")
