"""RedisTimeSeries, which Debian's redis-server does not have: asked of fakeredis' TCP server, which `make demo` falls back to.

The last test asks that server every other kind of read too, so that the demo answers the same without a redis-server.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import fakeredis
import pytest
import redis

from app.sources.redis.source import RedisConfig
from tests.frames import shown
from tests.sources.redis.asking import NOW, OPEN, STEP, T0, Asker, problems_of, statement, where
from tests.sources.redis.listeners import listener, saying

pytestmark = pytest.mark.usefixtures("rounds")

EQUITY = {"read": "timeseries", "index": "account_state:index", "key": "ts:equity:{id}", "labels": {"account": "$id"}}


@pytest.fixture
def embedded() -> Iterator[Any]:
    """redis-py's blocking client on a server that has the time series commands."""
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    client = redis.Redis(port=server.server_address[1], decode_responses=True, protocol=2)
    yield client
    client.close()
    server.shutdown()
    server.server_close()
    serving.join(5)


@pytest.fixture
async def ask(embedded: Any) -> AsyncIterator[Asker]:
    source = RedisConfig(port=embedded.connection_pool.connection_kwargs["port"]).build("rts")
    yield Asker(source)
    await source.close()


def series(embedded: Any, name: str, samples: dict[int, float]) -> None:
    embedded.sadd("account_state:index", name)
    for at_ms, value in samples.items():
        embedded.execute_command("TS.ADD", f"ts:equity:{name}", at_ms, value)


async def test_the_server_itself_makes_the_buckets(embedded: Any, ask: Asker) -> None:
    series(embedded, "A1", {T0 - 1: 9, T0: 1, T0 + STEP - 1: 2, T0 + STEP: 3, OPEN + STEP: 99})
    series(embedded, "A2", {T0: 10})
    assert await ask(EQUITY) == {"": {T0: 12, T0 + STEP: 3}}
    assert await ask(EQUITY, by="account", now_ms=0) == {"account=A1": {T0: 2, T0 + STEP: 3}, "account=A2": {T0: 10}}
    assert await ask(EQUITY, filters=(where("account", "=", "A2"),)) == {"": {T0: 10}}
    assert await ask({**EQUITY, "over_time": "avg", "scale": 100, "aggregate": "max"}) == {"": {T0: 1000, T0 + STEP: 300}}


async def test_one_series_without_an_index(embedded: Any, ask: Asker) -> None:
    embedded.execute_command("TS.ADD", "ts:load", T0, 7)
    one = {"read": "timeseries", "key": "ts:load", "constants": {"host": "H1"}}
    assert await ask(one, by="host") == {"host=H1": {T0: 7}}


async def test_a_series_that_does_not_exist_is_skipped() -> None:
    async with listener(saying(b"-ERR TSDB: the key does not exist\r\n")) as port:
        source = RedisConfig(port=port).build("rts")
        assert shown(await source.fetch(statement({"read": "timeseries", "key": "ts:load"}))) == {}
        await source.close()


async def test_a_value_that_is_no_number_is_null_with_a_remark() -> None:
    async with listener(saying(f"*1\r\n*2\r\n:{T0}\r\n+NaN?\r\n".encode())) as port:
        ask = Asker(RedisConfig(port=port).build("rts"))
        assert await ask({"read": "timeseries", "key": "ts:load"}) == {"": {T0: None}}
        assert ask.remarks == ["ts:load: value does not parse 1 times; shown as null"]
        await ask.source.close()


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"key": "ts:{id}"}, "key"),
        ({"key": "ts", "index": "i"}, "key"),
        ({"key": "ts", "aggregate": "ratio"}, "aggregate"),
        ({"key": "ts", "labels": {"a": "field"}}, "labels.a"),
    ],
)
def test_a_wrong_entry_is_found_before_it_is_asked(wrong: dict[str, Any], key: str) -> None:
    assert list(problems_of(read="timeseries", **wrong)) == [key]


async def test_the_demos_embedded_redis_answers_every_read(embedded: Any, ask: Asker) -> None:
    embedded.sadd("index", "A1")
    embedded.zadd("scored", {"A1": T0})
    embedded.hset("hash:A1", mapping={"v": 5})
    embedded.zadd("hist:v:A1", {f"{T0}:4": T0})
    embedded.xadd("stream", {"v": 6}, id=f"{T0}-0")
    embedded.xgroup_create("stream", "group", id="0")
    hashes = {"hash": "hash:{id}", "field": "v"}
    assert await ask({**hashes, "index": "index"}) == {"": {OPEN: 5}}
    assert await ask({**hashes, "index": "scored"}) == {"": {OPEN: 5}}
    assert await ask({**hashes, "index": "scored", "scored": "since"}) == {"": {T0: 5}}
    assert await ask({**hashes, "index": "index", "history": "hist:{field}:{id}"}) == {"": {T0: 4, OPEN: 5}}
    assert await ask({"index": "index", "hash": "hash:{id}", "value": "count"}) == {"": {OPEN: 1}}
    assert await ask({"read": "hash", "key": "hash:A1", "field": "v"}) == {"": {OPEN: 5}}
    assert await ask({"read": "size", "sizes": {"index": {}}}) == {"": {OPEN: 1}}
    assert await ask({"read": "stream", "stream": "stream", "group": "group", "stat": "backlog"}) == {"": {OPEN: 1}}
    assert await ask({"read": "events", "stream": "stream", "field": "v"}, now_ms=NOW) == {"": {T0: 6}}


async def test_the_demos_embedded_redis_answers_a_ping(ask: Asker) -> None:
    assert (await ask.source.ping()).startswith("Redis ")
