"""Reads of a Redis as large as the desk, against redis-py's own pipeline that asks the same commands and keeps the raw replies.

Both are measured alternately in this process, on uvloop as `bridge serve` runs it, the server being another process. The bridge's
side is the source's whole read: the index, all hashes or samples, filters, figures and the frame. The longest step is the longest
time for which one task of the read has kept the event loop, in processor time: other programs do not count.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop
from pydantic import TypeAdapter

from app.model import Matcher, Statement, TimeRange
from app.sources.base import Ask
from app.sources.redis.reads import KeyRead
from app.sources.redis.source import RedisConfig, RedisRead, RedisSource
from tests.bench.redis_store import ACCOUNTS, ENTRIES, HOUR_MS, SAMPLE_MS, TRADES, fill_redis
from tests.bench.report import Line
from tests.bench.steps import Steps
from tests.servers.redis import RedisServer

_TARGET = 1.3
_LONGEST_MS = 10.0
_READS: TypeAdapter[KeyRead] = TypeAdapter(RedisRead)

_ACCOUNT = {
    "source": "rts",
    "index": "account_state:index",
    "hash": "account_state:{id}",
    "as_of": {"field": "last_updated_at", "current_s": 3600},
    "same": "currency",
    "labels": {"account": "$id", "broker": "broker_id"},
}
_EQUITY = _ACCOUNT | {"field": "equity"}
_LEVEL = _ACCOUNT | {"ratio": {"plus": ["equity"], "over": "margin", "scale": 100}, "aggregate": "ratio"}
_SAMPLES = {"history": "hist:{field}:{id}"}
_OPEN = {
    "source": "rts",
    "index": "trade_state:open",
    "hash": "trade_state:{id}",
    "value": "count",
    "aggregate": "count",
    "labels": {"account": "account_id", "broker": "broker_id", "symbol": "symbol"},
}
_ZEROS = {"index": "account_state:index", "hash": "account_state:{id}", "labels": {"account": "$id", "broker": "broker_id"}}
_LATENCY = {
    "source": "rts",
    "read": "events",
    "stream": "trade_results",
    "match": {"event": ["execution"]},
    "field": "execution_latency_ms",
    "aggregate": "quantile",
    "labels": {"account": "account_id", "symbol": "symbol", "broker": "broker_id"},
}

#: a command for each id of an index; or, with no index, the one command
Commands = Callable[[str], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of read: what the bridge is asked, and redis-py's commands for the same."""

    entry: Mapping[str, Any]
    by: str
    index: str
    commands: Commands
    step_ms: int = HOUR_MS
    where: tuple[Matcher, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What each round took: seconds in all and of the processor, the bridge's and redis-py's; the bridge's longest step."""

    ours: list[tuple[float, float]] = field(default_factory=list)
    alone: list[tuple[float, float]] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)


def _kinds(now_ms: int) -> dict[str, _Kind]:
    state, samples = ("equity", "last_updated_at", "broker_id", "currency"), ("equity", "last_updated_at", "currency")

    def hashes(*fields: str) -> Commands:
        return lambda name: [("HMGET", f"account_state:{name}", *fields)]

    def sampled(*sampled_fields: str) -> Commands:
        since = now_ms - HOUR_MS
        return lambda name: [
            ("HMGET", f"account_state:{name}", *samples),
            *(("ZRANGEBYSCORE", f"hist:{one}:{name}", since, f"({now_ms}") for one in sampled_fields),
        ]

    def trades(*fields: str) -> Commands:
        return lambda name: [("HMGET", f"trade_state:{name}", *fields)]

    only = (Matcher("broker", "=~", ("broker-[1-5]",)),)
    entries = ("XREVRANGE", "trade_results", now_ms, now_ms - HOUR_MS, "COUNT", 200_001)
    accounts = "account_state:index"
    return {
        f"{ACCOUNTS} accounts, equity by account": _Kind(_EQUITY, "account", accounts, hashes(*state)),
        f"{ACCOUNTS} accounts, equity by broker, a filter": _Kind(_EQUITY, "broker", accounts, hashes(*state), where=only),
        f"{TRADES} open trades by account and broker": _Kind(
            _OPEN | {"zeros": _ZEROS}, "account broker", "trade_state:open", trades("account_id", "broker_id")
        ),
        f"{TRADES} open trades by symbol": _Kind(_OPEN, "symbol", "trade_state:open", trades("symbol")),
        "an hour of samples by account, step 10 s": _Kind(
            _EQUITY | _SAMPLES, "account", accounts, sampled("equity"), step_ms=SAMPLE_MS
        ),
        "an hour of samples, sum, step 60 s": _Kind(_EQUITY | _SAMPLES, "", accounts, sampled("equity"), step_ms=60_000),
        "an hour of samples of two fields by account": _Kind(
            _LEVEL | _SAMPLES, "account", accounts, sampled("equity", "margin"), step_ms=SAMPLE_MS
        ),
        f"{ENTRIES} entries of a stream by symbol": _Kind(_LATENCY, "symbol", "", lambda _: [entries], step_ms=60_000),
        f"{ENTRIES} entries of a stream by account": _Kind(_LATENCY, "account", "", lambda _: [entries], step_ms=60_000),
    }


def redis_size(rounds: int) -> list[Line]:
    """The lines of the report."""
    with tempfile.TemporaryDirectory() as name, RedisServer(Path(name)) as server:
        now_ms = fill_redis(server.client)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seen = runner.run(_measure(server.port, now_ms, rounds))
    return [line for name, found in seen.items() for line in _lines(name, found)]


async def _measure(port: int, now_ms: int, rounds: int) -> dict[str, _Seen]:
    steps, kinds = Steps(), _kinds(now_ms)
    steps.watch(asyncio.get_running_loop())
    source = RedisConfig(port=port, reply_timeout_s=30, max_rows=1_000_000).build("rts")
    alone: Any = redis.asyncio.Redis(port=port, protocol=2)
    alone.response_callbacks.clear()  # the raw replies
    seen = {name: _Seen() for name in kinds}
    for number in range(-1, rounds):  # the round before the first one opens the connections
        for name, kind in kinds.items():
            ways = [_ours(source, kind, now_ms), _alone(alone, kind)]
            took = {}
            gc.collect()
            gc.freeze()  # as `bridge serve` does
            for place in (0, 1) if number % 2 else (1, 0):
                steps.take_longest()
                took[place] = await _time(ways[place])
                if place == 0:
                    longest_s = steps.take_longest()
            if number >= 0:
                seen[name].ours.append(took[0])
                seen[name].alone.append(took[1])
                seen[name].longest.append(longest_s)
    await source.close()
    await alone.aclose()
    return seen


async def _time(way: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    begun = time.perf_counter(), time.process_time()

    async def work() -> object:
        return await way()

    kept = await asyncio.create_task(work())
    took = time.perf_counter() - begun[0], time.process_time() - begun[1]
    assert kept is not None
    return took


def _ours(source: RedisSource, kind: _Kind, now_ms: int) -> Callable[[], Awaitable[object]]:
    step_ms = kind.step_ms
    end_ms = (now_ms // step_ms + 1) * step_ms
    span = TimeRange(max(end_ms - HOUR_MS, 0), end_ms, step_ms)
    statement: Statement = _READS.validate_python(kind.entry).statement(
        Ask("metric", span, tuple(kind.by.split()), kind.where, now_ms // 1000 * 1000)
    )
    return lambda: source.fetch(statement)


def _alone(client: Any, kind: _Kind) -> Callable[[], Awaitable[object]]:
    async def ask() -> object:
        names = await client.zunion([kind.index]) if kind.index else [b""]
        pipe = client.pipeline(transaction=False)
        for name in names:
            for command in kind.commands(name.decode()):
                pipe.execute_command(*command)
        return await pipe.execute()

    return ask


def _lines(name: str, seen: _Seen) -> list[Line]:
    (ours, ours_cpu), (alone, alone_cpu) = (
        tuple(statistics.median(column) * 1000 for column in zip(*found, strict=True)) for found in (seen.ours, seen.alone)
    )
    longest_ms = max(seen.longest) * 1000
    usual_ms = statistics.median(seen.longest) * 1000
    return [
        Line(
            f"Redis: {name}, against redis-py's pipeline (raw replies)",
            f"{ours:.1f} ms, {ours_cpu:.1f} of the processor",
            f"{alone:.1f} ms, {alone_cpu:.1f} of the processor",
            f"x{ours / alone:.2f}, x{ours_cpu / alone_cpu:.2f}",
            f"<= x{_TARGET:g}",
            ours <= _TARGET * alone,
        ),
        Line(
            "... the longest step of the event loop",
            f"{longest_ms:.1f} ms",
            f"{usual_ms:.1f} ms usually",
            "",
            f"<= {_LONGEST_MS:g} ms",
            longest_ms <= _LONGEST_MS,
        ),
    ]
