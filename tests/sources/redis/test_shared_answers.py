"""Replicas that share answers through a real Redis, and what becomes of them when that Redis is the broken store."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from app.errors import SourceUnavailable
from app.model import Fetch, Frame, Matcher, Statement, TimeRange
from app.operations.redis_shared_cache import RedisSharedCache, SharedCacheSettings
from app.policies import Guard, Policy, PolicyDeps, PrioritySemaphore, guard
from app.policies.cache.packing import pack, unpack
from app.telemetry import Telemetry
from tests.frames import frame, shown
from tests.policies.scripted import Scripted
from tests.servers.faulty import Fault, FaultProxy
from tests.servers.redis import RedisServer

DOWN = SourceUnavailable("s", "refused")
#: a slow answer, so that the others come while it is under way
SLOW_S = 0.05


class Store:
    """What all replicas ask: slow, counted, down when told so."""

    def __init__(self) -> None:
        self.askings = 0
        self.down = False

    async def __call__(self, _: Statement) -> Frame:
        self.askings = number = self.askings + 1
        await asyncio.sleep(SLOW_S)
        if self.down:
            raise DOWN
        return frame({"account=A": {0: number}})


class Clock:
    """Real time, and as much more as a test adds."""

    def __init__(self) -> None:
        self.more_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.more_ms


def statement(text: str = "t") -> Statement:
    return Statement("s", "m", text, (), TimeRange(0, 5000, 1000), ("account",))


@asynccontextmanager
async def replicas(port: int, store: Fetch, clock: Clock, count: int = 3, limit_s: float = 1.0) -> AsyncIterator[list[Guard]]:
    """Bridges' guards over one store, each with its own way to the tier."""
    shelves = [
        RedisSharedCache(SharedCacheSettings(host="127.0.0.1", port=port, limit_s=limit_s, probe_s=0.2)) for _ in range(count)
    ]
    guards = [
        guard(
            "s", store, Policy(attempts=1), PolicyDeps(Telemetry(), clock, asyncio.sleep, PrioritySemaphore(20), shelf), "config"
        )
        for shelf in shelves
    ]
    try:
        yield guards
    finally:
        for one, shelf in zip(guards, shelves, strict=True):
            await one.close()
            await shelf.close()


@pytest.fixture
def tier(tmp_path: Path) -> RedisServer:
    return RedisServer(tmp_path)


async def test_of_two_hundred_askers_over_three_replicas_one_asks(tier: RedisServer) -> None:
    store, clock = Store(), Clock()
    with tier:
        async with replicas(tier.port, store, clock) as guards:
            found = await asyncio.gather(*(guards[number % 3].fetch(statement()) for number in range(200)))
    assert (store.askings, {answer.value[0] for answer in found}) == (1, {1.0})
    # Each replica counts from its own asking where that was a moment earlier than the one that reached the store.
    asked_ms = [answer.provenance.asked_ms for answer in found]
    assert max(asked_ms) - min(asked_ms) < 100


async def test_an_answer_keeps_its_own_clock_in_every_replica(tier: RedisServer) -> None:
    store, clock = Store(), Clock()
    with tier:
        async with replicas(tier.port, store, clock, 2) as (first, second):
            asked = await first.fetch(statement())
            clock.more_ms += 6_000
            shared = await second.fetch(statement())
            clock.more_ms += 5_000
            anew = await second.fetch(statement())
    assert (shared.value[0], anew.value[0], store.askings) == (1.0, 2.0, 2)
    assert abs(shared.provenance.asked_ms - asked.provenance.asked_ms) < 50


async def test_an_answer_of_a_replica_whose_clock_is_ahead_is_not_fresh_for_so_long(tier: RedisServer) -> None:
    store, ahead, right = Store(), Clock(), Clock()
    ahead.more_ms = 300_000
    with tier:
        async with replicas(tier.port, store, ahead, 1) as [first], replicas(tier.port, store, right, 1) as [second]:
            await first.fetch(statement())
            found = []
            for _ in range(3):
                found.append((await second.fetch(statement())).value[0])
                right.more_ms += 60_000
    assert found == [2.0, 3.0, 4.0]


async def test_a_replica_that_knows_nothing_serves_what_another_one_knew_marked(tier: RedisServer) -> None:
    store, clock = Store(), Clock()
    with tier:
        async with replicas(tier.port, store, clock, 2) as (first, second):
            asked = await first.fetch(statement())
            clock.more_ms += 60_000
            store.down = True
            found = await second.fetch(statement())
            with pytest.raises(SourceUnavailable):
                await second.fetch(replace(statement(), accept="fresh"))
    assert (found.provenance.stale, shown(found)) == ("refused", {"account=A": {0: 1.0}})
    assert abs(found.provenance.asked_ms - asked.provenance.asked_ms) < 50


async def test_an_answer_from_an_older_copy_is_not_shared_as_a_fresh_one(tier: RedisServer) -> None:
    clock = Clock()
    old = frame({"account=A": {0: 1}}, older_copy="the newest snapshot cannot be opened", covers_to_ms=clock() - 60_000)
    store = Scripted(old)
    with tier:
        async with replicas(tier.port, store, clock, 2) as guards:
            found = [(await one.fetch(statement())).provenance.stale for one in guards]
    assert (store.askings, found) == (2, ["the newest snapshot cannot be opened"] * 2)


async def test_an_answer_to_another_question_under_the_same_name_is_none(tier: RedisServer) -> None:
    store = Store()
    with tier:
        async with replicas(tier.port, store, Clock(), 2) as (first, second):
            await first.fetch(statement("a"))
            await first.fetch(statement("b"))
            one, other = tier.client.keys("*:answer")
            # What a collision of digests would look like.
            mine, theirs = (tier_bytes(tier, key) for key in (one, other))
            tier_put(tier, one, theirs)
            tier_put(tier, other, mine)
            found = await asyncio.gather(second.fetch(statement("a")), second.fetch(statement("b")))
    assert store.askings == 4
    assert {answer.value[0] for answer in found} == {3.0, 4.0}


def tier_bytes(tier: RedisServer, key: str) -> bytes:
    with redis.Redis(tier.host, tier.port, protocol=2) as raw:
        value = raw.hget(key, "v")
    assert isinstance(value, bytes)
    return value


def tier_put(tier: RedisServer, key: str, packed: bytes) -> None:
    tier.client.hset(key, "v", packed)


def planted(packed: bytes, how: str) -> bytes:
    """What another writer may put in an answer's place."""
    question, answer = unpack(packed)
    others = {
        "bytes": b"\x00\xff",
        "nothing": b"",
        "types": packed.replace(b'"notices":[]', b'"notices":{}'),
        "times": pack(question, frame({"account=A": {7000: 666}}, asked_ms=answer.provenance.asked_ms)),
        "labels": pack(question, frame({"account=A,broker=B": {0: 666}}, asked_ms=answer.provenance.asked_ms)),
        "grid": pack(question, frame({"account=A": {1: 666}}, asked_ms=answer.provenance.asked_ms)),
    }
    return others[how]


@pytest.mark.parametrize("how", ["bytes", "nothing", "types", "times", "labels", "grid"])
async def test_what_cannot_be_the_answer_is_a_miss_and_one_line_in_the_log(
    tier: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    with tier:
        async with replicas(tier.port, store, Clock(), 2) as (first, second):
            await first.fetch(statement("a"))
            [key] = tier.client.keys("*:answer")
            tier_put(tier, key, planted(tier_bytes(tier, key), how))
            with caplog.at_level(logging.INFO):
                found = [(await second.fetch(replace(statement("a"), lane="alert"))).value[0] for _ in range(2)]
    assert found == [2.0, 2.0]
    assert [record.message.partition("not believed: ")[0] for record in caplog.records] == [
        "s: what replicas share of an answer is "
    ]


@pytest.mark.parametrize(
    ("plant", "answered"),
    [
        (lambda client, key: (client.delete(key), client.set(key, "no hash")), 2.0),
        (lambda client, key: (client.delete(key), client.rpush(key, "a", "b")), 2.0),
        (lambda client, key: client.hset(key, mapping={"a": "no number", "t": "none either", "v": "none"}), 2.0),
        # the answer itself says when it was asked
        (lambda client, key: client.hset(key, mapping={"a": "no number", "t": "none either"}), 1.0),
        (lambda client, key: client.hdel(key, "a", "t"), 1.0),
    ],
)
async def test_a_key_that_another_writer_spoiled_is_no_reason_to_leave_the_tier_aside(
    tier: RedisServer, plant: Callable[[Any, str], Any], answered: float
) -> None:
    store = Store()
    with tier:
        async with replicas(tier.port, store, Clock(), 3) as (first, second, third):
            await first.fetch(statement("a"))
            [key] = tier.client.keys("*:answer")
            plant(tier.client, key)
            found = [(await one.fetch(statement("a"))).value[0] for one in (second, third)]
    assert (found, store.askings) == ([answered, answered], answered)


async def test_a_question_that_cannot_be_written_down_is_asked_without_the_tier_which_goes_on(tier: RedisServer) -> None:
    store = Store()
    odd = replace(statement("a"), where=(Matcher("account", "=", ("\ud800",)),))
    with tier:
        async with replicas(tier.port, store, Clock(), 2) as (first, second):
            asked_alone = [(await one.fetch(odd)).value[0] for one in (first, second)]
            found = [(await one.fetch(statement("a"))).value[0] for one in (first, second)]
            state = first.breaker.circuit.state
    assert (asked_alone, found, store.askings, state) == ([1.0, 2.0], [3.0, 3.0], 3, "closed")


async def test_an_answer_that_cannot_be_written_down_reaches_its_asker_and_keeps_no_lease(tier: RedisServer) -> None:
    async def odd(_: Statement) -> Frame:
        return frame({"account=\ud800": {0: 1}})

    with tier:
        async with replicas(tier.port, odd, Clock(), 2) as (first, second):
            found = [len(await one.fetch(statement("a"))) for one in (first, second)]
        assert (found, tier.client.keys("*")) == ([1, 1], [])


async def test_a_holder_that_was_overtaken_cannot_put_its_old_answer_over_the_newer_one(tier: RedisServer) -> None:
    with tier:
        shelf = RedisSharedCache(SharedCacheSettings(host="127.0.0.1", port=tier.port))
        slow = await shelf.find("n", 0, 20)
        await asyncio.sleep(0.03)  # its lease runs out
        quick = await shelf.find("n", 0, 5000)
        await shelf.put("n", quick.token, b"new", 2000, 60_000)
        await shelf.put("n", slow.token, b"old", 1000, 60_000)
        found = await shelf.find("n", 0, 5000)
        await shelf.close()
    assert (0 < slow.token < quick.token, found.packed) == (True, b"new")


async def test_an_asker_who_leaves_lets_the_next_one_ask_at_once(tier: RedisServer) -> None:
    store = Store()
    with tier:
        async with replicas(tier.port, store, Clock(), 2) as (first, second):
            leaving = asyncio.ensure_future(first.fetch(statement()))
            await asyncio.sleep(SLOW_S / 2)
            leaving.cancel()
            await asyncio.wait({leaving})
            begun_s = time.monotonic()
            await second.fetch(statement())
    assert time.monotonic() - begun_s < SLOW_S + 0.5
    assert store.askings == 2


@pytest.mark.parametrize("fault", ["refuse", "black_hole", "garbage", "half_open"])
async def test_a_broken_tier_is_left_aside_after_one_moment_and_taken_again_when_it_answers(
    tier: RedisServer, fault: Fault
) -> None:
    store, clock = Store(), Clock()
    with tier:
        async with FaultProxy(tier.port) as proxy, replicas(proxy.port, store, clock, 1, 0.1) as [only]:
            await only.fetch(statement("a"))
            await proxy.set(fault)
            took_s = []
            for text in "bcdef":
                begun_s = time.monotonic()
                await only.fetch(statement(text))
                took_s.append(time.monotonic() - begun_s - SLOW_S)
            await proxy.set("none")
            await asyncio.sleep(0.5)
            await only.fetch(statement("g"))
            shared = len(tier.client.keys("*:answer"))
    # The first may cost the tier's own limit of 0.1 s, a connection's making and a lease's putting each; then nothing.
    assert took_s[0] < 0.3
    assert statistics.median(took_s[1:]) < 0.03
    assert shared == 2
