"""Row by row of the fault matrix: Prometheus."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import HttpUrl

from demo.stores import free_port, prometheus_store
from demo.world import HOUR_MS
from tests.chaos.matrix import (
    AT_ONCE_S,
    ATTEMPT_S,
    DENIED,
    DENIED_S,
    FRESH_S,
    RECOVERY_S,
    SLACK_S,
    STALE,
    STALE_AFTER_PATIENCE,
    TIMED_OUT,
    UNAVAILABLE,
    Cell,
    Inflict,
    bed,
    failed,
    fails_over,
    fresh_answer,
    network,
    no_such_name,
    play,
    recovered,
    scripted,
    ten_seconds_off,
)
from tests.servers.faulty import Fault
from tests.servers.world import Stores


def error(status: str, kind: str, text: str) -> Inflict:
    """Prometheus' own error document."""
    content = json.dumps({"status": "error", "errorType": kind, "error": text})
    return scripted("prometheus", status, content, "application/json")


GARBLED = failed(502, "source_garbled")
REJECTED = failed(502, "source_rejected")
STEP_MS = 300_000
CELLS = (
    Cell("refused", network("refuse")("prometheus"), STALE, UNAVAILABLE, "source_unavailable", opens=True),
    Cell("reset", network("reset")("prometheus"), STALE, UNAVAILABLE, "source_unavailable"),
    Cell("black hole", network("black_hole")("prometheus"), STALE_AFTER_PATIENCE, TIMED_OUT, "source_timeout", opens=True),
    Cell("slow drip", network("slow_drip")("prometheus"), STALE_AFTER_PATIENCE, TIMED_OUT, "source_timeout"),
    Cell(
        "auth error",
        scripted("prometheus", "401 Unauthorized", "no"),
        STALE,
        DENIED,
        "source_denied",
        "401",
        recovers_in_s=DENIED_S + 1,
    ),
    Cell("wrong data, garbage", network("garbage")("prometheus"), STALE, GARBLED, "source_garbled"),
    Cell("wrong data, truncated", network("truncated")("prometheus"), STALE, GARBLED, "source_garbled"),
    Cell("wrong data, no JSON", scripted("prometheus", "200 OK", "<html>"), STALE, GARBLED, "source_garbled"),
    Cell(
        "wrong data, status error",
        error("400 Bad Request", "bad_data", "parse error"),
        REJECTED,
        REJECTED,
        "source_rejected",
        up=True,
    ),
    Cell("status 500", network("wrong_status")("prometheus"), STALE, UNAVAILABLE, "source_unavailable", "status 500"),
    Cell(
        "OOM, 422",
        error("422 -", "execution", "query processing would load too many samples into memory in query execution"),
        STALE,
        failed(502, "source_overloaded"),
        "source_overloaded",
        up=True,
    ),
    Cell("OOM, 503", error("503 -", "timeout", "query timed out"), STALE, failed(504, "source_timeout"), "source_timeout"),
    Cell(
        "restart, 503 until ready",
        scripted("prometheus", "503 -", "Service Unavailable"),
        STALE,
        UNAVAILABLE,
        "source_unavailable",
    ),
)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"prometheus-{cell.name}")
async def test_a_prometheus_fault_gives_the_last_answer_marked_or_says_what_failed_and_heals(stores: Stores, cell: Cell) -> None:
    async with bed(stores) as made:
        await play(made, "prometheus", cell)


LIMITS: tuple[tuple[Fault, float], ...] = (("refuse", AT_ONCE_S), ("reset", AT_ONCE_S), ("black_hole", ATTEMPT_S))


@pytest.mark.parametrize(("fault", "within_s"), LIMITS, ids=[f"prometheus-{fault}" for fault, _ in LIMITS])
async def test_prometheus_gone_a_metric_with_fallbacks_is_answered_by_redis_and_both_are_named(
    stores: Stores, fault: Fault, within_s: float
) -> None:
    async with bed(stores) as made:
        good = await made.ask("cpu_load", "past", "host")
        await made.proxies["prometheus"].set(fault)
        await asyncio.sleep(FRESH_S)
        answer = await made.ask("cpu_load", "past", "host")
        assert (answer.http, answer.status) == (200, "partial")
        assert [(row["time"], row["host"]) for row in answer.rows] == [(row["time"], row["host"]) for row in good.rows]
        assert "prometheus: " in answer.says
        assert "answered by the fallback ris" in answer.says
        assert answer.seconds < within_s + SLACK_S
        await made.proxies["redis"].set("refuse")
        await asyncio.sleep(FRESH_S)
        second = await made.ask("cpu_load", "past", "host")
        assert (second.status, len(second.rows)) == ("partial", len(good.rows)), second.says
        assert "ris: " in second.says
        assert "answered by the fallback clickhouse" in second.says


async def test_prometheus_disk_full_a_gap_in_its_data_is_passed_through(stores: Stores) -> None:
    async with bed(stores) as made:
        to_ms = stores.until_ms // 60_000 * 60_000
        params = {"metric": "signal_backlog", "step": "5m", "from": str(to_ms - 3 * HOUR_MS), "to": str(to_ms)}
        body = (await made.client.get("/v1/rows", params=params)).json()
        facts = body["meta"]["metrics"]["signal_backlog"]
        assert (facts["status"], facts["notices"]) == ("fresh", [])
        times = [row["time"] for row in body["rows"]]
        assert times == list(range(times[0], to_ms, STEP_MS))
        assert times[0] in (stores.world.start_ms - STEP_MS, stores.world.start_ms)  # the first sample, on the edge, is in either
        assert None not in [row["value"] for row in body["rows"]]


async def test_prometheus_dns_failure_is_as_refused(stores: Stores) -> None:
    await no_such_name(stores, "prometheus", {"url": HttpUrl("http://nowhere.invalid:9090")})


async def test_prometheus_clock_skew_is_said_and_measured(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    await ten_seconds_off(stores, "prometheus", monkeypatch)


async def test_prometheus_failover_through_haproxy_is_not_noticed(stores: Stores, tmp_path: Path) -> None:
    await fails_over(stores, tmp_path, "prometheus", stores.prometheus_port)


async def test_prometheus_restart_the_last_answer_is_shown_until_it_is_back(
    stores: Stores, world_folder: Path, tmp_path: Path
) -> None:
    """A Prometheus of the test's own on a copy of the blocks; it comes back on another port, to which its proxy then leads."""
    running = shutil.ignore_patterns("wal", "chunks_head", "lock", "queries.active")
    shutil.copytree(world_folder / "prometheus" / "data", tmp_path / "data", ignore=running)
    with ExitStack() as first, ExitStack() as second:
        port = await asyncio.to_thread(first.enter_context, prometheus_store(tmp_path, free_port()))
        async with bed(stores, targets={"prometheus": port}) as made:
            good = await fresh_answer(made, "prometheus")
            await asyncio.to_thread(first.close)
            answer = await made.known("prometheus")
            assert (answer.status, answer.rows, answer.seconds < AT_ONCE_S + SLACK_S) == ("stale", good.rows, True), answer.says
            port = await asyncio.to_thread(second.enter_context, prometheus_store(tmp_path, free_port()))
            await made.proxies["prometheus"].lead_to(port)
            await recovered(made, "prometheus", good, RECOVERY_S)
