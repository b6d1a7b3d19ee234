"""Redis: live state in hashes, sets, streams and sample zsets. A read takes two pipelines; a large one takes rounds of them.

Each read (`read:` in the catalogue, by default `hashes`) has a file: hashes, sizes, events, timeseries. Here they get their
connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, SecretStr, Tag

from app import clock
from app.errors import SourceUnavailable, TooManyRows
from app.model import Frame, Statement
from app.sources.base import Memory, SourceConfig, expect_read, translate
from app.sources.redis.connections import RedisConnections, Reply
from app.sources.redis.events import EventsRead
from app.sources.redis.hashes import HashesRead, HashRead
from app.sources.redis.reads import KeyRead, ReadContext, expect_reply
from app.sources.redis.sizes import SizeRead, StreamRead
from app.sources.redis.timeseries import TimeSeriesRead

#: share of maxmemory from which on there is a warning
_FULL = 0.9
#: the first Redis that has the commands of all reads (modules aside)
_OLDEST = 5

__all__ = ["RedisConfig", "RedisRead", "RedisSource"]


def read_kind(raw: Any) -> Any:
    """The kind of read. Its name is in pydantic's message for an unknown kind."""
    return raw.get("read", "hashes") if isinstance(raw, dict) else getattr(raw, "read", None)


#: How the catalogue may read from Redis, told apart by `read`: hashes (the default), hash, size, stream, events, timeseries.
RedisRead = Annotated[
    Annotated[HashesRead, Tag("hashes")]
    | Annotated[HashRead, Tag("hash")]
    | Annotated[SizeRead, Tag("size")]
    | Annotated[StreamRead, Tag("stream")]
    | Annotated[EventsRead, Tag("events")]
    | Annotated[TimeSeriesRead, Tag("timeseries")],
    Discriminator(read_kind),
]


class RedisConfig(SourceConfig):
    """The address of one Redis endpoint. Several sources may use the same server."""

    kind: Literal["redis"] = Field("redis", description="what the store is")
    host: str = Field("127.0.0.1", description="the server's address")
    port: int = Field(6379, ge=1, le=65535, description="the server's port")
    db: int = Field(0, ge=0, description="the database number")
    username: str | None = Field(None, description="the user (ACL)")
    password: SecretStr | None = Field(None, description="the user's password")
    tls: bool = Field(False, description="true: connect with TLS")
    tls_ca_file: str | None = Field(None, description="PEM file of the authorities to trust; left out: the system's")
    prefix: str = Field("", description="goes before every key of the catalogue")
    reply_timeout_s: float = Field(2.0, gt=0, le=30, description="time limit until all replies of one pipeline are in")
    max_members: int = Field(
        20_000, ge=1, le=1_000_000, description="most ids that one index may return; more make the answer partial"
    )

    def build(self, name: str) -> RedisSource:
        """The source of that name."""
        return RedisSource(name, self)


class RedisSource:
    """One Redis endpoint as a source (see `sources.base.Source`).

    A cancelled fetch closes its connection, so no later caller can read its reply.
    """

    def __init__(self, name: str, config: RedisConfig) -> None:
        self.name = name
        self._config = config
        #: the server's memory at the last ping, where it says so
        self.memory: Memory | None = None
        self.skew_s: float | None = None
        self.warning: str | None = None
        self._connections = RedisConnections(
            name,
            _driver_address(config),
            tls=config.tls,
            size=config.pool_size,
            connect_s=config.connect_timeout_s,
            reply_s=config.reply_timeout_s,
        )

    async def open(self) -> None:
        """Nothing to do: connections are made when first needed."""

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()

    async def fetch(self, statement: Statement) -> Frame:
        """Answer the statement's read. Raises SourceError, TooManyRows where the answer has more than `max_rows` rows."""
        read, config = expect_read(statement, KeyRead), self._config
        with translate(self.name, {}):
            frame = await read.answer(
                ReadContext(statement, self._connections, config.prefix, config.max_members, config.max_rows)
            )
        if len(frame) > config.max_rows:
            raise TooManyRows(self.name, f"{len(frame)} rows; at most {config.max_rows} are allowed (max_rows)")
        return frame

    async def reconnect(self) -> None:
        """Close the idle connections; the next reads make new ones."""
        await self._connections.renew()

    async def ping(self) -> str:
        """`Redis` and its version, where we may read it; notes the server's memory. Raises SourceError, also for a replica
        that has lost its master."""
        before_ms = clock.wall_ms()
        # MISCONF: it cannot save to its disk and refuses writes, and PING with them; reads still work.
        missing = ("unknown command", "no permissions", "MISCONF")
        _, now, info = await self._connections.ask([("PING",), ("TIME",), ("INFO",)], missing=missing)
        with expect_reply(self.name, "INFO and TIME"):
            return self._note_server(_info_facts(info), now, before_ms)

    def _note_server(self, facts: Mapping[str, str], now: Reply, before_ms: int) -> str:
        if facts.get("role") == "slave" and facts.get("master_link_status") == "down":
            raise SourceUnavailable(self.name, "is a replica that has lost its master: what it has is old")
        self.skew_s = clock.skew_s(int(now[0]) * 1000 + int(now[1]) / 1000, before_ms) if now else None
        self.warning = _memory_warning(facts)
        if "run_id" in facts:
            self.memory = Memory(facts["run_id"], _key_count(facts.get(f"db{self._config.db}", "")))
        return _name_of(facts.get("redis_version", "(version not told)"))

    @property
    def server(self) -> str:
        """host:port, the same for all sources that are one server."""
        return f"{self._config.host}:{self._config.port}"


def _name_of(version: str) -> str:
    """The server's name, with a word where it is too old: streams came with 5.0."""
    major = version.partition(".")[0]
    too_old = major.isdigit() and int(major) < _OLDEST
    return f"Redis {version}" + (f", too old: it has no streams; {_OLDEST}.0 or newer is needed" if too_old else "")


def _info_facts(info: bytes | None) -> dict[str, str]:
    """INFO's lines; none where the command is not allowed."""
    return dict(line.split(":", 1) for line in (info or b"").decode("utf-8", "replace").splitlines() if ":" in line)


def _memory_warning(facts: Mapping[str, str]) -> str | None:
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if not most or used < _FULL * most:
        return None
    return f"{used / most:.0%} of maxmemory is used: writers will be refused, or keys evicted"


def _key_count(keyspace: str) -> int:
    """The count in `keys=12,expires=0,...`; a database without keys has no such line."""
    found = dict(pair.split("=", 1) for pair in keyspace.split(",") if "=" in pair)
    return int(found.get("keys", 0))


def _driver_address(config: RedisConfig) -> dict[str, Any]:
    """The configuration in redis-py's words."""
    address: dict[str, Any] = {"host": config.host, "port": config.port, "db": config.db, "username": config.username}
    if config.password:
        address["password"] = config.password.get_secret_value()
    if config.tls:
        address["ssl_ca_certs"] = config.tls_ca_file
    return address
