"""Reads of many keys: in rounds and slices of bounded size, with the figures of a plain loop, and given up cleanly."""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import SourceCrashed, SourceOverloaded
from app.model import Frame, Matcher
from app.sources.redis import columns, rounds, tables
from app.sources.redis.aggregation import Aggregation, Rows, aggregate_rows
from app.sources.redis.connections import Command, RedisConnections, Reply
from app.sources.redis.history import read_samples
from app.sources.redis.parse import numbers, samples
from app.sources.redis.server import ServerLink
from app.sources.redis.source import RedisConfig, RedisSource
from tests.frames import shown
from tests.servers.redis import RedisServer
from tests.sources.redis.asking import NOW, OPEN, STEP, T0, Asker, statement, where
from tests.sources.redis.conftest import divide_finely

EQUITY = {
    "index": "account_state:index",
    "hash": "account_state:{id}",
    "labels": {"account": "$id", "broker": "broker_id"},
    "field": "equity",
    "same": "currency",
    "as_of": {"field": "seen", "current_s": 60},
}
HISTORY = {"history": "hist:{field}:{id}"}
LEVEL = {**EQUITY, **HISTORY, "field": None, "ratio": {"plus": ["equity"], "over": "margin"}, "aggregate": "ratio"}
RESULTS = {"read": "events", "stream": "results", "match": {"event": ["fill"]}, "field": "ms", "labels": {"symbol": "symbol"}}
ACCOUNTS = 60
Answers = dict[str, dict[int, float | None]]


# A desk as it comes: some hashes are gone, some terminals hang, some fields are empty or no numbers.


def filled_desk(server: RedisServer, seed: int) -> dict[str, dict[str, Any]]:
    """Write a desk. Returns what was written for each account that has a hash."""
    chance, desk = random.Random(seed), {}
    for number in range(ACCOUNTS):
        name = f"A{number:03d}"
        server.client.sadd("account_state:index", name)
        if number % 17 == 3:
            continue
        fields = {
            "broker_id": chance.choice(["B1", "B2", ""]),
            "currency": "EUR" if number == 40 else "USD",
            "equity": chance.choice([f"{chance.uniform(-1e3, 1e5):.4f}", "7", "", "none"]),
            "margin": f"{chance.uniform(0, 1e3):.15g}",
            "seen": chance.choice([NOW - 1000, NOW - 500_000]),
        }
        server.client.hset(f"account_state:{name}", mapping=fields)
        desk[name] = {
            **fields,
            "samples": {field: _filled_samples(server, name, field, chance) for field in ("equity", "margin")},
        }
    return desk


def _filled_samples(server: RedisServer, name: str, field: str, chance: random.Random) -> dict[int, str]:
    times = sorted(chance.sample(range(T0 - STEP, OPEN, 1000), chance.choice([0, 3, 40])))
    known = {
        at_ms: chance.choice([f"{chance.gauss(0, 1e5):.15g}", f"{chance.gauss(0, 1e9)!r}", "12", "1e-7", ""]) for at_ms in times
    }
    if known:
        server.client.zadd(f"hist:{field}:{name}", {f"{at_ms}:{value}": at_ms for at_ms, value in known.items()})
    return known


def number_of(text: str) -> float:
    """A field as a number, NaN for none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def summed_slowly(desk: dict[str, dict[str, Any]], by: str, broker: str | None) -> dict[str, dict[int, float]]:
    """The sum of the last samples in each bucket, one account after another, in plain Python."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, account in desk.items():
        if broker is None or account["broker_id"] == broker:
            label = {"account": f"account={name}", "broker": f"broker={account['broker_id']}", "": ""}[by]
            groups[label].append(account)
    return {label: cells for label, accounts in groups.items() if (cells := summed_group(accounts))}


def summed_group(accounts: list[dict[str, Any]]) -> dict[int, float]:
    """One label set. What hangs has no value of now where nothing else has one; several currencies are not added up."""
    hung = all(account["seen"] < NOW - 60_000 for account in accounts)
    total: dict[int, float] = defaultdict(float)
    for account in accounts:
        last = {at_ms // STEP * STEP: number_of(value) for at_ms, value in account["samples"]["equity"].items() if value}
        if not hung and not math.isnan(now := number_of(account["equity"])):
            last[OPEN] = now
        for bucket in last.keys() - {T0 - STEP}:
            total[bucket] += last[bucket]
    differs = len({account["currency"] for account in accounts}) > 1
    return dict.fromkeys(total, math.nan) if differs else dict(total)


def courses(frame: Frame) -> dict[str, dict[int, float]]:
    """The frame by label and time, NaN for null."""
    return {label: {at: math.nan if one is None else one for at, one in course.items()} for label, course in shown(frame).items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fine", [False, True])
async def test_the_figures_are_those_of_a_plain_loop(
    server: RedisServer, ask: Asker, seed: int, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = filled_desk(server, seed)
    if fine:
        divide_finely(monkeypatch)
    for by, broker in (("account", None), ("broker", None), ("", "B1"), ("account", "B2")):
        filters = () if broker is None else (where("broker", "=", broker),)
        await ask({**EQUITY, **HISTORY}, by, filters)
        found, expected = courses(ask.frame), summed_slowly(desk, by, broker)
        assert found.keys() == expected.keys()
        for label, course in expected.items():
            assert found[label] == pytest.approx(course, rel=1e-12, abs=1e-6, nan_ok=True), (by, broker, label)


QUESTIONS: list[tuple[dict[str, Any], str, tuple[Matcher, ...]]] = [
    (EQUITY, "account", ()),
    ({**EQUITY, "aggregate": "avg"}, "broker", (where("broker", "=~", "B.*"),)),
    ({**EQUITY, **HISTORY}, "", (where("account", "!=", "A007"),)),
    ({**EQUITY, **HISTORY, "over_time": "avg"}, "account", (where("broker", "!=", "B1"),)),
    ({**EQUITY, **HISTORY, "over_time": "increase", "aggregate": "quantile"}, "broker", ()),
    (LEVEL, "broker", ()),
]


@pytest.mark.parametrize("place", range(len(QUESTIONS)))
async def test_an_answer_is_the_same_to_the_last_mark_in_one_round_and_in_many(
    server: RedisServer, source: RedisSource, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_desk(server, 7)
    asked = statement(*QUESTIONS[place])
    whole = await source.fetch(asked)
    divide_finely(monkeypatch)
    assert described(await source.fetch(asked)) == described(whole)
    assert len(whole) > 0


def described(frame: Frame) -> tuple[Any, ...]:
    """Everything that a source says in a frame."""
    marks = (frame.notices, frame.partial, frame.covers_from_ms, dict(frame.written_ms), frame.weight.tolist())
    return (shown(frame), *marks)


# Rounds


def connections_of(source: RedisSource) -> RedisConnections:
    link = source._link  # noqa: SLF001  what leaves is what is tested
    assert isinstance(link, ServerLink)
    return link._connections  # noqa: SLF001  as above


class Spy:
    """The pipelines of a source; `before` is called ahead of each of them."""

    def __init__(self, source: RedisSource, patch: pytest.MonkeyPatch, before: Callable[[int], None] = lambda _: None) -> None:
        self.sizes: list[int] = []
        connections = connections_of(source)
        ask = connections.ask

        async def counted(commands: Sequence[Command], missing: tuple[str, ...] = ()) -> list[Reply]:
            before(len(self.sizes))
            self.sizes += [len(commands)] if commands else []
            return await ask(commands, missing)

        patch.setattr(connections, "ask", counted)


async def test_a_read_that_fits_is_the_index_and_one_pipeline(
    server: RedisServer, source: RedisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_desk(server, 1)
    spy = Spy(source, monkeypatch)
    await source.fetch(statement({**EQUITY, **HISTORY}, "account"))
    assert spy.sizes == [1, 2 * ACCOUNTS]


async def test_a_large_read_has_no_large_pipeline_and_asks_for_the_samples_that_it_needs(
    server: RedisServer, source: RedisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = filled_desk(server, 1)
    monkeypatch.setattr(rounds, "ROUND_CELLS", 200)
    spy = Spy(source, monkeypatch)
    await source.fetch(statement({**EQUITY, **HISTORY}, "account", (where("broker", "=", "B1"),)))
    wanted = sum(account["broker_id"] == "B1" for account in desk.values())
    assert sum(spy.sizes) == 1 + ACCOUNTS + wanted
    assert max(spy.sizes) <= 200 // rounds.COMMAND_CELLS


async def test_no_more_members_are_read_than_allowed_however_the_rounds_are_cut(server: RedisServer) -> None:
    source = RedisConfig(port=server.port, max_members=25).build("rts")
    server.client.zadd("trades", {f"T{number:03d}": number for number in range(40)})
    for number in range(40):
        server.client.hset(f"trade:T{number:03d}", mapping={"v": number})
    asker = Asker(source)
    with pytest.MonkeyPatch.context() as patch:
        divide_finely(patch)
        found = await asker({"index": "trades", "hash": "trade:{id}", "field": "v", "labels": {"trade": "$id"}}, by="trade")
    await source.close()
    assert found == {f"trade=T{number:03d}": {OPEN: number} for number in range(15, 40)}
    assert asker.remarks == ["trades: more than 25 found; only the newest 25 are shown (max_members)"]


async def test_samples_that_are_too_many_to_be_shown_are_not_read_to_their_end(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_desk(server, 1)
    source = RedisConfig(port=server.port, max_rows=20).build("rts")
    divide_finely(monkeypatch)
    spy = Spy(source, monkeypatch)
    with pytest.raises(SourceOverloaded, match=r"^rts: more than 20 rows \(max_rows\)$"):
        await source.fetch(statement({**EQUITY, **HISTORY}, "account"))
    assert sum(spy.sizes) < 1 + ACCOUNTS + ACCOUNTS // 2
    assert len(await source.fetch(statement({**EQUITY, **HISTORY}))) == 4
    await source.close()


def filled_stream(server: RedisServer, entries: int) -> None:
    """Entries of several forms, some of the same millisecond."""
    for number in range(entries):
        fields = {"event": "fill" if number % 3 else "reject", "symbol": f"S{number % 4}", "ms": number}
        if number % 5 == 0:
            fields = {"more": "x", **dict(reversed(fields.items()))}
        server.client.xadd("results", fields, id=f"{T0 + number // 2 * 1000}-{number}")


async def test_entries_of_a_stream_are_those_of_a_plain_loop(
    server: RedisServer, ask: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_stream(server, 50)
    expected: Answers = defaultdict(dict)
    for number in range(50):
        if number % 3:
            course, bucket = expected[f"symbol=S{number % 4}"], (T0 + number // 2 * 1000) // STEP * STEP
            course[bucket] = (course.get(bucket) or 0) + number
    assert await ask(RESULTS, by="symbol") == expected
    divide_finely(monkeypatch)
    assert await ask(RESULTS, by="symbol") == expected


async def test_entries_that_are_trimmed_between_two_rounds_are_not_taken_for_none(
    server: RedisServer, source: RedisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_stream(server, 50)
    divide_finely(monkeypatch)
    monkeypatch.setattr("app.sources.redis.events._ROUND_ENTRIES", 10)
    Spy(source, monkeypatch, lambda sent: server.client.xtrim("results", maxlen=20, approximate=False) if sent == 2 else None)
    frame = await source.fetch(statement({**RESULTS, "aggregate": "count"}))
    assert frame.covers_from_ms == T0 + 15 * 1000 + 1
    assert frame.value.sum() == sum(number % 3 > 0 for number in range(32, 50))


async def test_a_stream_that_is_too_long_ends_at_the_limit_in_many_rounds_as_in_one(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_stream(server, 50)
    source = RedisConfig(port=server.port, max_rows=20).build("rts")
    asked = statement({**RESULTS, "aggregate": "count"})
    whole = await source.fetch(asked)
    divide_finely(monkeypatch)
    assert described(await source.fetch(asked)) == described(whole)
    assert whole.covers_from_ms == T0 + 15 * 1000 + 1
    await source.close()


# Slices


async def most_in_one_turn(read: Callable[[], Awaitable[object]], patch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many values the read handles at most while no other task has its turn, and in all."""
    turn, handled = 0, defaultdict[int, int](int)

    async def tick() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def counting(work: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            handled[turn] += size(*given)
            return work(*given)

        return counted

    patch.setattr(columns, "numbers", counting(numbers, len))
    patch.setattr(tables, "read_samples", counting(read_samples, lambda _, lists: sum(map(len, lists))))
    ticking = asyncio.create_task(tick())
    await read()
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    return max(handled.values()), sum(handled.values())


@pytest.mark.parametrize("length", [20, 2000])
async def test_other_tasks_have_their_turn_after_a_bounded_number_of_values(
    server: RedisServer, source: RedisSource, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    times = range(OPEN - length * 10, OPEN, 10)
    for name in [f"A{number}" for number in range(4000 // length)]:
        server.client.sadd("account_state:index", name)
        server.client.hset(f"account_state:{name}", mapping={"equity": 1, "seen": NOW})
        server.client.zadd(f"hist:equity:{name}", {f"{at_ms}:1.5": at_ms for at_ms in times})
    for module in (rounds, tables):
        monkeypatch.setattr(module, "SLICE_CELLS", 500)
    asked = statement({**EQUITY, **HISTORY}, "account", step_ms=10, from_ms=OPEN - 60_000)
    most, total = await most_in_one_turn(lambda: source.fetch(asked), monkeypatch)
    assert total == 4000 + 4000 // length
    assert most <= 2 * 500


# Giving up


async def test_a_read_given_up_between_two_rounds_leaves_no_connection_with_a_reply_to_come(own_server: RedisServer) -> None:
    source = RedisConfig(port=own_server.port, pool_size=1).build("rts")
    desk = filled_desk(own_server, 1)
    with pytest.MonkeyPatch.context() as patch:
        divide_finely(patch)
        spy = Spy(source, patch, lambda sent: own_server.pause() if sent == 3 else None)
        reading = asyncio.create_task(source.fetch(statement(EQUITY, "account")))
        while len(spy.sizes) < 4:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    own_server.resume()
    every = connections_of(source)._all  # noqa: SLF001  that it is closed is what is tested
    assert [connection.is_connected for connection in every] == [False]
    assert shown(await source.fetch(statement({**EQUITY, "value": "count", "field": None, "same": None}))) == {
        "": {OPEN: len(desk)}
    }
    await source.close()


async def test_a_round_on_its_way_is_given_up_where_the_one_before_it_cannot_be_handled(
    server: RedisServer, source: RedisSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled_desk(server, 1)
    with monkeypatch.context() as patch:
        divide_finely(patch)
        spy = Spy(source, patch)
        patch.setattr(columns, "numbers", lambda _: len(7))  # type: ignore[arg-type]
        with pytest.raises(SourceCrashed):
            await source.fetch(statement(EQUITY, "account"))
    await asyncio.sleep(0.05)
    every = connections_of(source)._all  # noqa: SLF001  that it is closed is what is tested
    assert (len(spy.sizes), any(connection.is_connected for connection in every)) == (3, False)
    assert "never retrieved" not in caplog.text
    assert len(await source.fetch(statement(EQUITY, "account"))) > 0


# Figures


_MEMBER = st.one_of(
    st.builds(lambda at, value: f"{at}:{value!r}", st.integers(10**12, 10**13), st.floats(allow_nan=True, width=64)),
    st.builds(
        lambda at, value: f"{at}:{value}", st.integers(-5, 10**14), st.sampled_from(["", "1", "-0", "1_0", "01", ".5", "+2"])
    ),
    st.text('1:-,.e n"ua[]{}', max_size=8),
)


@example([["1700000000000:1:2", "3"]])
@example([["1700000000000:true"], ['1700000000000:"5"', "1700000000000:null", "1700000000000:[1]"]])
@example([["1700000000000:1,-1700000000000", "5"]])
@given(st.lists(st.lists(_MEMBER, max_size=5), max_size=4))
def test_samples_are_read_as_each_member_by_itself(lists: list[list[str]]) -> None:
    expected, bad = [], 0
    for member in (member for members in lists for member in members):
        time, _, value = member.rpartition(":")
        if "_" in time or not math.isfinite(at_ms := number_of(time)):
            bad += 1
            continue
        known = number_of(value) if "_" not in value else math.nan
        bad += bool(value) and not math.isfinite(known)
        expected.append((int(at_ms), known if math.isfinite(known) else None))
    times, values, found_bad = samples([[member.encode() for member in members] for members in lists])
    found = [(at, None if math.isnan(value) else value) for at, value in zip(times.tolist(), values.tolist(), strict=True)]
    assert (found, found_bad) == (expected, bad)


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-1e6, 1e6) | st.just(math.nan)), min_size=1, max_size=40), st.floats(0, 1))
def test_a_quantile_is_numpys_to_the_last_digit(found: list[tuple[int, float]], share: float) -> None:
    place, value = np.array([one for one, _ in found], dtype=np.intp), np.array([one for _, one in found])
    rows = Rows(np.zeros(len(found), dtype=np.int64), place, value, np.ones(len(found)))
    rule = Aggregation("quantile", share, lambda buckets: np.ones(len(buckets)))
    frame = aggregate_rows(rows, [(("place", str(number)),) for number in range(3)], rule)
    known = {number: value[(place == number) & ~np.isnan(value)] for number in sorted(set(place.tolist()))}
    expected = [float(np.quantile(values, share)) if len(values) else None for values in known.values()]
    assert [None if math.isnan(one) else one for one in frame.value.tolist()] == expected
