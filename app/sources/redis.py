"""Redis: live state in hashes, sets, streams and sample zsets. One read is at most two pipelines, whatever it reads.

The reads (`read:` in the catalogue, `hashes` where it is left out) have a file each: redis_hashes, redis_sizes, redis_events,
redis_timeseries. This file is where they meet the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, SecretStr, Tag

from app.errors import SourceOverloaded, SourceUnavailable
from app.model import Frame, Statement
from app.sources import base
from app.sources.base import Memory, SourceConfig
from app.sources.redis_events import EventsRead
from app.sources.redis_hashes import HashesRead, HashRead
from app.sources.redis_reads import Asking, KeyRead
from app.sources.redis_sizes import SizeRead, StreamRead
from app.sources.redis_timeseries import TimeSeriesRead
from app.sources.redis_wire import Wire

#: of maxmemory
_FULL = 0.9

__all__ = ["RedisConfig", "RedisRead", "RedisSource"]


def read(raw: Any) -> Any:
    """Which kind of read it is (the name stands in pydantic's message for one that there is not)."""
    return raw.get("read", "hashes") if isinstance(raw, dict) else getattr(raw, "read", None)


#: How the catalogue may read from Redis, told apart by `read`: hashes (the default), hash, size, stream, events, timeseries.
RedisRead = Annotated[
    Annotated[HashesRead, Tag("hashes")]
    | Annotated[HashRead, Tag("hash")]
    | Annotated[SizeRead, Tag("size")]
    | Annotated[StreamRead, Tag("stream")]
    | Annotated[EventsRead, Tag("events")]
    | Annotated[TimeSeriesRead, Tag("timeseries")],
    Discriminator(read),
]


class RedisConfig(SourceConfig):
    """Where one Redis endpoint is. Several sources may name the same server."""

    kind: Literal["redis"] = "redis"
    host: str = "127.0.0.1"
    port: int = Field(6379, ge=1, le=65535)
    db: int = Field(0, ge=0)
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    tls_ca_file: str | None = Field(None, description="PEM file of the authorities to trust; the system's where left out")
    prefix: str = Field("", description="goes before every key of the catalogue")
    reply_timeout_s: float = Field(2.0, gt=0, le=30, description="until all replies of one pipeline are in")
    max_members: int = Field(20_000, ge=1, le=1_000_000, description="ids that one index may bring")

    def build(self, name: str) -> RedisSource:
        """The source of that name."""
        return RedisSource(name, self)


class RedisSource:
    """One Redis endpoint as a source (see `sources.base.Source`).

    A cancelled fetch closes its connection, so nobody can read the reply that is still to come.
    """

    def __init__(self, name: str, config: RedisConfig) -> None:
        self.name = name
        self._config = config
        #: what the server had in memory at the last ping, where it tells
        self.memory: Memory | None = None
        self.skew_s: float | None = None
        self.warning: str | None = None
        self._wire = Wire(
            name,
            _address(config),
            tls=config.tls,
            size=config.pool_size,
            connect_s=config.connect_timeout_s,
            reply_s=config.reply_timeout_s,
        )

    async def open(self) -> None:
        """Nothing to do: connections are made when first needed."""

    async def close(self) -> None:
        """Close every connection."""
        await self._wire.close()

    async def fetch(self, statement: Statement) -> Frame:
        """Answer the statement's read. Raises SourceError, SourceOverloaded where the answer has more than `max_rows` rows."""
        asked: KeyRead = statement.read
        config = self._config
        frame = await asked.answer(Asking(statement, self._wire, config.prefix, config.max_members, config.max_rows))
        if len(frame) > config.max_rows:
            raise SourceOverloaded(self.name, f"{len(frame)} rows; at most {config.max_rows} are allowed (max_rows)")
        return frame

    async def reconnect(self) -> None:
        """Close the idle connections; askings make new ones."""
        await self._wire.renew()

    async def ping(self) -> str:
        """`Redis` and its version, where it tells that to us; notes the server's memory. Raises SourceError, also for a replica
        that goes on serving what its master had."""
        before_ms = base.wall_ms()
        # MISCONF: it cannot save to its disk and refuses writers, and PING with them; readers are served.
        missing = ("unknown command", "no permissions", "MISCONF")
        _, now, info = await self._wire.ask([("PING",), ("TIME",), ("INFO",)], missing=missing)
        facts = _facts(info)
        if facts.get("role") == "slave" and facts.get("master_link_status") == "down":
            raise SourceUnavailable(self.name, "is a replica that has lost its master: what it has is old")
        self.skew_s = base.skew_s(int(now[0]) * 1000 + int(now[1]) / 1000, before_ms) if now else None
        self.warning = _memory_warning(facts)
        if "run_id" in facts:
            self.memory = Memory(facts["run_id"], _keys(facts.get(f"db{self._config.db}", "")))
        return f"Redis {facts.get('redis_version', '(version not told)')}"

    @property
    def server(self) -> str:
        """host:port, the same for all sources that are one server."""
        return f"{self._config.host}:{self._config.port}"


def _facts(info: bytes | None) -> dict[str, str]:
    """INFO's lines; none where it is not allowed."""
    return dict(line.split(":", 1) for line in (info or b"").decode().splitlines() if ":" in line)


def _memory_warning(facts: Mapping[str, str]) -> str | None:
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if not most or used < _FULL * most:
        return None
    return f"{used / most:.0%} of maxmemory is used: writers will be refused, or keys evicted"


def _keys(keyspace: str) -> int:
    """From `keys=12,expires=0,...`; a database without keys has no such line."""
    found = dict(pair.split("=", 1) for pair in keyspace.split(",") if "=" in pair)
    return int(found.get("keys", 0))


def _address(config: RedisConfig) -> dict[str, Any]:
    """The configuration in redis-py's words."""
    address: dict[str, Any] = {"host": config.host, "port": config.port, "db": config.db, "username": config.username}
    if config.password:
        address["password"] = config.password.get_secret_value()
    if config.tls:
        address["ssl_ca_certs"] = config.tls_ca_file
    return address
