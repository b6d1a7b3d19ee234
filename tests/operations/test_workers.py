"""The workers' parts by themselves: totals, weight, shares of what a replica has once, a supervisor whose workers cannot run."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric

from app.catalog import Catalogue, load_folder
from app.cli.worker import WorkerTeam, own_settings
from app.config import Settings, settings_from
from app.errors import BadQuery, ConfigError, SourceUnavailable
from app.operations.haproxy import Condition, TeamCondition, agent_words
from app.telemetry import TeamTelemetry, Telemetry, text_of
from app.workers import supervisor
from app.workers.link import WorkerLink
from app.workers.listening import SharedListener
from app.workers.scoreboard import Scoreboard, make_scoreboard, surplus_connections
from app.workers.supervisor import NoWorker, Supervisor, bind_sockets
from app.workers.totals import GAUGES, Totals, without_gauges
from demo.stores import free_port
from tests.servers.askers import until
from tests.servers.scripted_worker import crash, hang, ignore_stop, obey, refuse_to_run

GOOD = Condition(ready=True, loop_lag_s=0.0, sources_up=2, sources=2)


def families_of(requests: int, in_flight: float, skew_s: float, seconds: tuple[float, ...] = ()) -> list[Metric]:
    """What one worker measures."""
    registry = CollectorRegistry()
    Counter("bridge_queries", "Queries", ("status",), registry=registry).labels("fresh").inc(requests)
    Gauge("bridge_inflight", "In flight", registry=registry).set(in_flight)
    Gauge("bridge_clock_skew_seconds", "Skew", registry=registry).set(skew_s)
    Gauge("bridge_source_up", "Up", registry=registry).set(in_flight > 1)
    times = Histogram("bridge_source_request_seconds", "Times", registry=registry, buckets=(1, 2))
    for one in seconds:
        times.observe(one)
    return list(registry.collect())


def lines_of(families: list[Metric]) -> dict[str, float]:
    """Sample -> value, without the instants at which counters were made."""
    lines = [line for line in text_of(families).decode().splitlines() if not line.startswith("#") and "_created" not in line]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_counters_are_added_and_each_gauge_is_what_it_means_for_all() -> None:
    found = Totals().merged([families_of(3, 1, -4.0, (0.5, 5.0)), families_of(4, 2, 1.0, (1.5,))])
    assert lines_of(found) == {
        'bridge_queries_total{status="fresh"}': 7.0,
        "bridge_inflight": 3.0,
        "bridge_clock_skew_seconds": -4.0,
        "bridge_source_up": 0.0,
        'bridge_source_request_seconds_bucket{le="1.0"}': 1.0,
        'bridge_source_request_seconds_bucket{le="2.0"}': 2.0,
        'bridge_source_request_seconds_bucket{le="+Inf"}': 3.0,
        "bridge_source_request_seconds_count": 3.0,
        "bridge_source_request_seconds_sum": 7.0,
    }


def test_what_a_worker_had_counted_stays_when_it_is_gone_and_what_it_was_like_goes() -> None:
    totals = Totals()
    totals.keep(families_of(3, 5, 0.0))
    totals.keep(families_of(10, 5, 0.0))
    found = lines_of(totals.merged([families_of(1, 2, 0.5)]))
    assert (found['bridge_queries_total{status="fresh"}'], found["bridge_inflight"]) == (14.0, 2.0)
    silent = lines_of(Totals().merged([without_gauges(families_of(3, 5, 0.0)), families_of(1, 2, 0.5)]))
    assert (silent['bridge_queries_total{status="fresh"}'], silent["bridge_inflight"]) == (4.0, 2.0)


def test_a_gauge_that_one_worker_does_not_know_is_that_of_the_other() -> None:
    def aged(value: float) -> list[Metric]:
        registry = CollectorRegistry()
        Gauge("bridge_backup_last_ok", "Last", registry=registry).set(value)
        Gauge("bridge_key_end_timestamp_seconds", "End", registry=registry).set(value)
        return list(registry.collect())

    assert lines_of(Totals().merged([aged(math.nan), aged(1.0)])) == lines_of(Totals().merged([aged(1.0), aged(math.nan)]))
    assert lines_of(Totals().merged([aged(math.nan), aged(1.0)])) == lines_of(aged(1.0))


def test_every_gauge_of_the_bridge_has_a_meaning_for_several_workers() -> None:
    families = [*Telemetry().families(), *TeamTelemetry(2).registry.collect()]
    assert {metric.name for metric in families if metric.type == "gauge"} == set(GAUGES)


@pytest.mark.parametrize(
    ("members", "workers", "words"),
    [
        ((GOOD, GOOD), 2, "up 100%"),
        ((GOOD,), 2, "up 50%"),
        ((GOOD, replace(GOOD, sources_up=1)), 2, "up 75%"),
        ((GOOD, replace(GOOD, loop_lag_s=1.0)), 2, "up 55%"),
        ((GOOD, replace(GOOD, sources_up=0)), 2, "up 50%"),
        ((replace(GOOD, sources_up=0), replace(GOOD, sources_up=0)), 2, "up 1% #isolated"),
        ((replace(GOOD, sources_up=0),), 4, "up 1% #isolated"),
        ((), 2, "up 1%"),
    ],
)
def test_the_weight_of_several_workers_is_their_mean(members: tuple[Condition, ...], workers: int, words: str) -> None:
    assert agent_words(TeamCondition(members, workers, draining=False)) == words


def test_a_replica_is_ready_while_one_worker_serves_and_it_does_not_drain() -> None:
    found = [TeamCondition(members, 2, draining).ready for members in ((GOOD,), ()) for draining in (False, True)]
    assert found == [True, False, False, False]


def several(tmp_path: Path, **more: Any) -> Settings:
    """Settings with two workers."""
    values = {"http": {"port": 0, "workers": 2, "lame_duck_s": 0}, "agent": {"port": None}, "state": str(tmp_path / "state")}
    return settings_from(values | more, "test")


def test_the_leader_alone_calls_the_backend_and_each_worker_has_a_folder_of_its_own(tmp_path: Path) -> None:
    settings = several(tmp_path, sync={"url": "http://127.0.0.1:1/x", "secret": "a secret of sixteen"})
    found = [own_settings(settings, number) for number in range(3)]
    assert [one.sync.url for one in found] == ["http://127.0.0.1:1/x", None, None]
    assert [one.state for one in found] == [tmp_path / "state", tmp_path / "state/worker-1", tmp_path / "state/worker-2"]


def test_an_engine_that_one_process_may_open_forbids_several_workers(tmp_path: Path) -> None:
    embedded = {"connect": {"kind": "clickhouse", "interface": "chdb", "path": str(tmp_path)}}
    with pytest.raises(ConfigError, match=r"http.workers \(2\) must be 1 here: clickhouse is an engine inside the process"):
        several(tmp_path, sources={"clickhouse": embedded})
    assert several(tmp_path, sources={"clickhouse": embedded | {"enabled": False}}).http.workers == 2


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "empty.yaml").write_text("group: none\ntitle: None\nmetrics: {}\n", encoding="utf-8")
    return load_folder(tmp_path / "catalog", {})


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [(refuse_to_run, 2, "catalog: the folder is gone"), (crash, 1, "it ended with code 7")],
    ids=["refuses", "crashes"],
)
async def test_a_supervisor_none_of_whose_workers_can_run_ends_with_their_error(
    tmp_path: Path, catalogue: Catalogue, target: Callable[[Any], None], code: int, words: str
) -> None:
    running = Supervisor(several(tmp_path), catalogue, target, bind_sockets("127.0.0.1", 0))
    with pytest.raises(NoWorker, match=words) as ended:
        await running.run()
    assert ended.value.exit_code == code


def samples_of(file: Path) -> dict[str, float]:
    """Sample -> value, of a page of metrics; empty where there is none."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


@asynccontextmanager
async def supervised(
    settings: Settings, catalogue: Catalogue, target: Callable[[Any], None]
) -> AsyncIterator[tuple[Supervisor, asyncio.Task[int]]]:
    """A supervisor at work in this process; it is stopped at the end, where the test has not done so."""
    assert settings.state is not None
    settings.state.mkdir()
    one = Supervisor(settings, catalogue, target, bind_sockets("127.0.0.1", 0))
    running = asyncio.create_task(one.run())
    try:
        yield one, running
    finally:
        if not running.done():
            one.stop()
            await running


async def test_a_supervisor_speaks_for_its_workers_keeps_what_a_killed_one_counted_and_stops_them(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    settings, page = several(tmp_path, agent={"port": free_port()}), tmp_path / "state" / "page-1"
    async with supervised(settings, catalogue, obey) as (one, running):
        await until(60, lambda: samples_of(page).get("bridge_queries_total") == 6.0)
        condition, before = one.condition(), samples_of(page)
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.agent.port)
        words = await reader.readline()
        writer.close()
        victim = one._workers[0]  # noqa: SLF001  to end it as a crash would
        os.kill(int(victim.name.split()[-1].rstrip(")")), signal.SIGKILL)
        await until(60, lambda: samples_of(page).get("bridge_queries_total") == 9.0)
        after = samples_of(page)
        one.stop()
        draining, code = one.condition().draining, await running
    ready = Condition(ready=True, loop_lag_s=0.0, sources_up=2, sources=2)
    assert (condition, words.endswith(b"up 100%\n")) == (TeamCondition((ready, ready), 2, draining=False), True)
    ended = 'bridge_workers_replaced_total{why="ended"}'
    facts = [(found["bridge_workers"], found["bridge_workers_up"], found[ended]) for found in (before, after)]
    assert (facts, draining, code) == ([(2.0, 2.0, 0.0), (2.0, 2.0, 1.0)], True, 0)


async def test_a_worker_that_stands_still_is_killed_and_replaced(tmp_path: Path, catalogue: Catalogue) -> None:
    settings = several(tmp_path, http={"port": 0, "workers": 1, "lame_duck_s": 0, "worker_hang_s": 2})
    page = tmp_path / "state" / "page-0"
    async with supervised(settings, catalogue, hang) as (_, running):
        await until(60, lambda: samples_of(page).get("bridge_workers_up") == 1.0)
        found = samples_of(page)
        assert not running.done()
    assert found['bridge_workers_replaced_total{why="hung"}'] == 1.0


async def test_a_worker_that_does_not_stop_in_its_time_is_killed_and_the_exit_code_says_so(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_OVERTIME_S", 0.2)
    settings = several(tmp_path, http={"port": 0, "workers": 2, "lame_duck_s": 0, "graceful_stop_s": 0})
    async with supervised(settings, catalogue, ignore_stop) as (one, running):
        await until(60, lambda: len(one.condition().members) == 2)
        one.stop()
        async with asyncio.timeout(20):
            code = await running
    assert code == 1


async def test_an_agents_port_that_is_taken_later_does_not_end_the_replica(
    tmp_path: Path, catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = several(tmp_path, agent={"port": other.getsockname()[1]})
        async with supervised(settings, catalogue, obey) as (one, _):
            await until(60, lambda: len(one.condition().members) == 2)
    assert "HAProxy learns no weight" in caplog.text


def test_a_port_that_cannot_be_had_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            BadQuery, match=rf"http.host, http.port: 127.0.0.1, {port} cannot be listened on: Address already in use"
        ):
            bind_sockets("127.0.0.1", port)


async def test_without_the_supervisors_answer_there_is_no_page_of_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.worker._PAGE_S", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(SourceUnavailable, match="the supervisor of the workers does not answer"):
        await WorkerTeam(1, WorkerLink(theirs)).metrics_page()


class Kept(asyncio.Protocol):
    """A connection that stays open, counted for its listener."""

    def __init__(self, accepted: list[int], number: int) -> None:
        accepted.append(number)


@asynccontextmanager
async def listening(board: Scoreboard, accepted: list[int]) -> AsyncIterator[int]:
    """A listener for each seat on one socket, as if each were a worker; yields the port."""
    [bound] = bind_sockets("127.0.0.1", 0)
    port, sockets = bound.getsockname()[1], [bound, *(bound.dup() for _ in board[1:])]
    for seat in board:
        seat.beat_s, seat.connections = time.monotonic(), 0
    listeners = [SharedListener(one, partial(Kept, accepted, at), board, at) for at, one in enumerate(sockets)]
    try:
        yield port
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.parametrize(("held", "least", "most"), [([0, 0, 0], 5, 15), ([3, 24, 3], 0, 5)])
async def test_connections_are_shared_out_to_those_who_have_fewest(held: list[int], least: int, most: int) -> None:
    board, accepted = make_scoreboard(get_context("spawn"), 3), list[int]()
    async with listening(board, accepted) as port:
        for seat, connections in zip(board, held, strict=True):
            seat.connections = connections
        for _ in range(30):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
        while len(accepted) < 30:
            await asyncio.sleep(0.01)
    # Equal to one, but for waits that a busy machine lets run out.
    assert least <= accepted.count(1) <= most, [accepted.count(number) for number in range(3)]


async def test_a_worker_that_stands_still_is_not_waited_for() -> None:
    board, accepted = make_scoreboard(get_context("spawn"), 2), list[int]()
    async with listening(board, accepted):
        board[0].connections, board[1].beat_s = 5, 0.0
        assert (surplus_connections(board, 0, time.monotonic()), surplus_connections(board, 1, time.monotonic())) == (0, -5)


async def test_a_supervisor_gives_up_when_its_workers_end_again_and_again(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(supervisor, "_TRIES", 2)
    running = Supervisor(several(tmp_path), catalogue, crash, bind_sockets("127.0.0.1", 0))
    running._served_once = True  # noqa: SLF001  as after a good start
    with pytest.raises(NoWorker, match="no worker can be kept running") as ended:
        async with asyncio.timeout(60):
            await running.run()
    assert ended.value.exit_code == 1
