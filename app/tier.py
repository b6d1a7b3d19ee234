"""The second tier of the cache: a Redis that all replicas reach, for shared answers and for leases on asking."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from pydantic import Field, SecretStr

from app.errors import SourceError
from app.policies.shared import Found
from app.sources.base import Strict
from app.sources.redis_wire import Command, Reply, Wire

_log = logging.getLogger(__name__)

#: KEYS: answer, lease. ARGV: fresh after (ms), lease (ms). -> {answer or false, token or 0}.
#: The token is the server's time in microseconds: it grows from lease to lease, also over a restart that loses everything.
_FIND = """
local asked = tonumber(redis.call('HGET', KEYS[1], 'a') or '-1')
local packed = redis.call('HGET', KEYS[1], 'v')
if asked > tonumber(ARGV[1]) then return {packed, 0} end
local now = redis.call('TIME')
local token = string.format('%.0f', now[1] * 1000000 + now[2])
if redis.call('SET', KEYS[2], token, 'NX', 'PX', ARGV[2]) then return {packed, tonumber(token)} end
return {packed, 0}
"""
#: KEYS: answer, lease. ARGV: token, bytes, asked (ms), keep (ms).
_PUT = """
if tonumber(redis.call('HGET', KEYS[1], 't') or '0') <= tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 't', ARGV[1], 'v', ARGV[2], 'a', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
"""
#: KEYS: lease. ARGV: token.
_GIVE_UP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class TierSettings(Strict):
    """Where the replicas share answers; off without a host."""

    host: str | None = None
    port: int = Field(6379, ge=1, le=65535)
    db: int = Field(0, ge=0)
    username: str | None = None
    password: SecretStr | None = None
    prefix: str = "bridge:"
    limit_s: float = Field(0.1, gt=0, le=2, description="after which the tier is left aside")
    probe_s: float = Field(5.0, gt=0, le=60, description="how often a tier that is left aside is tried")


class RedisShelf:
    """`policies.shared.Shelf` on a Redis. Its first failure takes it out of every request's way until a probe gets an answer."""

    def __init__(self, settings: TierSettings) -> None:
        self._settings = settings
        address = {"host": settings.host, "port": settings.port, "db": settings.db, "username": settings.username}
        if settings.password:
            address["password"] = settings.password.get_secret_value()
        self._wire = Wire("tier", address, tls=False, size=8, connect_s=settings.limit_s, reply_s=settings.limit_s)
        self._probing: asyncio.Task[None] | None = None
        #: see Shelf; true from the start: the first asking finds out
        self.usable = True

    async def close(self) -> None:
        """Give the connections back."""
        if self._probing is not None:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing
        await self._wire.close()

    async def find(self, name: str, fresh_after_ms: int, lease_ms: int) -> Found:
        """See Shelf."""
        answer = await self._ask(("EVAL", _FIND, 2, *self._names(name), fresh_after_ms, lease_ms))
        return Found(answer[0], int(answer[1])) if answer is not None else Found(None, 0)

    async def put(self, name: str, token: int, packed: bytes, asked_ms: int, keep_ms: int) -> None:
        """See Shelf."""
        await self._ask(("EVAL", _PUT, 2, *self._names(name), token, packed, asked_ms, keep_ms))

    async def give_up(self, name: str, token: int) -> None:
        """See Shelf."""
        await self._ask(("EVAL", _GIVE_UP, 1, self._names(name)[1], token))

    def _names(self, name: str) -> tuple[str, str]:
        # The braces keep both on one node of a cluster.
        prefix = self._settings.prefix
        return f"{prefix}{{{name}}}:answer", f"{prefix}{{{name}}}:lease"

    async def _ask(self, command: Command) -> Reply:
        """The reply, None when there is none in time."""
        if not self.usable:
            return None
        try:
            return (await self._wire.ask([command]))[0]
        except SourceError as failure:
            self._leave_aside(failure)
            return None

    def _leave_aside(self, failure: SourceError) -> None:
        if self.usable:
            self.usable = False
            _log.warning("replicas share no answers, each asks alone: %s", failure)
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while not self.usable:
            await asyncio.sleep(self._settings.probe_s)
            with suppress(SourceError):
                await self._wire.ask([("PING",)])
                self.usable = True
        _log.info("replicas share answers again")
