"""A bridge over scripted sources: the contracts alone are tested here, so the sources are told what to answer."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
from fastapi import FastAPI

from app.catalog import load
from app.config import Settings, settings_from
from app.errors import BridgeError
from app.main import Service, build_operations, compose_service
from app.model import Frame, Notice, Statement
from tests.frames import frame

NOW = 1_700_000_005_500
MINUTE = 60_000
OPEN = NOW // MINUTE * MINUTE
KINDS = {"rts": "redis", "clickhouse": "clickhouse", "prometheus": "prometheus", "duckdb": "duckdb"}

TEXT = """
group: trading
title: Trading
labels:
  account: {title: Account, metric: equity}
  broker: {title: Broker, metric: equity}
  state: {title: State, values: [running, stopped]}
metrics:
  equity:
    title: Equity
    description: What an account is worth
    unit: currencyUSD
    aggregate: sum
    over_time: last
    resolution_s: 10
    labels: [account, broker]
    aliases: [old_equity]
    history: {source: duckdb, sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"}
    live: {source: rts, read: hashes, index: i, hash: "h:{id}", field: f, aggregate: sum, labels: {account: $id}}
    export: {name: tds_account_equity, by: [account]}
  pnl:
    title: Realised P&L
    description: Earned in each bucket
    unit: currencyUSD
    aggregate: sum
    over_time: sum
    labels: [account]
    history: {source: clickhouse, sql: "SELECT {from_ms:Int64} AS time, {by}, 1 AS value WHERE true {where}"}
    fallback: [{source: duckdb, sql: "SELECT $from_ms AS time, {by}, 2 AS value WHERE true {where}"}]
  cpu_load:
    title: CPU load
    description: Load
    unit: percent
    aggregate: avg
    over_time: last
    labels: []
    history: {source: prometheus, query: "avg by ({by}) (cpu{where})"}
events:
  deploys:
    title: Deploys
    description: What went live
    labels: [broker]
    read: {source: clickhouse, sql: "SELECT {from_ms:Int64} AS time, 'x' AS title WHERE true {where}"}
"""

#: for tests in which nothing is about time: a busy machine must not make an answer late
UNHURRIED = dict.fromkeys(("attempt_timeout_s", "total_timeout_s", "patience_s"), 20)

Answer = Frame | BridgeError | Callable[[Statement], Awaitable[Frame]]


@dataclass
class Scripted:
    """A source that gives what it is told to, and remembers what it was asked."""

    name: str
    answer: Answer = field(default_factory=Frame)
    asked: list[Statement] = field(default_factory=list)
    cancelled: int = 0
    skew_s: float | None = None
    warning: str | None = None

    async def open(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""

    async def reconnect(self) -> None:
        """Nothing."""

    async def ping(self) -> str:
        """Its name, or its failure."""
        if isinstance(self.answer, BridgeError):
            raise self.answer
        return f"scripted {self.name}"

    async def fetch(self, statement: Statement) -> Frame:
        """The scripted answer."""
        self.asked.append(statement)
        await asyncio.sleep(0)
        try:
            if isinstance(self.answer, BridgeError):
                raise self.answer
            return self.answer if isinstance(self.answer, Frame) else await self.answer(statement)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def hang(_: Statement) -> Frame:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


@dataclass
class Bench:
    """The service, its scripted sources, and a client for its application."""

    service: Service
    sources: dict[str, Scripted]
    client: httpx.AsyncClient

    @property
    def app(self) -> FastAPI:
        """The application."""
        return self.service.app

    def say(self, **answers: Answer) -> None:
        """Tell sources what to answer from now on."""
        for name, answer in answers.items():
            self.sources[name].answer = answer

    def askings(self) -> Counter[str]:
        """How often each source was asked."""
        return Counter({name: len(source.asked) for name, source in self.sources.items() if source.asked})


def settings(auth: Mapping[str, object] | None = None, **http: object) -> Settings:
    """Settings whose sources never connect; nothing is cached, and nobody needs a key unless `auth` says so."""
    addresses: dict[str, dict[str, str]] = {"prometheus": {"url": "http://127.0.0.1:1"}, "duckdb": {"snapshots": "nowhere"}}
    sources = {
        name: {
            "connect": {"kind": kind, **addresses.get(kind, {})},
            "policy": {"fresh_s": 0, "stale_s": 0, "failures": 100, "attempt_timeout_s": 2, "total_timeout_s": 2},
        }
        for name, kind in KINDS.items()
    }
    values = {"sources": sources, "http": http, "request": {"budget_s": 2.5}, "agent": {"port": None}, "auth": auth or {}}
    return settings_from(values, "test")


def bench(text: str = TEXT, fresh_s: float = 0, auth: Mapping[str, object] | None = None, **http: object) -> Bench:
    """An application whose clock stands at NOW."""
    chosen = settings(auth, **http)
    if fresh_s:
        policies = {
            name: source.model_copy(update={"policy": source.policy.model_copy(update={"fresh_s": fresh_s})})
            for name, source in chosen.sources.items()
        }
        chosen = chosen.model_copy(update={"sources": policies})
    sources = {name: Scripted(name) for name in KINDS}
    operations = build_operations(chosen, load({"catalogue.yaml": text}, KINDS), sources, lambda: NOW)
    service = compose_service(chosen, operations)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(service.app, raise_app_exceptions=False), base_url="http://bridge")
    made = Bench(service, sources, client)
    made.say(rts=LIVE, duckdb=HISTORY, clickhouse=PNL, prometheus=CPU)
    return made


HISTORY = frame({"account=A1": {OPEN - 2 * MINUTE: 1, OPEN - MINUTE: 2}, "account=A2": {OPEN - MINUTE: None}})
LIVE = frame({"account=A1": {OPEN: 3}, "account=A2": {OPEN: 30}})
PNL = frame({"account=A1": {OPEN - MINUTE: -1.5}})
CPU = frame({"": {OPEN - MINUTE: 12.5, OPEN: 13}})
EVENTS = Frame(
    time=HISTORY.time[:2],
    value=HISTORY.value[:2],
    series=((),),
    offsets=(0, 2),
    text={"title": ("Deploy", "Rollback"), "text": ("v42", None), "tags": ("a,b", None), "time_end": (str(OPEN), None)},
)
EMPTY = Frame()
WARNED = EMPTY.remark(Notice("warning", "half of it"))


def without_ages(body: bytes) -> Any:
    """An answer but for what tells how long it took, how old it is and when a source is tried next (by the real clock)."""
    return orjson.loads(re.sub(rb"next try in \d+s", b"", re.sub(rb'"(age_s|ms)":[0-9.e-]+', b'"":0', body)))
