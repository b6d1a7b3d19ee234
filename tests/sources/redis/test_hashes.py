"""Hashes by an index: value forms, labels, filters, aggregates, and what is missing or wrong in them."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import SourceRejected
from app.model import Frame
from app.sources.redis.source import RedisConfig
from tests.frames import shown
from tests.servers.redis import RedisServer
from tests.sources.redis.asking import NOW, OPEN, STEP, T0, Asker, problems_of, statement, where

pytestmark = pytest.mark.usefixtures("rounds")

ACCOUNTS = {"index": "account_state:index", "hash": "account_state:{id}", "labels": {"account": "$id", "broker": "broker_id"}}
TRADES = {"index": "trade_state:open", "hash": "trade_state:{id}", "labels": {"account": "account_id", "symbol": "symbol"}}
ZEROS = {
    "index": "account_state:index",
    "hash": "account_state:{id}",
    "labels": {"account": "$id", "broker": "broker_id"},
}


def accounts(server: RedisServer, **hashes: dict[str, Any]) -> None:
    for name, fields in hashes.items():
        server.client.hset(f"account_state:{name}", mapping=fields)
        server.client.sadd("account_state:index", name)


def trade(server: RedisServer, name: str, at_ms: int = 0, index: str = "trade_state:open", **fields: Any) -> None:
    server.client.hset(f"trade_state:{name}", mapping=fields)
    server.client.zadd(index, {name: at_ms})


async def test_open_trades_are_counted_by_account(server: RedisServer, ask: Asker) -> None:
    trade(server, "t1", account_id="A1", symbol="EURUSD")
    trade(server, "t2", account_id="A1", symbol="USDJPY")
    trade(server, "t3", account_id="A2", symbol="EURUSD")
    assert await ask({**TRADES, "value": "count"}, by="account") == {"account=A1": {OPEN: 2}, "account=A2": {OPEN: 1}}


async def test_a_count_without_labels_counts_hashes_that_exist(server: RedisServer, ask: Asker) -> None:
    trade(server, "t1", account_id="A1")
    server.client.zadd("trade_state:open", {"deleted": 0})
    assert await ask({**TRADES, "value": "count"}) == {"": {OPEN: 1}}


async def test_a_hash_deleted_between_index_and_read_is_skipped(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 10, "broker_id": "B"}, A2={"equity": 20, "broker_id": "B"})
    server.client.delete("account_state:A2")
    assert await ask({**ACCOUNTS, "field": "equity"}, by="account") == {"account=A1": {OPEN: 10}}
    assert ask.remarks == []


async def test_a_present_read_says_nothing_about_closed_buckets(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 10})
    assert await ask({**ACCOUNTS, "field": "equity"}, now_ms=0) == {}


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("sum", 60), ("avg", 20), ("min", 10), ("max", 30), ("count", 3), ("quantile", 25)],
)
async def test_each_aggregate_leaves_nulls_out(server: RedisServer, ask: Asker, aggregate: str, expected: float) -> None:
    accounts(server, A1={"equity": 10}, A2={"equity": 20}, A3={"equity": 30}, A4={"equity": ""})
    read = {**ACCOUNTS, "field": "equity", "aggregate": aggregate, "quantile": 0.75}
    assert await ask(read) == {"": {OPEN: expected}}


@pytest.mark.parametrize("aggregate", ["sum", "avg", "min", "max", "quantile"])
async def test_nothing_but_nulls_is_null(server: RedisServer, ask: Asker, aggregate: str) -> None:
    accounts(server, A1={"equity": ""})
    assert await ask({**ACCOUNTS, "field": "equity", "aggregate": aggregate}) == {"": {OPEN: None}}


async def test_a_scale_changes_the_unit(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"memory": 2}, A2={"memory": 3})
    assert await ask({**ACCOUNTS, "field": "memory", "scale": 1048576}) == {"": {OPEN: 5 * 1048576}}


MARGIN_LEVEL = {**ACCOUNTS, "ratio": {"plus": ["equity"], "over": "margin", "scale": 100}, "aggregate": "ratio"}


async def test_a_ratio_over_accounts_is_no_average_of_ratios(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 100, "margin": 100}, A2={"equity": 900, "margin": 300})
    assert await ask(MARGIN_LEVEL) == {"": {OPEN: 250}}
    assert await ask({**MARGIN_LEVEL, "aggregate": "avg"}) == {"": {OPEN: 200}}
    assert await ask({**MARGIN_LEVEL, "aggregate": "max"}) == {"": {OPEN: 300}}


async def test_margin_level_is_null_when_margin_is_zero(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 100, "margin": 0}, A2={"equity": 900, "margin": 300})
    assert await ask(MARGIN_LEVEL, by="account") == {"account=A1": {OPEN: None}, "account=A2": {OPEN: 300}}


async def test_a_ratio_adds_and_takes_away_fields(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"peak": 200, "equity": 150, "credit": 10})
    drawdown = {**ACCOUNTS, "ratio": {"plus": ["peak"], "minus": ["equity"], "over": "peak", "scale": 100}, "aggregate": "ratio"}
    assert await ask(drawdown) == {"": {OPEN: 25}}
    assert await ask({**ACCOUNTS, "ratio": {"plus": ["equity", "credit"]}}) == {"": {OPEN: 160}}


@pytest.mark.parametrize(
    "written",
    [str((NOW - 5000) // 1000), str(NOW - 5000), "2023-11-14T22:17:25.000Z", "2023-11-15T00:17:25+02:00", "2023-11-14T22:17:25"],
)
async def test_an_age_is_read_from_every_way_to_write_a_time(server: RedisServer, ask: Asker, written: str) -> None:
    accounts(server, A1={"seen": written})
    assert await ask({**ACCOUNTS, "age_of": "seen", "aggregate": "max"}) == {"": {OPEN: 5}}


async def test_a_clock_that_runs_ahead_makes_no_negative_age(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"seen": NOW + 2000})
    assert await ask({**ACCOUNTS, "age_of": "seen", "aggregate": "max"}) == {"": {OPEN: 0}}


async def test_fields_that_do_not_parse_are_null_with_one_remark(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": "secret?"}, A2={"equity": "inf"}, A3={"equity": 30}, A4={"equity": ""})
    assert await ask({**ACCOUNTS, "field": "equity", "aggregate": "avg"}) == {"": {OPEN: 30}}
    assert ask.remarks == ["account_state:{id}: equity does not parse 2 times; shown as null"]
    assert ask.frame.partial


async def test_a_time_that_does_not_parse_is_null_with_a_remark(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"seen": "yesterday"})
    assert await ask({**ACCOUNTS, "age_of": "seen", "aggregate": "max"}) == {"": {OPEN: None}}
    assert ask.remarks == ["account_state:{id}: seen does not parse 1 times; shown as null"]


async def test_filters_work_on_labels_that_are_not_kept(server: RedisServer, ask: Asker) -> None:
    accounts(
        server,
        A1={"equity": 1, "broker_id": "B1"},
        A2={"equity": 2, "broker_id": "B1"},
        A3={"equity": 4, "broker_id": "B2"},
        A4={"equity": 8},
    )
    equity = {**ACCOUNTS, "field": "equity"}
    assert await ask(equity, filters=(where("broker", "=", "B1"),)) == {"": {OPEN: 3}}
    assert await ask(equity, by="broker", filters=(where("account", "=|", "A2", "A3"),)) == {
        "broker=B1": {OPEN: 2},
        "broker=B2": {OPEN: 4},
    }
    assert await ask(equity, filters=(where("broker", "!~", "B.*"),)) == {"": {OPEN: 8}}
    assert await ask(equity, filters=(where("broker", "=", "B1"), where("account", "!=", "A1"))) == {"": {OPEN: 2}}


async def test_a_filter_on_the_id_reads_only_those_hashes(server: RedisServer, ask: Asker) -> None:
    accounts(server, **{f"A{number}": {"equity": number} for number in range(50)})
    before = server.client.info("commandstats")["cmdstat_hmget"]["calls"] if server.client.hmget("x", "y") else 0
    assert await ask({**ACCOUNTS, "field": "equity"}, by="account", filters=(where("account", "=", "A7"),)) == {
        "account=A7": {OPEN: 7}
    }
    assert server.client.info("commandstats")["cmdstat_hmget"]["calls"] == before + 1


async def test_label_sets_that_exist_without_a_hash_are_zero(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"broker_id": "B1"}, A2={"broker_id": "B2"}, A3={"broker_id": "B2"})
    trade(server, "t1", account_id="A1", symbol="EURUSD", broker_id="B1")
    count = {**TRADES, "labels": {**TRADES["labels"], "broker": "broker_id"}, "value": "count", "zeros": ZEROS}  # type: ignore[dict-item]
    assert await ask(count, by="account") == {"account=A1": {OPEN: 1}, "account=A2": {OPEN: 0}, "account=A3": {OPEN: 0}}
    assert await ask(count, by="broker") == {"broker=B1": {OPEN: 1}, "broker=B2": {OPEN: 0}}
    assert await ask(count, by="account", filters=(where("broker", "=", "B2"),)) == {
        "account=A2": {OPEN: 0},
        "account=A3": {OPEN: 0},
    }
    assert await ask(count, filters=(where("symbol", "=", "USDJPY"),)) == {"": {OPEN: 0}}
    assert await ask(count, by="symbol") == {"symbol=EURUSD": {OPEN: 1}}


async def test_failed_trades_are_put_into_buckets_by_their_score(server: RedisServer, ask: Asker) -> None:
    for name, at_ms in {"before": T0 - 1, "first": T0, "last": T0 + STEP - 1, "next": T0 + STEP, "after": OPEN + STEP}.items():
        trade(server, name, at_ms, index="trade_state:failed", account_id="A1")
    failed = {**TRADES, "index": "trade_state:failed", "scored": "since", "value": "count"}
    assert await ask(failed) == {"": {T0: 2, T0 + STEP: 1}}
    assert await ask(failed, now_ms=0, to_ms=OPEN) == {"": {T0: 2, T0 + STEP: 1}}
    zeros = {**failed, "zeros": {"index": "account_state:index", "labels": {"account": "$id"}}}
    server.client.sadd("account_state:index", "A1", "A2")
    empty = dict.fromkeys(range(T0, OPEN + STEP, STEP), 0.0)
    assert await ask(zeros, by="account") == {"account=A1": {**empty, T0: 2, T0 + STEP: 1}, "account=A2": empty}


async def test_an_index_says_from_when_on_it_has_all_its_members(server: RedisServer, ask: Asker) -> None:
    now_ms = int(server.client.time()[0]) * 1000
    open_ms = now_ms // STEP * STEP
    for name, at_ms in {"old": open_ms - 5 * STEP, "new": open_ms - STEP}.items():
        trade(server, name, at_ms, index="trade_state:failed", account_id="A1")
    server.client.sadd("account_state:index", "A1")
    zeros = {"index": "account_state:index", "labels": {"account": "$id"}}
    failed = {**TRADES, "index": "trade_state:failed", "scored": "since", "value": "count", "zeros": zeros, "keeps_s": 150}
    shown_ = await ask(failed, now_ms=now_ms, from_ms=open_ms - 10 * STEP, to_ms=open_ms + STEP)
    assert ask.frame.covers_from_ms is not None
    assert 0 <= ask.frame.covers_from_ms - (now_ms - 150_000) <= 2000  # the server's clock dates and trims
    first_ms = ask.frame.covers_from_ms // STEP * STEP
    assert shown_ == {"": {at_ms: float(at_ms == open_ms - STEP) for at_ms in range(first_ms, open_ms + STEP, STEP)}}
    await ask(failed, now_ms=now_ms, from_ms=open_ms, to_ms=open_ms + STEP)
    assert ask.frame.covers_from_ms is None


async def test_a_dated_index_over_the_limit_has_all_from_its_oldest_kept_member_on(server: RedisServer) -> None:
    for number in range(5):
        trade(server, f"t{number}", T0 + number, account_id=f"A{number}")
    source = RedisConfig(port=server.port, max_members=2).build("rts")
    frame = await source.fetch(statement({**TRADES, "scored": "since", "value": "count"}, by="account"))
    await source.close()
    # The other member of that millisecond's may be the one that was left out.
    assert (sorted(shown(frame)), frame.covers_from_ms) == (["account=A4"], T0 + 4)


async def test_an_index_over_the_limit_is_cut_to_the_newest_and_says_so(server: RedisServer) -> None:
    for number in range(5):
        trade(server, f"t{number}", T0 + number, account_id=f"A{number}")
    source = RedisConfig(port=server.port, max_members=2).build("rts")
    frame = await source.fetch(statement({**TRADES, "value": "count"}, by="account"))
    await source.close()
    assert sorted(shown(frame)) == ["account=A3", "account=A4"]
    assert [notice.text for notice in frame.notices] == [
        "trade_state:open: more than 2 found; only the newest 2 are shown (max_members)"
    ]
    assert frame.partial  # so no alert compares it, and no panel shows it as whole


async def test_keys_are_prefixed(server: RedisServer) -> None:
    server.client.sadd("tds:account_state:index", "A1")
    server.client.hset("tds:account_state:A1", mapping={"equity": 5})
    source = RedisConfig(port=server.port, prefix="tds:").build("rts")
    assert shown(await source.fetch(statement({**ACCOUNTS, "field": "equity"}))) == {"": {OPEN: 5}}
    await source.close()


async def test_one_hash_is_read_like_many(server: RedisServer, ask: Asker) -> None:
    server.client.hset("sync:rtrs:duckdb", mapping={"sink": "duckdb", "last_ok_ms": NOW - 3000, "backlog": 7})
    one = {"read": "hash", "key": "sync:rtrs:duckdb"}
    assert await ask({**one, "age_of": "last_ok_ms"}, by="sink") == {"sink=duckdb": {OPEN: 3}}
    assert await ask({**one, "field": "backlog"}, filters=(where("sink", "!=", "duckdb"),)) == {}
    assert await ask({**one, "key": "sync:nowhere", "field": "backlog"}) == {}
    assert await ask({**one, "field": "backlog"}, now_ms=0) == {}


async def test_a_key_of_the_wrong_type_is_rejected_and_the_connection_goes_on(server: RedisServer, ask: Asker) -> None:
    server.client.set("account_state:index", "text")
    with pytest.raises(SourceRejected, match="rts: WRONGTYPE"):
        await ask({**ACCOUNTS, "field": "equity"})
    before = server.client.info("stats")["total_connections_received"]
    server.client.delete("account_state:index")
    assert await ask({**ACCOUNTS, "field": "equity"}) == {}
    assert server.client.info("stats")["total_connections_received"] == before


async def test_an_error_in_the_middle_of_a_pipeline_is_found(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 1}, A3={"equity": 3})
    server.client.set("account_state:A2", "text")
    server.client.sadd("account_state:index", "A2")
    with pytest.raises(SourceRejected, match="WRONGTYPE"):
        await ask({**ACCOUNTS, "field": "equity"})


async def test_a_thousand_accounts_cost_two_pipelines(server: RedisServer, ask: Asker) -> None:
    pipe = server.client.pipeline(transaction=False)
    for number in range(1000):
        pipe.hset(f"account_state:{number}", mapping={"equity": number, "broker_id": f"B{number % 3}"})
        pipe.sadd("account_state:index", number)
    pipe.execute()
    await ask({**ACCOUNTS, "field": "equity"}, by="broker")
    assert await ask({**ACCOUNTS, "field": "equity"}) == {"": {OPEN: sum(range(1000))}}
    assert len((await _by_account(ask)).series) == 1000


async def _by_account(ask: Asker) -> Frame:
    await ask({**ACCOUNTS, "field": "equity"}, by="account")
    return ask.frame


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({}, "value"),
        ({"value": "count", "field": "equity"}, "value"),
        ({"field": "equity", "aggregate": "ratio"}, "aggregate"),
        ({"field": "equity", "aggregate": "rate"}, "aggregate"),
        ({"value": "count", "aggregate": "avg"}, "aggregate"),
        ({"value": "count", "hash": "trade_state"}, "hash"),
        ({"age_of": "seen", "scored": "since"}, "scored"),
        ({"value": "count", "keeps_s": 3600}, "keeps_s"),
        ({"field": "equity", "over_time": "rate"}, "over_time"),
        ({"value": "count", "history": "hist:{id}"}, "history"),
        ({"field": "equity", "history": "hist:{field}"}, "history"),
        ({"field": "equity", "history": "hist:{id}", "scored": "since"}, "history"),
        ({"ratio": {"plus": ["a"], "over": "b"}, "aggregate": "ratio", "history": "hist:{id}"}, "history"),
        ({"ratio": {"plus": ["a"]}, "history": "hist:{field}:{id}", "over_time": "max"}, "over_time"),
        ({"field": "equity", "aggregate": "avg", "zeros": ZEROS}, "zeros"),
        ({"value": "count", "zeros": {**ZEROS, "hash": ""}}, "zeros.hash"),
    ],
)
def test_a_wrong_entry_is_found_before_it_is_asked(wrong: dict[str, Any], key: str) -> None:
    assert list(problems_of(**{"index": "i", "hash": "h:{id}", **wrong})) == [key]


def test_statements_of_different_reads_differ_and_of_the_same_are_the_same() -> None:
    count, total = {**TRADES, "value": "count"}, {**TRADES, "field": "profit"}
    assert statement(count).key == statement(count, now_ms=NOW + 1000).key
    keys = {statement(count).key, statement(total).key, statement(count, by="account").key, statement(count, now_ms=0).key}
    assert len(keys) == 4
