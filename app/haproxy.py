"""The bridge and the HAProxy in front of it: telling it how much traffic to send, and making it connect anew.

The agent answers HAProxy's agent-checks; `reconnect` drives HAProxy's Runtime API, which is as good as root on the balancer and
is therefore spoken to on a unix socket or the loopback only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import cast

from app.errors import BadQuery, SourceError, SourceTimeout, SourceUnavailable

_NAME = "haproxy"
_SAFE = re.compile(r"[A-Za-z0-9_.-]+")
#: how long a poll may go on talking after it was answered
_LINGER_S = 0.02
_LATE_S = 0.05
_VERY_LATE_S = 0.5
#: of the 5 s that a reconnect may take, what is kept for making the server ready again whatever happened before
_WORK_S = 4.0
_REPAIR_S = 1.0
_LONGEST_ANSWER = 300

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Condition:
    """How the bridge is, as far as a load balancer cares. `ready` is False while it is draining."""

    ready: bool
    loop_lag_s: float
    sources_up: int
    sources: int


def agent_words(condition: Condition) -> str:
    """The weight that the bridge deserves, in agent-check words. Never 0: every replica may see the same source down."""
    percent, note = 100, ""
    if condition.sources_up < condition.sources:
        # The note must be a word of its own: HAProxy ignores the whole of `1%#isolated`.
        percent, note = (50, "") if condition.sources_up > 0 else (1, " #isolated")
    if condition.loop_lag_s >= _VERY_LATE_S:
        percent //= 10
    elif condition.loop_lag_s >= _LATE_S:
        percent //= 2
    return f"up {max(percent, 1)}%{note}"


class Agent:
    """Answers HAProxy's agent-checks: one line for each connection, in which the bridge says what it can take.

    Several HAProxy processes may poll one agent, and who polls is not known, so nothing can be said "once". `drain` is said on
    every poll while the bridge is not ready; repeating it changes nothing. `ready` is said for `announce_s` after the start only,
    and again after a drain of our own has ended: it is needed to take back a `drain` that an earlier process of this bridge (or
    this one) has said, but said for ever it would undo the `drain` or `maint` that an operator sets by hand. So `announce_s` must
    be longer than HAProxy's `agent-inter`. `up` is always said: a server that an agent has marked down stays so until it is.
    """

    def __init__(self, condition: Callable[[], Condition], announce_s: float = 5.0) -> None:
        self._condition = condition
        self._announce_s = announce_s
        self._announce_until = 0.0
        self._server: asyncio.Server | None = None
        self._polls: set[asyncio.BaseTransport] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (0 asks for any). Raises OSError where the port is taken."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Poll(self._line, self._polls), host, port)
        self._announce()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening; polls that are not over yet are cut. HAProxy keeps what it heard last."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for poll in list(self._polls):
            poll.close()
        await server.wait_closed()

    def _announce(self) -> None:
        self._announce_until = time.monotonic() + self._announce_s

    def _line(self) -> str:
        condition = self._condition()
        if not condition.ready:
            self._announce_until = float("inf")
            return f"drain {agent_words(condition)}"
        if self._announce_until == float("inf"):
            self._announce()
        return ("ready " if time.monotonic() < self._announce_until else "") + agent_words(condition)


class _Poll(asyncio.Protocol):
    """One agent-check. Answers at once, whether or not HAProxy is configured to send something first."""

    def __init__(self, line: Callable[[], str], polls: set[asyncio.BaseTransport]) -> None:
        self._line = line
        self._polls = polls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # what create_server makes
        self._polls.add(transport)
        # Closing with HAProxy's `agent-send` unread would reset the connection, and our line could be lost with it.
        asyncio.get_running_loop().call_later(_LINGER_S, transport.close)
        # Without the end of line, HAProxy ignores it.
        transport.write(f"{self._line()}\n".encode("ascii"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._polls.discard(self._transport)


async def reconnect(address: str, backend: str, server: str) -> list[str]:
    """Make HAProxy drop its connections to one server and connect anew; returns the commands it took, a line each.

    `address` is HAProxy's Runtime API: the path of a unix socket, or host:port on the loopback. The server ends up ready, also
    where a step fails (which raises SourceUnavailable or SourceTimeout) and where an operator had put it into maint before.
    Requests under way at that server are cut; HAProxy asks them again elsewhere only with `retry-on ... empty-response`.
    """
    api, name = _RuntimeApi(address), f"{_safe('backend', backend)}/{_safe('server', server)}"
    ready = f"set server {name} state ready"
    steps = [f"set server {name} state maint", f"shutdown sessions server {name}", ready]
    try:
        async with _limit(_WORK_S):
            for step in steps:
                await api.say(step)
    except SourceError as problem:
        if await _made_ready(api, ready):
            raise
        raise type(problem)(_NAME, f"{problem.reason}; if it is in maint, say to HAProxy: {ready}") from problem
    except asyncio.CancelledError:  # the caller gives up, but the server must not stay in maint
        await _made_ready(api, ready)
        raise
    return steps


async def _made_ready(api: _RuntimeApi, ready: str) -> bool:
    with suppress(SourceError):
        async with _limit(_REPAIR_S):
            await api.say(ready)
            return True
    return False


@asynccontextmanager
async def _limit(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise SourceTimeout(
            _NAME, f"the Runtime API gave no answer within {seconds:g}s: look at HAProxy's log and load"
        ) from None


def _safe(what: str, name: str) -> str:
    if not _SAFE.fullmatch(name):  # a space, `;` or end of line would be another command
        raise BadQuery(f"{what} {name[:60]!r} is not a name of HAProxy's: use letters, digits, '_', '.' and '-' only")
    return name


class _RuntimeApi:
    """HAProxy's command socket, one connection for each command as it closes after each."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._host, self._port = ("", 0) if "/" in address else _loopback(address)

    async def say(self, command: str) -> None:
        """Raises SourceUnavailable where HAProxy is not there or answers anything: a command that worked has no answer."""
        try:
            answer = await self._ask(command)
        except TimeoutError:  # an OSError too, but the limit's
            raise
        except OSError as problem:
            advice = "is HAProxy running, and is this its 'stats socket' with level admin?"
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            raise SourceUnavailable(_NAME, f"{self._address}: {reason}; {advice}") from problem
        if answer:
            raise SourceUnavailable(_NAME, f"'{command}' was answered with: {answer[:_LONGEST_ANSWER]}")

    async def _ask(self, command: str) -> str:
        reader, writer = await self._connected()
        try:
            writer.write(f"{command}\n".encode("ascii"))
            return " ".join((await reader.read()).decode("utf-8", "replace").split())
        finally:
            writer.close()

    async def _connected(self) -> _Streams:
        if self._host:
            return await asyncio.open_connection(self._host, self._port)
        if sys.platform == "win32":
            raise BadQuery(f"{self._address}: Windows has no unix sockets here; give host:port on the loopback")
        return await asyncio.open_unix_connection(self._address)


def _loopback(address: str) -> tuple[str, int]:
    """The API is open to whoever reaches it, so one on the network is a mistake that we will not make use of."""
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        if ipaddress.ip_address(host).is_loopback and port.isascii() and port.isdigit() and 0 < int(port) < 65_536:
            return host, int(port)
    except ValueError:  # not an address at all
        pass
    raise BadQuery(f"address {address[:100]!r}: give a unix socket's path (with a '/') or host:port with a loopback host")
