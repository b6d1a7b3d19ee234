"""Servers older than those that the commands were made for, and answers that no Redis gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.errors import SourceCrashed, SourceGarbled, SourceRejected
from app.model import Frame
from app.sources.redis.source import RedisConfig, RedisSource
from tests.frames import shown
from tests.servers.redis import RedisServer
from tests.sources.redis.asking import OPEN, STEP, T0, Asker, statement, where
from tests.sources.redis.listeners import listener, resp, saying

EQUITY = {"index": "ids", "hash": "state:{id}", "field": "equity", "labels": {"account": "$id"}}
ZEROS = {"index": "ids", "hash": "trade:{id}", "value": "count", "zeros": {"index": "all", "labels": {"account": "$id"}}}
COUNT = {"read": "events", "stream": "results", "value": "count"}
BACKLOG = {"read": "stream", "stream": "results", "group": "sync", "stat": "backlog"}


@pytest.fixture(scope="module")
def before_6_2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), "", "--rename-command", "ZUNION", "") as server:
        yield server


@pytest.fixture
async def old(before_6_2: RedisServer) -> AsyncIterator[Asker]:
    before_6_2.client.flushall()
    source = RedisConfig(port=before_6_2.port, max_members=3).build("rts")
    yield Asker(source)
    await source.close()


@pytest.mark.parametrize("kind", ["set", "zset"])
async def test_an_index_of_either_kind_is_read_without_a_union(old: Asker, before_6_2: RedisServer, kind: str) -> None:
    for place, name in enumerate(("A2", "A1", "A3")):
        before_6_2.client.hset(f"state:{name}", mapping={"equity": place})
        before_6_2.client.sadd("ids", name) if kind == "set" else before_6_2.client.zadd("ids", {name: place})
    assert await old(EQUITY, by="account") == {"account=A1": {OPEN: 1}, "account=A2": {OPEN: 0}, "account=A3": {OPEN: 2}}
    assert await old(EQUITY, filters=(where("account", "=", "A3"),)) == {"": {OPEN: 2}}


async def test_an_index_over_the_limit_is_cut_and_said_without_a_union_too(old: Asker, before_6_2: RedisServer) -> None:
    for place in range(5):
        before_6_2.client.hset(f"state:A{place}", mapping={"equity": place})
        before_6_2.client.zadd("ids", {f"A{place}": place})
    assert sorted(await old(EQUITY, by="account")) == ["account=A2", "account=A3", "account=A4"]
    assert old.frame.partial


async def test_zeros_and_indexes_that_are_not_there_are_read_without_a_union(old: Asker, before_6_2: RedisServer) -> None:
    before_6_2.client.sadd("all", "A1")
    assert await old(ZEROS, by="account") == {"account=A1": {OPEN: 0}}


async def test_an_index_that_is_none_is_refused_without_a_union_too(old: Asker, before_6_2: RedisServer) -> None:
    before_6_2.client.set("ids", "text")
    with pytest.raises(SourceRejected, match="rts: WRONGTYPE"):
        await old(EQUITY)


def info_of(version: str) -> bytes:
    return f"# Server\r\nredis_version:{version}\r\nrun_id:x\r\nused_memory:1\r\n".encode()


@asynccontextmanager
async def replying(replies: Mapping[str, Any]) -> AsyncIterator[RedisSource]:
    """A server that has one reply for each command."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = [(await reader.readline(), (await reader.readline()).strip())[1] for _ in range(int(line[1:]))]
            found = replies[words[0].decode().upper()]
            writer.write(found if isinstance(found, bytes) and found[:1] in b"+-$" else resp(found))

    async with listener(talk) as port:
        source = RedisConfig(port=port).build("rts")
        try:
            yield source
        finally:
            await source.close()


async def answered(entry: dict[str, Any], replies: Mapping[str, Any]) -> Frame:
    async with replying(replies) as source:
        return await source.fetch(statement(entry))


FIRST = f"{T0 + STEP + 5}-0".encode()
ENTRIES = [[f"{OPEN + 1}-0".encode(), [b"k", b"v"]], [FIRST, [b"k", b"v"]]]
#: What XINFO STREAM says before 7.0: how many were added is not among it.
BEFORE_7 = [b"length", 2, b"radix-tree-keys", 1, b"last-generated-id", ENTRIES[0][0], b"groups", 0, b"first-entry", ENTRIES[1]]


async def test_where_a_redis_does_not_tell_whether_it_trimmed_the_stream_is_whole_from_its_first_entry_on() -> None:
    frame = await answered(COUNT, {"XREVRANGE": ENTRIES, "XINFO": [*BEFORE_7, b"last-entry", ENTRIES[0]]})
    # What comes before the first entry, and the rest of that entry's millisecond, may have been taken away.
    assert (shown(frame), frame.covers_from_ms) == ({"": {OPEN - 2 * STEP: 1, OPEN: 1}}, int(FIRST.partition(b"-")[0]))


async def test_a_stream_that_never_had_an_entry_is_whole_on_an_old_redis_too() -> None:
    empty = [b"length", 0, b"last-generated-id", b"0-0", b"first-entry", []]
    frame = await answered(COUNT, {"XREVRANGE": [], "XINFO": empty})
    assert (shown(frame), frame.notices) == ({}, ())


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        ("7.0.15", "Redis 7.0.15"),
        ("6.0.16", "Redis 6.0.16"),
        ("5.0.14.1", "Redis 5.0.14.1"),
        ("3.0.504", "Redis 3.0.504, too old: it has no streams; 5.0 or newer is needed"),
        ("unstable", "Redis unstable"),
    ],
)
async def test_a_ping_says_the_version_and_whether_it_is_too_old(version: str, answer: str) -> None:
    async with replying({"PING": b"+PONG\r\n", "TIME": [b"1", b"2"], "INFO": info_of(version)}) as source:
        assert await source.ping() == answer


ODD = [
    ("hashes", EQUITY, {"ZUNION": [b"A1"], "HMGET": 7}),
    ("hashes, too few fields", {**EQUITY, "as_of": {"field": "seen"}}, {"ZUNION": [b"A1"], "HMGET": [b"1"]}),
    ("an index that is a number", EQUITY, {"ZUNION": 7}),
    ("scores that are none", {**EQUITY, "scored": "since"}, {"ZREVRANGEBYSCORE": [b"A1", b"soon"]}),
    ("entries without fields", COUNT, {"XREVRANGE": [[FIRST]], "XINFO": BEFORE_7}),
    ("entries with an odd id", COUNT, {"XREVRANGE": [[b"x-0", [b"k", b"v"]]], "XINFO": BEFORE_7}),
    ("a field without a value", COUNT, {"XREVRANGE": [[FIRST, [b"k"]]], "XINFO": BEFORE_7}),
    ("a stream without a beginning", COUNT, {"XREVRANGE": ENTRIES, "XINFO": [b"length", 2]}),
    ("a stream that is text", COUNT, {"XREVRANGE": b"x", "XINFO": b"x"}),
    ("a group without a name", BACKLOG, {"XINFO": [[b"pending", 1]]}),
]


@pytest.mark.parametrize(("entry", "replies"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
async def test_a_reply_that_no_redis_gives_is_named_without_a_word_of_python(entry: Any, replies: Any) -> None:
    with pytest.raises(SourceGarbled, match=r"^rts: answered [A-Zat][A-Za-z. ]+ with something else than Redis does$"):
        await answered(entry, replies)


@pytest.mark.parametrize("info", [b"redis_version:7.0\r\nused_memory:much\r\nmaxmemory:1\r\n", 7])
async def test_a_ping_that_cannot_be_read_says_so(info: Any) -> None:
    async with replying({"PING": b"+PONG\r\n", "TIME": [b"1", b"2"], "INFO": info}) as source:
        with pytest.raises(SourceGarbled, match="answered INFO and TIME with something else than Redis does"):
            await source.ping()


async def test_a_bug_of_ours_says_that_it_is_one_and_is_not_held_against_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.sources.redis.columns.numbers", lambda *_: len(7))  # type: ignore[arg-type]
    with pytest.raises(SourceCrashed, match=r"^rts: a bug of the bridge \(TypeError, its log says where\)") as crashed:
        await answered(EQUITY, {"ZUNION": [b"A1"], "HMGET": [b"1"]})
    assert not crashed.value.trips_breaker


async def test_a_server_of_another_kind_is_told_without_a_parsers_words() -> None:
    async with listener(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        source = RedisConfig(port=port).build("rts")
        with pytest.raises(SourceGarbled, match=r"^rts: expected replies in Redis' protocol, found something else$"):
            await source.fetch(statement(EQUITY))
        await source.close()
