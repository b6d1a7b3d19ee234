"""Streams: their length, what a group has still to do, and their entries as events; sizes of sets."""

from __future__ import annotations

from typing import Any

import pytest

from app.sources.redis.source import RedisConfig
from tests.frames import shown
from tests.servers.redis import RedisServer
from tests.sources.redis.asking import NOW, OPEN, STEP, T0, Asker, problems_of, statement, where
from tests.sources.redis.listeners import listener, resp, saying

pytestmark = pytest.mark.usefixtures("rounds")

STATES = {"read": "size", "sizes": {f"instance:state:{state}": {"state": state} for state in ("running", "stopped", "crashed")}}
SIGNALS = {"read": "stream", "stream": "trade_signals", "group": "executors", "constants": {"group": "executors"}}
RESULTS = {"read": "events", "stream": "trade_results", "labels": {"broker": "broker_id"}}


def result(server: RedisServer, at_ms: int, **fields: Any) -> str:
    entry: str = server.client.xadd("trade_results", fields or {"event": "execution"}, id=f"{at_ms}-*")
    return entry


async def test_sizes_of_sets_by_label(server: RedisServer, ask: Asker) -> None:
    server.client.sadd("instance:state:running", "I1", "I2")
    server.client.sadd("instance:state:crashed", "I3")
    assert await ask(STATES, by="state") == {"state=crashed": {OPEN: 1}, "state=running": {OPEN: 2}, "state=stopped": {OPEN: 0}}
    assert await ask(STATES) == {"": {OPEN: 3}}
    assert await ask(STATES, filters=(where("state", "!=", "running"),)) == {"": {OPEN: 1}}
    assert await ask(STATES, now_ms=0) == {}


@pytest.mark.parametrize("kind", ["zset", "stream", "list"])
async def test_sizes_of_other_keys(server: RedisServer, ask: Asker, kind: str) -> None:
    server.client.zadd("zset", {"a": 1, "b": 2})
    server.client.rpush("list", "a", "b")
    server.client.xadd("stream", {"a": 1})
    server.client.xadd("stream", {"a": 1})
    assert await ask({"read": "size", "type": kind, "sizes": {kind: {}}}) == {"": {OPEN: 2}}


async def test_where_a_group_stands(server: RedisServer, ask: Asker) -> None:
    server.client.xgroup_create("trade_signals", "executors", id="0", mkstream=True)
    for _ in range(5):
        server.client.xadd("trade_signals", {"action": "buy"})
    server.client.xreadgroup("executors", "c1", {"trade_signals": ">"}, count=2)
    for stat, size in {"length": 5, "lag": 3, "pending": 2, "backlog": 5}.items():
        assert await ask({**SIGNALS, "stat": stat}, by="group") == {"group=executors": {OPEN: size}}


async def test_a_lag_that_redis_does_not_give_is_worked_out_where_it_is_certain(server: RedisServer, ask: Asker) -> None:
    ids = [server.client.xadd("trade_signals", {"n": number}) for number in range(5)]
    lag = {**SIGNALS, "stat": "lag"}
    server.client.xgroup_create("trade_signals", "executors", id=ids[4])
    server.client.xdel("trade_signals", ids[3])
    assert await ask(lag) == {"": {OPEN: 0}}
    server.client.xgroup_setid("trade_signals", "executors", id=ids[1])
    assert await ask(lag) == {"": {OPEN: None}}
    assert ask.remarks == ["trade_signals: Redis does not know the lag of group executors"]
    assert await ask({**SIGNALS, "stat": "pending"}) == {"": {OPEN: 0}}
    server.client.xgroup_setid("trade_signals", "executors", id="1-1")
    assert await ask(lag) == {"": {OPEN: 4}}


async def test_a_server_before_redis_7_tells_no_lag_but_a_group_at_the_end_has_none() -> None:
    groups = resp([[b"name", b"executors", b"consumers", 1, b"pending", 4, b"last-delivered-id", b"5-1"]])
    stream = resp([b"length", 9, b"last-generated-id", b"5-1", b"first-entry", [b"1-0", [b"a", b"1"]]])
    async with listener(saying(groups + stream)) as port:
        ask = Asker(RedisConfig(port=port).build("rtss"))
        assert await ask({**SIGNALS, "stat": "backlog"}) == {"": {OPEN: 4}}
        await ask.source.close()


async def test_a_group_is_known_for_the_present_only(ask: Asker) -> None:
    assert await ask({**SIGNALS, "stat": "backlog"}, now_ms=0) == {}
    assert problems_of(**SIGNALS, stat="backlog") == problems_of(read="stream", stream="s") == {}


@pytest.mark.parametrize(
    ("stream", "remark"), [(False, "there is no such stream"), (True, "there is no consumer group executors")]
)
async def test_a_group_that_is_not_there_is_null_with_a_remark(
    server: RedisServer, ask: Asker, stream: bool, remark: str
) -> None:
    if stream:
        server.client.xadd("trade_signals", {"a": 1})
    assert await ask({**SIGNALS, "stat": "backlog"}, by="group") == {"group=executors": {OPEN: None}}
    assert ask.remarks == [f"trade_signals: {remark}"]


async def test_events_are_counted_in_the_bucket_of_their_entry(server: RedisServer, ask: Asker) -> None:
    for at_ms in (T0 - 1, T0, T0 + STEP - 1, T0 + STEP, OPEN + STEP - 1, OPEN + STEP):
        result(server, at_ms)
    assert await ask({**RESULTS, "value": "count"}) == {"": {T0: 2, T0 + STEP: 1, OPEN: 1}}
    assert await ask({**RESULTS, "value": "count"}, now_ms=0, to_ms=T0 + STEP) == {"": {T0: 2}}


async def test_events_are_matched_filtered_and_labelled(server: RedisServer, ask: Asker) -> None:
    result(server, T0, event="execution", retcode=10009, broker_id="B1")
    result(server, T0, event="execution", retcode=10010, broker_id="B2")
    result(server, T0, event="reject", retcode=10006, broker_id="B2")
    fills = {**RESULTS, "value": "count", "match": {"retcode": [10009, 10010]}}
    assert await ask(fills, by="broker") == {"broker=B1": {T0: 1}, "broker=B2": {T0: 1}}
    assert await ask({**RESULTS, "value": "count"}, filters=(where("broker", "=", "B2"),)) == {"": {T0: 2}}
    others = {**RESULTS, "value": "count", "match": {"retcode": {"none_of": [10009]}, "event": ["execution"]}}
    assert await ask(others) == {"": {T0: 1}}


async def test_a_field_of_events_is_aggregated_without_its_nulls(server: RedisServer, ask: Asker) -> None:
    for latency in ("100", "300", "", "slow"):
        result(server, T0, event="execution", execution_latency_ms=latency)
    latency_s = {**RESULTS, "field": "execution_latency_ms", "scale": 0.001, "aggregate": "avg"}
    assert await ask(latency_s) == {"": {T0: 0.2}}
    assert ask.remarks == ["trade_results: execution_latency_ms does not parse 1 times; shown as null"]


async def test_the_open_buckets_rate_is_over_its_elapsed_part(server: RedisServer, ask: Asker) -> None:
    for at_ms in (T0, T0 + 1, T0 + 2, OPEN, OPEN + 1, OPEN + 2):
        result(server, at_ms)
    assert await ask({**RESULTS, "value": "count", "aggregate": "rate"}) == {"": {T0: 3 / 60, OPEN: 3 / 30}}
    assert (await ask({**RESULTS, "value": "count", "aggregate": "rate"}, now_ms=OPEN))[""][OPEN] == 3


async def test_a_share_of_events(server: RedisServer, ask: Asker) -> None:
    for retcode in (10009, 10009, 10010, 10006):
        result(server, T0, event="execution", retcode=retcode)
    result(server, T0, event="close", retcode=10009)
    share = {"of": {"retcode": [10009, 10010]}, "among": {"event": ["execution"]}}
    assert await ask({**RESULTS, "aggregate": "ratio", "ratio_of": share}) == {"": {T0: 75}}


async def test_a_ratio_of_fields_of_events(server: RedisServer, ask: Asker) -> None:
    result(server, T0, pnl=10, lots=1)
    result(server, T0, pnl=20, lots=4)
    read = {**RESULTS, "ratio": {"plus": ["pnl"], "over": "lots"}, "aggregate": "ratio"}
    assert await ask(read) == {"": {T0: 6}}


async def test_the_age_of_an_event_is_against_its_own_time(server: RedisServer, ask: Asker) -> None:
    result(server, T0 + 5000, sent_at=T0 + 2000)
    assert await ask({**RESULTS, "age_of": "sent_at", "aggregate": "max"}) == {"": {T0: 3}}


async def test_a_trimmed_stream_says_from_when_on_it_has_everything(server: RedisServer, ask: Asker) -> None:
    for at_ms in (T0, T0 + 1000, T0 + STEP):
        result(server, at_ms)
    server.client.xtrim("trade_results", maxlen=2, approximate=False)
    assert await ask({**RESULTS, "value": "count"}) == {"": {T0: 1, T0 + STEP: 1}}
    assert ask.frame.covers_from_ms == T0 + 1000
    assert await ask({**RESULTS, "value": "count"}, from_ms=T0 + STEP) == {"": {T0 + STEP: 1}}
    assert ask.frame.covers_from_ms is None
    server.client.xtrim("trade_results", maxlen=0)
    assert await ask({**RESULTS, "value": "count"}) == {}
    assert ask.frame.covers_from_ms == T0 + STEP + 1


async def test_of_a_millisecond_whose_first_entries_were_trimmed_nothing_is_told(server: RedisServer, ask: Asker) -> None:
    for sequence in range(3):
        server.client.xadd("trade_results", {"event": "execution"}, id=f"{T0}-{sequence}")
    server.client.xadd("trade_results", {"event": "execution"}, id=f"{T0 + 500}-0")
    server.client.xtrim("trade_results", maxlen=2, approximate=False)
    assert await ask({**RESULTS, "value": "count"}, from_ms=T0 - STEP) == {"": {T0: 1}}
    assert ask.frame.covers_from_ms == T0 + 1


async def test_a_stream_that_is_not_there_has_no_events(server: RedisServer, ask: Asker) -> None:
    assert await ask({**RESULTS, "value": "count"}, by="broker", now_ms=NOW) == {}


async def test_of_events_over_the_limit_the_newest_are_told_and_from_when_on_they_are_all(server: RedisServer) -> None:
    for at_ms in (T0, T0 + STEP, OPEN):
        result(server, at_ms)
    source = RedisConfig(port=server.port, max_rows=2).build("rtrs")
    frame = await source.fetch(statement({**RESULTS, "value": "count"}))
    await source.close()
    assert (shown(frame), frame.covers_from_ms) == ({"": {OPEN: 1}}, T0 + STEP + 1)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"read": "stream", "stream": "s", "stat": "lag"}, "group"),
        ({"read": "events", "stream": "s"}, "value"),
        ({"read": "events", "stream": "s", "aggregate": "ratio"}, "aggregate"),
        ({"read": "events", "stream": "s", "ratio_of": {"of": {"a": ["b"]}}}, "ratio_of"),
    ],
)
def test_a_wrong_entry_is_found_before_it_is_asked(wrong: dict[str, Any], key: str) -> None:
    assert key in problems_of(**wrong)
