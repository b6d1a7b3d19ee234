"""Samples in zsets: buckets, the present as the newest sample, counters that restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.servers.redis import RedisServer
from tests.sources.redis.asking import NOW, OPEN, STEP, T0, Asker, where

pytestmark = pytest.mark.usefixtures("rounds")

EQUITY = {
    "index": "account_state:index",
    "hash": "account_state:{id}",
    "labels": {"account": "$id", "broker": "broker_id"},
    "field": "equity",
    "history": "hist:{field}:{id}",
}
FAILURES = {**EQUITY, "over_time": "rate"}


def sampled(server: RedisServer, name: str, samples: Mapping[int, Any], field: str = "equity", **present: Any) -> None:
    server.client.hset(f"account_state:{name}", mapping={"broker_id": "B", **present})
    server.client.sadd("account_state:index", name)
    if samples:
        server.client.zadd(f"hist:{field}:{name}", {f"{at_ms}:{value}": at_ms for at_ms, value in samples.items()})


async def test_a_bucket_has_its_last_sample_and_the_open_one_the_present(server: RedisServer, ask: Asker) -> None:
    samples = {T0 - 1: 9, T0: 1, T0 + STEP - 1: 2, T0 + STEP: 3, OPEN: 4, OPEN + STEP: 99}
    sampled(server, "A1", samples, equity=5)
    assert await ask(EQUITY) == {"": {T0: 2, T0 + STEP: 3, OPEN: 5}}


async def test_closed_buckets_alone_leave_the_present_out(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 1, OPEN - 1: 2}, equity=5)
    assert await ask(EQUITY, now_ms=0, to_ms=OPEN) == {"": {T0: 1, OPEN - STEP: 2}}


async def test_accounts_are_aggregated_in_each_bucket(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 1, T0 + STEP: 2}, equity=3)
    sampled(server, "A2", {T0: 10, T0 + STEP: ""}, equity=30)
    assert await ask(EQUITY, by="broker") == {"broker=B": {T0: 11, T0 + STEP: 2, OPEN: 33}}
    assert await ask(EQUITY, by="account", filters=(where("account", "=", "A2"),)) == {"account=A2": {T0: 10, OPEN: 30}}


DATED = {**EQUITY, "as_of": {"field": "seen", "current_s": 60}}
HUNG = NOW - 200_000


async def test_an_account_whose_terminal_hangs_has_no_value_of_now(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 1}, equity=1, seen=HUNG)
    sampled(server, "A2", {T0: 10}, equity=30, seen=NOW - 60_000)
    assert await ask(DATED, by="account") == {"account=A1": {T0: 1}, "account=A2": {T0: 10, OPEN: 30}}
    told = "account_state:{id}: 1 not written for 60s, the longest for 3min; there is no value of now"
    assert (ask.remarks, ask.frame.partial) == ([told], False)


async def test_the_answer_says_when_the_oldest_state_behind_each_series_was_written(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 1}, equity=1, seen=HUNG)
    sampled(server, "A2", {T0: 10}, equity=30, seen=NOW - 28_000)
    sampled(server, "A3", {T0: 10}, equity=30)
    await ask(DATED, by="account")
    assert ask.frame.written_ms == {(("account", "A1"),): HUNG, (("account", "A2"),): NOW - 28_000}
    await ask(DATED)
    assert ask.frame.written_ms == {(): HUNG}
    await ask(DATED, now_ms=0, to_ms=OPEN)
    assert ask.frame.written_ms == {}


@pytest.mark.parametrize("said", [{}, {"seen": ""}])
async def test_an_account_that_does_not_say_when_it_was_written_is_shown_and_marked(
    server: RedisServer, ask: Asker, said: dict[str, str]
) -> None:
    sampled(server, "A3", {T0: 100}, equity=300, **said)
    assert await ask(DATED, by="account") == {"account=A3": {T0: 100, OPEN: 300}}
    told = "account_state:{id}: 1 do not say when they were written (seen); taken for now"
    assert (ask.remarks, ask.frame.partial) == ([told], True)


async def test_an_account_whose_state_is_gone_is_missing_from_the_figures(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {}, equity=1, seen=NOW)
    server.client.sadd("account_state:index", "A2")
    assert await ask(DATED) == {"": {OPEN: 1}}
    told = "account_state:index: 1 of its ids have no account_state:{id}; their figures are missing"
    assert (ask.remarks, ask.frame.partial) == ([told], True)


async def test_without_samples_too_a_hung_terminal_shows_nothing_of_now(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {}, equity=1, seen=HUNG)
    sampled(server, "A2", {}, equity=30, seen=NOW)
    assert await ask({**DATED, "history": None}, by="account") == {"account=A2": {OPEN: 30}}


async def test_a_figure_that_holds_a_hung_terminals_last_value_is_partial(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {}, equity=1, seen=HUNG)
    sampled(server, "A2", {}, equity=30, seen=NOW)
    assert await ask(DATED) == {"": {OPEN: 31}}
    told = "account_state:{id}: 1 not written for 60s, the longest for 3min; figures of now hold their last values"
    assert (ask.remarks, ask.frame.partial) == ([told], True)


async def test_closed_buckets_need_nobody_to_write_now(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 1}, equity=1, seen=HUNG)
    assert (await ask(DATED, now_ms=0, to_ms=OPEN), ask.remarks) == ({"": {T0: 1}}, [])


async def test_a_ratio_is_of_the_sums_in_each_bucket(server: RedisServer, ask: Asker) -> None:
    for name, equity, margin in (("A1", 100, 100), ("A2", 900, 300)):
        sampled(server, name, {T0: equity, T0 + STEP: equity}, equity=equity, margin=margin)
        sampled(server, name, {T0: margin, T0 + STEP: 0}, field="margin")
    level = {**EQUITY, "field": None, "ratio": {"plus": ["equity"], "over": "margin", "scale": 100}, "aggregate": "ratio"}
    assert await ask(level) == {"": {T0: 250, T0 + STEP: None, OPEN: 250}}


async def test_a_clock_that_runs_ahead_does_not_hide_the_present(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {NOW + 2000: 4}, equity=5)
    assert await ask(EQUITY) == {"": {OPEN: 5}}


async def test_the_highest_and_the_mean_count_every_sample(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 1, T0 + 10_000: 5, T0 + 20_000: 3}, equity=7)
    assert await ask({**EQUITY, "over_time": "max"}) == {"": {T0: 5, OPEN: 7}}
    assert await ask({**EQUITY, "over_time": "avg"}) == {"": {T0: 3, OPEN: 7}}


async def test_a_rate_survives_a_restart_of_the_counter(server: RedisServer, ask: Asker) -> None:
    # 6 in the minute before the restart, then from 0 to 3, and 30 more until now
    samples = {T0 - 10_000: 100, T0 + 20_000: 104, T0 + 50_000: 106, T0 + 80_000: 1, T0 + 110_000: 3}
    sampled(server, "A1", samples, equity=33)
    assert await ask(FAILURES) == {"": {T0: 6 / 60, T0 + STEP: 3 / 60, OPEN: 30 / 100}}
    assert await ask({**FAILURES, "over_time": "increase"}) == {"": {T0: 6, T0 + STEP: 3, OPEN: 30}}


async def test_rates_of_several_counters_are_added(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 0, T0 + 30_000: 30}, equity=30)
    sampled(server, "A2", {T0: 5, T0 + 30_000: 65}, equity=65)
    assert (await ask(FAILURES, by="broker"))["broker=B"][T0] == 3


async def test_a_first_sample_has_no_rate(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0 + 30_000: 7})
    assert await ask(FAILURES) == {}


async def test_members_that_are_no_sample_are_left_out_with_one_remark(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 1, T0 + STEP: "broken"}, equity=2)
    server.client.zadd("hist:equity:A1", {"neither": T0 + 2 * STEP})
    sampled(server, "A2", {T0: 10}, equity=20)
    assert await ask(EQUITY, by="account") == {"account=A1": {T0: 1, OPEN: 2}, "account=A2": {T0: 10, OPEN: 20}}
    assert ask.remarks == ["hist:{field}:{id}: equity does not parse 2 times; shown as null"]


async def test_the_history_of_a_deleted_hash_is_not_shown(server: RedisServer, ask: Asker) -> None:
    sampled(server, "A1", {T0: 1}, equity=2)
    server.client.delete("account_state:A1")
    assert await ask(EQUITY) == {}


@pytest.mark.parametrize("step_ms", [10_000, 30_000, 60_000])
async def test_every_sample_is_in_the_bucket_of_its_own_time(server: RedisServer, ask: Asker, step_ms: int) -> None:
    samples = {at_ms: index for index, at_ms in enumerate(range(T0, OPEN, 10_000))}
    sampled(server, "A1", samples, equity=99)
    expected = {at_ms // step_ms * step_ms: value for at_ms, value in samples.items()}
    assert await ask(EQUITY, now_ms=0, to_ms=OPEN, step_ms=step_ms) == {"": expected}
