"""Redis: live state in hashes, sets, streams and sample zsets. A read takes two pipelines; a large one takes rounds of them.

Each read (`read:` in the catalogue, by default `hashes`) has a file: hashes, sizes, events, timeseries. Here they get their
connections.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from app import clock
from app.errors import TooManyRows
from app.model import Frame, Statement
from app.sources.base import Memory, expect_read, translate
from app.sources.redis.config import RedisConnect, build_link
from app.sources.redis.connections import Reply
from app.sources.redis.events import EventsRead
from app.sources.redis.hashes import HashesRead, HashRead
from app.sources.redis.link import Look, LookedServer, Session
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


class RedisConfig(RedisConnect):
    """How one Redis endpoint is reached."""

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
        #: the memory of all servers at the last ping, where they say so
        self.memory: Memory | None = None
        #: whether every server that has a part of the data answers (see `Look.is_whole`)
        self.is_whole: bool | None = True
        self.skew_s: float | None = None
        self.warning: str | None = None
        self._link = build_link(name, config)

    async def open(self) -> None:
        """Nothing to do: connections are made when first needed."""

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()

    async def fetch(self, statement: Statement) -> Frame:
        """Answer the statement's read. Raises SourceError, TooManyRows where the answer has more than `max_rows` rows."""
        read, config = expect_read(statement, KeyRead), self._config
        session = Session(self.name, self._link if statement.now_ms else self._link.for_past(statement.range.to_ms))
        with translate(self.name, {}):
            frame = await read.answer(ReadContext(statement, session, config.prefix, config.max_members, config.max_rows))
        remarks = session.conclude()
        if len(frame) > config.max_rows:
            raise TooManyRows(self.name, f"{len(frame)} rows; at most {config.max_rows} are allowed (max_rows)")
        return replace(frame.remark(*remarks.notices), partial=True) if remarks.partial else frame

    async def reconnect(self) -> None:
        """Close the idle connections; the next reads make new ones."""
        await self._link.renew()

    async def ping(self) -> str:
        """`Redis` and its version, where we may read it, and what stands there; notes the servers' memory. Raises SourceError,
        also for a replica that has lost its master."""
        before_ms = clock.wall_ms()
        look = await self._link.look()
        with expect_reply(self.name, "INFO and TIME"):
            return self._note_servers(look, before_ms)

    def _note_servers(self, look: Look, before_ms: int) -> str:
        skews = [clock.skew_s(_milliseconds(server.now), before_ms) for server in look.servers if server.now]
        self.skew_s = max(skews, key=abs, default=None)
        warnings = [look.warning, *(_memory_warning(server, len(look.servers) > 1) for server in look.servers)]
        self.warning = "; ".join(filter(None, warnings)) or None
        self.is_whole = look.is_whole
        if self.is_whole and all("run_id" in server.facts for server in look.servers):
            self.memory = _memory_of(look, self._config.db)
        versions = dict.fromkeys(server.facts.get("redis_version", "(version not told)") for server in look.servers)
        return ", ".join(filter(None, [*map(_name_of, versions), look.shape]))

    @property
    def server(self) -> str:
        """What is reached, the same for all sources that reach the same (see `RedisConnect.server`)."""
        return self._config.server


def _milliseconds(now: Reply) -> float:
    """The reply to TIME as epoch ms."""
    return int(now[0]) * 1000 + int(now[1]) / 1000


def _name_of(version: str) -> str:
    """The server's name, with a word where it is too old: streams came with 5.0."""
    major = version.partition(".")[0]
    too_old = major.isdigit() and int(major) < _OLDEST
    return f"Redis {version}" + (f", too old: it has no streams; {_OLDEST}.0 or newer is needed" if too_old else "")


def _memory_warning(server: LookedServer, is_named: bool) -> str | None:
    used, most = int(server.facts.get("used_memory", 0)), int(server.facts.get("maxmemory", 0))
    if not most or used < _FULL * most:
        return None
    where = f"node {server.address}: " if is_named else ""
    return f"{where}{used / most:.0%} of maxmemory is used: writers will be refused, or keys evicted"


def _memory_of(look: Look, db: int) -> Memory:
    """The memory of all servers as one."""
    return Memory(
        run_id="+".join(server.facts["run_id"] for server in look.servers),
        keys=sum(_key_count(server.facts.get(f"db{db}", "")) for server in look.servers),
        servers=tuple(server.address for server in look.servers),
    )


def _key_count(keyspace: str) -> int:
    """The count in `keys=12,expires=0,...`; a database without keys has no such line."""
    found = dict(pair.split("=", 1) for pair in keyspace.split(",") if "=" in pair)
    return int(found.get("keys", 0))
