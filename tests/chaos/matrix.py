"""The fault matrix as data: a bridge over real stores, a fault in front of one, and what must come of it.

Every cell goes the same way (`play`): a good answer; the fault; the same question again (an older answer is at hand), one never
asked before (none is), an alert rule's, and one for a healthy source, all at once; marks, times and metrics; the fault undone; a
fresh answer in time; the bridge closed and nothing left of it. Not in the tests, and why:

| cell                        | why                                                                                            |
|-----------------------------|------------------------------------------------------------------------------------------------|
| DuckDB: refused, reset      | n/a: it is in this process, there is no way to it that could fail                              |
| DuckDB: slow drip, DNS      | "-": the same; `black hole` is a statement that runs for hours                                 |
| DuckDB: failover            | "-": files have no replica                                                                     |
| DuckDB: auth error          | root may read every file, so an ACL cannot be tried here: a folder that is not to be seen is   |
| Redis: READONLY             | nothing is written, and a replica that serves reads is well; MASTERDOWN is tried               |
| Redis: MOVED, ASK           | are no faults of a cluster: tests/sources/redis/test_cluster.py follows them                   |
| Redis, ClickHouse: kind=dns | a name that does not resolve counts as source_unavailable, as refused does                     |
| Prometheus: gaps differ     | two replicas look like one to the bridge; which one haproxy took cannot be seen                |

Doubles: `ScriptedProxy.say`, a fixed HTTP answer in the store's place: ClickHouse 243 (a disk cannot be filled without mounting
one), Prometheus 401 (ours has no users), 422, 503, `status: error` and HTML (ours does not say them at will). And the bridge's
clock is moved, not the store's. Everything else is what real servers do. Wrong data of ClickHouse and DuckDB are real schemas.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from app.config import Settings, SourceSettings
from app.main import Service, build_service
from app.model import Clock
from app.policies import Policy
from app.sources.redis.source import RedisConfig
from app.sync import SyncSettings
from demo.stores import child, free_port
from tests.servers.faulty import Fault, FaultProxy
from tests.servers.world import Stores

Store = Literal["redis", "clickhouse", "duckdb", "prometheus"]
Status = Literal["fresh", "stale", "partial", "error"]

FRESH_S, PATIENCE_S, ATTEMPT_S, PROBE_S, DENIED_S = 0.25, 0.25, 0.5, 0.2, 0.6
POLICY: Mapping[str, float] = {
    "fresh_s": FRESH_S,
    "patience_s": PATIENCE_S,
    "attempt_timeout_s": ATTEMPT_S,
    "total_timeout_s": 0.7,
    "probe_s": PROBE_S,
    "denied_s": DENIED_S,
}
#: for the machine to be slow in; every upper bound has it on top
SLACK_S = 0.5
#: an answer that waits for nobody, a retry's back-off included
AT_ONCE_S = 0.15
#: haproxy's check has seen it by then (every 200 ms), and its turn-around before a second try is over (1 s)
FAILOVER_S = 2.0
RECOVERY_S = PROBE_S + 1.0
MINUTE_MS = 60_000

Params = Mapping[str, str]
#: How a source is reached: wholly other than the stores', or with these keys changed.
Reached = RedisConfig | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that only one source answers: its name, the metric, the labels by which it is asked before and during a fault,
    and those by which it is asked for the first time during it."""

    source: str
    metric: str
    known_by: str
    new_by: str
    window: Literal["past", "now"]


#: One question for each store; `now` is the open bucket alone (live only), `past` closed buckets alone (history only).
ASKED: Mapping[Store, Asked] = {
    "redis": Asked("rts", "equity", "account", "broker", "now"),
    "clickhouse": Asked("clickhouse", "open_trades", "account", "broker", "past"),
    "duckdb": Asked("duckdb", "equity", "account", "broker", "past"),
    "prometheus": Asked("prometheus", "signal_backlog", "group", "", "past"),
}
#: Minutes from the bridge's present one; it is five seconds old when a test begins.
_WINDOWS: Mapping[str, tuple[int, int]] = {"past": (-20, -10), "now": (0, 1), "both": (-10, 1)}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took. `status` is the Bridge-Result header's; an answer that is all error has none."""

    http: int
    status: str
    seconds: float
    body: Mapping[str, Any]
    headers: httpx.Headers

    @property
    def code(self) -> str:
        """The error's code, empty where it is none."""
        return str(self.body.get("error", {}).get("code", ""))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Time, labels, value."""
        return list(self.body.get("rows", []))

    @property
    def says(self) -> str:
        """Every remark, and the error's message, a line each."""
        metrics = self.body.get("meta", {}).get("metrics", {})
        notices = [notice["text"] for facts in metrics.values() for notice in facts["notices"]]
        return "\n".join([*notices, *([self.body["message"]] if "message" in self.body else [])])


class ScriptedProxy(FaultProxy):
    """A FaultProxy that can answer every HTTP question with a fixed answer, and be led to another port."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._script = b""

    async def say(self, status: str, text: str, kind: str = "text/plain", **headers: str) -> None:
        """From now on this answer to everything."""
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(text)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._script = "\r\n".join([*lines, "", text]).encode()
        await self.set("wrong_status")

    async def lead_to(self, port: int) -> None:
        """From now on to the store on this port."""
        self._target = port
        await self.set("none")

    async def set(self, fault: Fault) -> None:
        """A fault of the network's, or none."""
        self._script = self._script if fault == "wrong_status" else b""
        await super().set(fault)

    def _instead(self, question: bytes) -> bytes:
        return self._script or super()._instead(question)


@dataclass(slots=True)
class Bed:
    """One bridge over the stores, each network store behind a proxy of its own."""

    stores: Stores
    service: Service
    client: httpx.AsyncClient
    proxies: Mapping[str, ScriptedProxy]
    snapshots: Path

    async def ask(self, metric: str, window: str, by: str = "", path: str = "/v1/rows") -> Answer:
        """The metric over a window, a bucket a minute."""
        first, last = (self.stores.until_ms // MINUTE_MS * MINUTE_MS + minutes * MINUTE_MS for minutes in _WINDOWS[window])
        params = {"metric": metric, "step": "60s", "from": str(first), "to": str(last), **({"by": by} if by else {})}
        begun_s = time.perf_counter()
        reply = await self.client.get(path, params=params)
        seconds = time.perf_counter() - begun_s
        _, _, status = reply.headers.get("bridge-result", "").partition("status=")
        return Answer(reply.status_code, status.partition(";")[0] or "error", seconds, reply.json(), reply.headers)

    async def known(self, store: Store) -> Answer:
        """The store's own question."""
        asked = ASKED[store]
        return await self.ask(asked.metric, asked.window, asked.known_by)

    async def new(self, store: Store) -> Answer:
        """One that nobody has asked before."""
        asked = ASKED[store]
        return await self.ask(asked.metric, asked.window, asked.new_by)

    async def alert(self, store: Store) -> Answer:
        """The store's own question, as an alert rule asks it."""
        asked = ASKED[store]
        return await self.ask(asked.metric, asked.window, asked.known_by, "/alert/v1/rows")

    async def health(self, source: str) -> dict[str, Any]:
        """What /health/sources says of one source."""
        found: dict[str, Any] = (await self.client.get("/health/sources")).json()["sources"][source]
        return found

    def metric(self, name: str, **labels: str) -> float:
        """One sample of the bridge's own metrics; 0 where there is none yet."""
        return self.service.operations.telemetry.registry.get_sample_value(name, labels) or 0.0

    def errors(self, source: str) -> dict[str, float]:
        """bridge_source_errors_total of one source by kind."""
        registry = self.service.operations.telemetry.registry
        return {
            sample.labels["kind"]: sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "bridge_source_errors_total" and sample.labels["source"] == source
        }


def running_clock(stores: Stores) -> Clock:
    """A clock that begins where the world ends and runs: kept answers age."""
    begun_s = time.monotonic()
    return lambda: stores.until_ms + round((time.monotonic() - begun_s) * 1000)


def settings_of(
    stores: Stores, ports: Mapping[str, int], policy: Mapping[str, float], connect: Mapping[str, Reached]
) -> Settings:
    """The stores' settings with quick policies; `connect` says how single sources are reached, or what is other about it."""
    plain = stores.settings(**ports)
    sources = {
        name: SourceSettings(
            connect=found if isinstance(found, RedisConfig) else source.connect.model_copy(update=dict(found)),
            policy=Policy.model_validate({**POLICY, **policy}),
        )
        for name, source in plain.sources.items()
        for found in (connect.get(name, {}),)
    }
    return plain.model_copy(update={"sources": sources})


@asynccontextmanager
async def bed(
    stores: Stores,
    connect: Mapping[str, Reached] | None = None,
    targets: Mapping[str, int] | None = None,
    snapshots: Path | None = None,
    sync: SyncSettings | None = None,
    **policy: float,
) -> AsyncIterator[Bed]:
    """A bridge with its sources open; when it is closed again, no task, no connection and no thread of it may be left.

    `targets` leads a store's proxy elsewhere, `snapshots` is a folder of the test's own.
    """
    tasks, threads = asyncio.all_tasks(), thread_names()
    reached = {"redis": stores.redis.port, "clickhouse": stores.clickhouse.port, "prometheus": stores.prometheus_port}
    async with AsyncExitStack() as stack:
        proxies = {
            name: await stack.enter_async_context(ScriptedProxy(port)) for name, port in {**reached, **(targets or {})}.items()
        }
        ports = {name: proxy.port for name, proxy in proxies.items()}
        settings = settings_of(stores, ports, policy, {"duckdb": {"snapshots": snapshots or stores.snapshots}, **(connect or {})})
        service = build_service(settings.model_copy(update={"sync": sync or settings.sync}), running_clock(stores))
        async with (
            service.app.router.lifespan_context(service.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://bridge", timeout=30) as client,
        ):
            yield Bed(stores, service, client, proxies, snapshots or stores.snapshots)
        await until(lambda: not any(proxy.connections for proxy in proxies.values()), 1.0, "a connection is left at the proxies")
    await until(lambda: not asyncio.all_tasks() - tasks, 1.0, "a task is left of the bridge")
    await until(lambda: thread_names() <= threads, 1.0, "a thread is left of the bridge")


def thread_names() -> set[str]:
    """The threads that there are, but for those of the process: the event loop's own executor, and the one for long work."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith(("asyncio_", "long-work"))}


async def until(condition: Callable[[], bool], within_s: float, otherwise: str) -> float:
    """Wait until it is so; the seconds that it took. Fails when it takes longer than that."""
    begun_s = time.perf_counter()
    while not condition():
        assert time.perf_counter() - begun_s < within_s + SLACK_S, otherwise
        await asyncio.sleep(0.01)
    return time.perf_counter() - begun_s


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come back: status and, for an error, its HTTP status and code; when at the latest (earliest); what it says."""

    status: Status
    within_s: float = AT_ONCE_S
    http: int = 200
    code: str = ""
    least_s: float = 0.0
    says: tuple[str, ...] = ()


#: With an older answer at hand: it, marked, when the asking has failed; or when the asker's patience is at its end.
STALE = Expected("stale")
STALE_AFTER_PATIENCE = Expected("stale", PATIENCE_S, least_s=PATIENCE_S - 0.05, says=("a newer answer is being asked for",))
FRESH = Expected("fresh")


def failed(http: int, code: str, within_s: float = AT_ONCE_S, least_s: float = 0.0) -> Expected:
    """An error and nothing else."""
    return Expected("error", within_s, http, code, least_s)


UNAVAILABLE = failed(503, "source_unavailable")
TIMED_OUT = failed(504, "source_timeout", ATTEMPT_S + 0.2, ATTEMPT_S - 0.05)
DENIED = failed(503, "source_denied")

Inflict = Callable[[Bed], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault at one store. `kind` is what the error counter says; `up` what bridge_source_up says while it lasts."""

    name: str
    inflict: Inflict
    known: Expected
    new: Expected
    kind: str = ""
    says: str = ""
    up: bool = False
    recovers_in_s: float = RECOVERY_S
    #: whether the circuit is waited for, too: then nobody waits for that store any more
    opens: bool = False


def network(fault: Fault) -> Callable[[Store], Inflict]:
    """A fault of the way to the store."""

    def of(store: Store) -> Inflict:
        @asynccontextmanager
        async def inflict(made: Bed) -> AsyncIterator[None]:
            await made.proxies[store].set(fault)
            try:
                yield
            finally:
                await made.proxies[store].set("none")

        return inflict

    return of


def scripted(store: Store, status: str, text: str, kind: str = "text/plain", **headers: str) -> Inflict:
    """Something that answers everything with the same words in the store's place."""

    @asynccontextmanager
    async def inflict(made: Bed) -> AsyncIterator[None]:
        await made.proxies[store].say(status, text, kind, **headers)
        try:
            yield
        finally:
            await made.proxies[store].set("none")

    return inflict


_HAPROXY = """
defaults
    mode tcp
    timeout connect 100ms
    timeout client 10s
    timeout server 10s
    retries 2
    option redispatch 1
listen stores
    bind 127.0.0.1:{}
    default-server check inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions
    server first 127.0.0.1:{}
    server second 127.0.0.1:{} backup
"""


@contextmanager
def haproxy(folder: Path, ports: Sequence[int]) -> Iterator[int]:
    """A haproxy in front of two replicas of a store: its port."""
    port, config = free_port(), folder / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port, *ports), encoding="utf-8")
    with child(["haproxy", "-db", "-f", str(config)], port, folder / "haproxy.log"):
        yield port


async def fails_over(stores: Stores, folder: Path, store: Store, port: int) -> None:
    """Two replicas behind a haproxy, the first one fails: nobody notices."""
    async with FaultProxy(port) as first, FaultProxy(port) as second:
        with haproxy(folder, (first.port, second.port)) as balanced:
            async with bed(
                stores, targets={store: balanced}, patience_s=FAILOVER_S, attempt_timeout_s=1.0, total_timeout_s=FAILOVER_S
            ) as made:
                good = await fresh_answer(made, store)
                assert (first.questions > 0, second.questions) == (True, 0)
                await first.set("refuse")
                await asyncio.sleep(0.02)
                answers = await asyncio.gather(made.known(store), made.new(store))
                assert [(answer.http, answer.status) for answer in answers] == [(200, "fresh")] * 2, [one.says for one in answers]
                assert answers[0].rows == good.rows
                assert max(answer.seconds for answer in answers) < FAILOVER_S
                assert second.questions > 0
            await first.set("none")


async def no_such_name(stores: Stores, store: Store, connect: Mapping[str, Any]) -> None:
    """A host name that does not resolve (here from the start: kept answers need a store that was there)."""
    source = ASKED[store].source
    cell = Cell("DNS", network("none")(store), UNAVAILABLE, UNAVAILABLE, "source_unavailable", "not known")
    async with bed(stores, {source: connect}) as made:
        check(await made.new(store), UNAVAILABLE, cell, source, None)
        assert made.errors(source)["source_unavailable"] >= 1
        assert made.metric("bridge_source_up", source=source) == 0
        check(await made.known("clickhouse" if store == "redis" else "redis"), FRESH, cell, source, None)


async def ten_seconds_off(stores: Stores, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's clock against ours: said in the health, in each answer, and measured."""
    source, text = ASKED[store].source, re.compile(r"its clock is (9|10)\.\ds ahead of the bridge's")
    async with bed(stores) as made:
        assert (await made.health(source))["warning"] is None
        monkeypatch.setattr("app.clock.wall_ms", lambda: time.time_ns() // 1_000_000 - 10_000)
        health = await made.health(source)
        assert 9 < health["clock_skew_s"] < 11, health
        assert text.fullmatch(health["warning"])
        await asyncio.sleep(FRESH_S)
        answer = await made.known(store)
        assert (answer.status, bool(text.search(answer.says)), source in answer.says) == ("fresh", True, True), answer.says
        await until(lambda: made.metric("bridge_clock_skew_seconds", source=source) > 9, RECOVERY_S, "no metric of the skew")
        monkeypatch.undo()
        await until(lambda: abs(made.metric("bridge_clock_skew_seconds", source=source)) < 1, RECOVERY_S, "the skew stays")
        await asyncio.sleep(FRESH_S)
        assert (await made.known(store)).says == ""


async def play(made: Bed, store: Store, cell: Cell) -> None:
    """The whole way of one cell."""
    source = ASKED[store].source
    neighbour: Store = "clickhouse" if store == "redis" else "redis"
    good, _ = await asyncio.gather(fresh_answer(made, store), fresh_answer(made, neighbour))
    errors, stale = made.errors(source), made.metric("bridge_stale_responses_total", source=source)
    async with cell.inflict(made):
        await asyncio.sleep(0.02)  # what was open has seen its end
        known, new, healthy, alert = await asyncio.gather(
            made.known(store), made.new(store), made.known(neighbour), made.alert(store)
        )
        check(known, cell.known, cell, source, good)
        check(new, cell.new, cell, source, None)
        check(healthy, FRESH, cell, source, None)
        assert (alert.http == 200) == (cell.known.status == "fresh"), "an alert rule must see fresh values or an error"
        assert (await made.client.get("/readyz")).status_code == 200
        if cell.kind:
            assert made.errors(source).get(cell.kind, 0) > errors.get(cell.kind, 0), made.errors(source)
        else:
            assert made.errors(source) == errors, (made.errors(source), errors)
        served = made.metric("bridge_stale_responses_total", source=source) - stale
        assert served == [known.status, new.status].count("stale")
        await until(
            lambda: made.metric("bridge_source_up", source=source) == cell.up, PROBE_S, f"bridge_source_up is not {cell.up}"
        )
        if cell.opens:
            await until(lambda: made.metric("bridge_breaker_state", source=source) == 2, 2.0, "the circuit stays closed")
            known, new = await asyncio.gather(made.known(store), made.new(store))
            check(known, replace(STALE, says=("not asked, it has just failed",)), cell, source, good)
            check(new, failed(503, "circuit_open"), cell, source, None)
        check(await made.known(neighbour), FRESH, cell, source, None)
    await recovered(made, store, good, cell.recovers_in_s)


async def fresh_answer(made: Bed, store: Store) -> Answer:
    """A good answer, old enough to be asked anew. The first one of a cold store may take longer than it is fresh."""
    ends_s = time.perf_counter() + 3.0
    while (good := await made.known(store)).status != "fresh":
        assert time.perf_counter() < ends_s, (good.http, good.says)
    assert good.rows
    await asyncio.sleep(FRESH_S)
    return good


def check(answer: Answer, expected: Expected, cell: Cell, source: str, good: Answer | None) -> None:
    """The status, the code, the time, the values and the marks of one answer."""
    code = expected.code if expected.status == "error" else ""
    assert (answer.http, answer.status, answer.code) == (expected.http, expected.status, code), (
        f"{answer.status} {answer.code} {answer.says}"
    )
    assert expected.least_s <= answer.seconds < expected.within_s + SLACK_S, (answer.seconds, answer.says)
    for text in marks(expected, cell, source):
        assert text in answer.says, (text, answer.says)
    if answer.http == 503:
        assert answer.headers["retry-after"] == "5"
    if good is not None and answer.status == "stale":
        assert answer.rows == good.rows


def marks(expected: Expected, cell: Cell, source: str) -> Iterator[str]:
    """What must be read in an answer of that status."""
    yield from expected.says
    if expected.status == "stale":
        yield f"{source}: STALE, "
        yield " old, as of "
    if expected.status in ("partial", "error"):
        yield f"{source}: "
    if expected.status != "fresh" and not expected.says:
        yield cell.says


async def recovered(made: Bed, store: Store, good: Answer, within_s: float) -> None:
    """A fresh answer, equal to the one before the fault, in time, and none but fresh ones after it."""
    begun_s = time.perf_counter()
    answer = await made.known(store)
    while answer.status != "fresh":
        assert time.perf_counter() - begun_s < within_s + SLACK_S, (answer.status, answer.says)
        await asyncio.sleep(0.02)
        answer = await made.known(store)
    assert answer.rows == good.rows
    source = ASKED[store].source
    await until(lambda: made.metric("bridge_source_up", source=source) == 1, within_s, "bridge_source_up stays 0")
