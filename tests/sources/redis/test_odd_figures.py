"""Figures that cannot be: what is unreadable or missing, what is divided by nothing, what must not be added up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.servers.redis import RedisServer
from tests.sources.redis.asking import NOW, OPEN, T0, Asker, problems_of, where

pytestmark = pytest.mark.usefixtures("rounds")

ACCOUNTS = {"index": "account_state:index", "hash": "account_state:{id}", "labels": {"account": "$id", "broker": "broker_id"}}
EQUITY = {**ACCOUNTS, "field": "equity"}
SAMPLED = {**EQUITY, "history": "hist:{field}:{id}"}
LEVEL = {**ACCOUNTS, "ratio": {"plus": ["equity"], "over": "margin", "scale": 100}, "aggregate": "ratio"}
DRAWDOWN = {
    **ACCOUNTS,
    "ratio": {"plus": ["peak"], "minus": ["equity"], "over": "peak", "scale": 100, "least": 0},
    "aggregate": "max",
}
PNL = {
    "read": "events",
    "stream": "results",
    "ratio": {"plus": ["pnl", "swap"], "minus": ["fees"]},
    "labels": {"account": "account_id"},
}


def accounts(server: RedisServer, **hashes: dict[str, Any]) -> None:
    for name, fields in hashes.items():
        server.client.hset(f"account_state:{name}", mapping=fields)
        server.client.sadd("account_state:index", name)


def close(server: RedisServer, at_ms: int, **fields: Any) -> None:
    server.client.xadd("results", fields, id=f"{at_ms}-*")


# --- what cannot be read


@pytest.mark.parametrize("written", ["1,234.50", "1_234", "0x10", "1e400", "nan", "inf", "n/a"])
async def test_a_figure_that_cannot_be_read_is_named_and_taken_by_no_alert_also_where_it_is_alone(
    server: RedisServer, ask: Asker, written: str
) -> None:
    accounts(server, A1={"equity": written}, A2={"equity": 30})
    assert await ask(EQUITY, by="account") == {"account=A1": {OPEN: None}, "account=A2": {OPEN: 30}}
    assert (ask.remarks, ask.frame.partial) == (["account_state:{id}: equity does not parse 1 times; shown as null"], True)


async def test_a_field_that_is_not_there_is_as_one_that_cannot_be_read(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"broker_id": "B"}, A2={"equity": 30, "broker_id": "B"})
    assert await ask(EQUITY, by="broker") == {"broker=B": {OPEN: 30}}
    assert (ask.remarks, ask.frame.partial) == (["account_state:{id}: equity is missing 1 times; shown as null"], True)


async def test_an_empty_field_is_its_writers_word_that_there_is_no_value(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": ""})
    assert await ask(EQUITY, by="account") == {"account=A1": {OPEN: None}}
    assert (ask.remarks, ask.frame.partial) == ([], False)


async def test_what_is_wrong_with_others_is_no_matter_of_an_answer_that_they_are_not_in(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": "broken"}, A2={"equity": 30})
    assert await ask(EQUITY, filters=(where("account", "!=", "A1"),)) == {"": {OPEN: 30}}
    assert await ask({**EQUITY, "labels": {"broker": "broker_id"}}, filters=(where("broker", "=", "B"),)) == {}
    assert (ask.remarks, ask.frame.partial) == ([], False)


async def test_closed_buckets_need_nothing_of_the_present(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": "broken"})
    server.client.zadd("hist:equity:A1", {f"{T0}:5": T0})
    assert await ask(SAMPLED, now_ms=0, to_ms=OPEN) == {"": {T0: 5}}
    assert ask.remarks == []


async def test_an_entry_without_one_of_its_amounts_is_not_added_up_in_silence(server: RedisServer, ask: Asker) -> None:
    close(server, T0, account_id="A1", pnl=10, swap=0, fees=1)
    close(server, T0, account_id="A1", pnl=10, swap=0)
    assert await ask(PNL) == {"": {T0: 9}}
    assert (ask.remarks, ask.frame.partial) == (["results: fees is missing 1 times; shown as null"], True)


# --- what is divided by nothing


@pytest.mark.parametrize("margin", ["0", "-3.5527136788005e-15", "3.5e-15", "0.00004", "-500", "-0.0"])
async def test_there_is_no_margin_level_where_no_margin_is_used(server: RedisServer, ask: Asker, margin: str) -> None:
    accounts(server, A1={"equity": 1000, "margin": margin}, A2={"equity": 500, "margin": 250})
    assert await ask(LEVEL, by="account") == {"account=A1": {OPEN: None}, "account=A2": {OPEN: 200}}
    assert await ask(LEVEL) == {"": {OPEN: 600}}


@pytest.mark.parametrize(("margin", "level"), [("0.0001", 1e9), ("1e-4", 1e9)])
async def test_the_smallest_amount_that_the_tables_keep_is_a_margin(
    server: RedisServer, ask: Asker, margin: str, level: float
) -> None:
    accounts(server, A1={"equity": 1000, "margin": margin})
    assert (await ask(LEVEL))[""][OPEN] == pytest.approx(level)


async def test_an_account_worth_nothing_without_margin_has_no_level_either(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 0, "margin": 1e-16})
    assert await ask(LEVEL) == {"": {OPEN: None}}


@pytest.mark.parametrize(
    ("peak", "equity", "drawdown"),
    [(-20, -100, None), (0, -5, None), (1e-15, -5, None), (200, 150, 25), (200, 250, 0), (200, -20, 110)],
)
async def test_a_drawdown_is_of_a_peak_above_nothing_and_never_negative(
    server: RedisServer, ask: Asker, peak: float, equity: float, drawdown: float | None
) -> None:
    accounts(server, A1={"equity": equity, "peak": peak})
    assert await ask(DRAWDOWN) == {"": {OPEN: drawdown}}


async def test_a_sampled_ratio_is_judged_alike(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 100, "margin": 1e-15})
    server.client.zadd("hist:equity:A1", {f"{T0}:100": T0})
    server.client.zadd("hist:margin:A1", {f"{T0}:-1e-14": T0})
    assert await ask({**LEVEL, "history": "hist:{field}:{id}"}) == {"": {T0: None, OPEN: None}}


# --- what must not be added up

SAME = {**SAMPLED, "same": "currency"}


async def test_amounts_in_different_currencies_are_not_added_up(server: RedisServer, ask: Asker) -> None:
    accounts(
        server,
        A1={"equity": 1, "broker_id": "B1", "currency": "EUR"},
        A2={"equity": 2, "broker_id": "B1", "currency": "USD"},
        A3={"equity": 4, "broker_id": "B2", "currency": "usd"},
    )
    server.client.zadd("hist:equity:A1", {f"{T0}:7": T0})
    assert await ask(SAME) == {"": {T0: None, OPEN: None}}
    told = "account_state:{id}: currency differs (EUR, USD): such figures are not added up; keep the labels that tell them apart"
    assert (ask.remarks, ask.frame.partial) == ([told], True)
    assert await ask(SAME, by="broker") == {"broker=B1": {T0: None, OPEN: None}, "broker=B2": {OPEN: 4}}


async def test_each_account_alone_has_its_figure_in_its_own_currency(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 1, "currency": "EUR"}, A2={"equity": 2, "currency": "USD"})
    assert await ask(SAME, by="account") == {"account=A1": {OPEN: 1}, "account=A2": {OPEN: 2}}
    assert await ask(SAME, filters=(where("account", "=", "A2"),)) == {"": {OPEN: 2}}
    assert (ask.remarks, ask.frame.partial) == ([], False)


async def test_closed_buckets_are_not_added_up_either(server: RedisServer, ask: Asker) -> None:
    for name, currency in (("A1", "EUR"), ("A2", "USC")):
        accounts(server, **{name: {"equity": 1, "currency": currency}})
        server.client.zadd(f"hist:equity:{name}", {f"{T0}:7": T0})
    assert await ask(SAME, now_ms=0, to_ms=OPEN) == {"": {T0: None}}
    assert ask.frame.partial


async def test_one_currency_however_written_and_some_that_do_not_say_are_added_up(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 1, "currency": "USD"}, A2={"equity": 2, "currency": "usd "}, A3={"equity": 4})
    assert await ask(SAME) == {"": {OPEN: 7}}
    assert ask.remarks == []


async def test_a_ratio_of_sums_in_different_currencies_is_none(server: RedisServer, ask: Asker) -> None:
    accounts(server, A1={"equity": 1, "margin": 1, "currency": "EUR"}, A2={"equity": 2, "margin": 1, "currency": "USD"})
    assert await ask({**LEVEL, "same": "currency"}) == {"": {OPEN: None}}
    assert ask.frame.partial


async def test_entries_in_different_currencies_are_not_added_up(server: RedisServer, ask: Asker) -> None:
    close(server, T0, account_id="A1", pnl=10, swap=0, fees=0, currency="EUR")
    close(server, NOW, account_id="A2", pnl=20, swap=0, fees=0, currency="USD")
    pnl = {**PNL, "same": "currency"}
    assert await ask(pnl) == {"": {T0: None, OPEN: None}}
    assert await ask(pnl, by="account") == {"account=A1": {T0: 10}, "account=A2": {OPEN: 20}}


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"value": "count", "same": "currency"}, "same"),
        ({"field": "equity", "aggregate": "count", "same": "currency"}, "same"),
        ({"ratio": {"plus": ["a"], "over": "b", "least": 0}, "aggregate": "ratio"}, "ratio.least"),
        ({"ratio": {"plus": ["a"], "least": 0}}, "ratio.least"),
    ],
)
def test_options_that_say_nothing_together_are_found(wrong: dict[str, Any], key: str) -> None:
    assert list(problems_of(**{"index": "i", "hash": "h:{id}", **wrong})) == [key]


# --- labels that are no text


async def test_two_ids_that_are_no_text_are_two_series_and_their_labels_can_be_sent_back(server: RedisServer, ask: Asker) -> None:
    for name, equity in ((b"K\xc0", 1), (b"K\xc1", 2), (rb"K\xc0", 4)):
        server.client.sadd("account_state:index", name)
        server.client.hset(b"account_state:" + name, mapping={b"equity": equity, b"broker_id": name})
    for label in ("account", "broker"):
        found = await ask(EQUITY, by=label)
        assert found == {rf"{label}=K\xc0": {OPEN: 1}, rf"{label}=K\xc1": {OPEN: 2}, rf"{label}=K\x5cxc0": {OPEN: 4}}
        for series, values in found.items():
            assert await ask(EQUITY, filters=(where(label, "=", series.partition("=")[2]),)) == {"": values}


async def test_an_entrys_fields_that_are_no_text_are_apart_too(server: RedisServer, ask: Asker) -> None:
    for name, pnl in ((b"K\xc0", 1), (b"K\xc1", 2)):
        server.client.xadd("results", {b"account_id": name, b"pnl": pnl, b"swap": 0, b"fees": 0}, id=f"{T0}-*")
    assert await ask(PNL, by="account") == {r"account=K\xc0": {T0: 1}, r"account=K\xc1": {T0: 2}}
