"""The second tier of the cache: a Redis that all replicas use, for cached responses and for leases on fetching them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from pydantic import Field, SecretStr

from app.cooperative import Background
from app.documents.schema import Strict
from app.errors import SourceError
from app.policies.cache.replicas import Lookup
from app.sources.redis.connections import Command, RedisConnections, Reply

_log = logging.getLogger(__name__)

#: KEYS: answer, lease. ARGV: fresh after (ms), lease (ms). -> {answer or false, token or 0}.
#: The token is the server's time in microseconds. It grows from lease to lease, even over a restart that loses all data.
#: A key that is no hash, or has no number where one belongs, is not ours: it counts as missing, and the next answer replaces it.
_FIND = """
local packed, asked = redis.pcall('HGET', KEYS[1], 'v'), redis.pcall('HGET', KEYS[1], 'a')
if type(packed) == 'table' then packed, asked = false, false end
asked = tonumber(asked or '') or -1
if asked > tonumber(ARGV[1]) then return {packed, 0} end
local now = redis.call('TIME')
local token = string.format('%.0f', now[1] * 1000000 + now[2])
if redis.call('SET', KEYS[2], token, 'NX', 'PX', ARGV[2]) then return {packed, tonumber(token)} end
return {packed, 0}
"""
#: KEYS: answer, lease. ARGV: token, bytes, asked (ms), keep (ms).
_PUT = """
local last = redis.pcall('HGET', KEYS[1], 't')
if type(last) == 'table' then
  redis.call('DEL', KEYS[1])
  last = false
end
if (tonumber(last or '') or 0) <= tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 't', ARGV[1], 'v', ARGV[2], 'a', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
"""
#: KEYS: lease. ARGV: token.
_GIVE_UP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class SharedCacheSettings(Strict):
    """The Redis that the replicas share; off without a host."""

    host: str | None = Field(None, description="a Redis of its own; replicas share no answers without it")
    port: int = Field(6379, ge=1, le=65535, description="its port")
    db: int = Field(0, ge=0, description="its database number")
    username: str | None = Field(None, description="its user")
    password: SecretStr | None = Field(None, description="the user's password")
    prefix: str = Field("bridge:", description="goes before every key")
    limit_s: float = Field(0.1, gt=0, le=2, description="time limit of one call; after a slower one the replica goes on alone")
    probe_s: float = Field(5.0, gt=0, le=60, description="time between two probes until the shared cache is used again")


class RedisSharedCache:
    """A shared cache (the protocol is in `policies.cache.replicas`) in Redis.

    After its first failure no request waits for it, until a probe gets a reply.
    """

    def __init__(self, settings: SharedCacheSettings) -> None:
        self._settings = settings
        address = {"host": settings.host, "port": settings.port, "db": settings.db, "username": settings.username}
        if settings.password:
            address["password"] = settings.password.get_secret_value()
        self._connections = RedisConnections(
            "tier", address, tls=False, size=8, connect_s=settings.limit_s, reply_s=settings.limit_s
        )
        self._background = Background()
        #: true from the start: the first request finds out
        self.usable = True

    async def close(self) -> None:
        """Stop probing and close the connections."""
        await self._background.close()
        await self._connections.close()

    async def find(self, name: str, fresh_after_ms: int, lease_ms: int) -> Lookup:
        """Look up an answer; take the lease if it is missing or older than that."""
        reply = await self._send(("EVAL", _FIND, 2, *self._key_names(name), fresh_after_ms, lease_ms))
        return Lookup(reply[0], int(reply[1])) if reply is not None else Lookup(None, 0)

    async def put(self, name: str, token: int, packed: bytes, asked_ms: int, keep_ms: int) -> None:
        """Store an answer and release the lease. A newer lease holder's answer is not overwritten."""
        await self._send(("EVAL", _PUT, 2, *self._key_names(name), token, packed, asked_ms, keep_ms))

    async def give_up(self, name: str, token: int) -> None:
        """Release the lease without an answer."""
        await self._send(("EVAL", _GIVE_UP, 1, self._key_names(name)[1], token))

    def _key_names(self, name: str) -> tuple[str, str]:
        # The braces keep both keys on one node of a cluster.
        prefix = self._settings.prefix
        return f"{prefix}{{{name}}}:answer", f"{prefix}{{{name}}}:lease"

    async def _send(self, command: Command) -> Reply:
        """The reply; None if there is none in time, or if Redis is known to fail."""
        if not self.usable:
            return None
        try:
            return (await self._connections.ask([command]))[0]
        except SourceError as failure:
            self._stop_using(failure)
            return None

    def _stop_using(self, failure: SourceError) -> None:
        if self.usable:
            self.usable = False
            _log.warning("replicas share no answers, each asks alone: %s", failure)
            self._background.start(self._probe_until_usable())

    async def _probe_until_usable(self) -> None:
        while not self.usable:
            await asyncio.sleep(self._settings.probe_s)
            with suppress(SourceError):
                await self._connections.ask([("PING",)])
                self.usable = True
        _log.info("replicas share answers again")
