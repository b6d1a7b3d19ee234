"""Row by row of the fault matrix: ClickHouse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

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
    Bed,
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
    until,
)
from tests.servers.faulty import Fault
from tests.servers.world import Stores

REJECTED = failed(502, "source_rejected")
RENAME = "ALTER TABLE account_snapshots RENAME COLUMN {} TO {}"


@asynccontextmanager
async def another_password(made: Bed) -> AsyncIterator[None]:
    # Without a restart: that would be an outage before the refusal, and the circuit open by then.
    made.stores.clickhouse.faults(password="changed")
    try:
        yield
    finally:
        made.stores.clickhouse.faults()


@asynccontextmanager
async def killed(made: Bed) -> AsyncIterator[None]:
    made.stores.clickhouse.kill()
    try:
        yield
    finally:
        await asyncio.to_thread(made.stores.clickhouse.start)


def altered(there: tuple[str, ...], back: tuple[str, ...]) -> Inflict:
    """A schema that is not the one that the catalogue was written for."""

    @asynccontextmanager
    async def inflict(made: Bed) -> AsyncIterator[None]:
        for statement in there:
            made.stores.clickhouse.execute(statement, "trade_system")
        try:
            yield
        finally:
            for statement in back:
                made.stores.clickhouse.execute(statement, "trade_system")

    return inflict


AWAY, HOME = "RENAME TABLE account_snapshots TO gone", "RENAME TABLE gone TO account_snapshots"
HEAVY = "CREATE VIEW account_snapshots AS SELECT * FROM gone WHERE (SELECT length(groupArray(number)) FROM numbers(9000000)) > 0"
COLUMN = altered((RENAME.format("open_positions", "positions"),), (RENAME.format("positions", "open_positions"),))
TABLE = altered((AWAY,), (HOME,))
TOO_HEAVY = altered((AWAY, HEAVY), ("DROP VIEW account_snapshots", HOME))
#: what one statement may use, for all cells
MEMORY = {"clickhouse": {"max_memory_bytes": 20_000_000}}
DISK = "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)"
FULL = scripted("clickhouse", "500 Internal Server Error", DISK, X_ClickHouse_Exception_Code="243")

CELLS = (
    Cell("refused", network("refuse")("clickhouse"), STALE, UNAVAILABLE, "source_unavailable", opens=True),
    Cell("reset", network("reset")("clickhouse"), STALE, UNAVAILABLE, "source_unavailable"),
    Cell("black hole", network("black_hole")("clickhouse"), STALE_AFTER_PATIENCE, TIMED_OUT, "source_timeout", opens=True),
    Cell("slow drip", network("slow_drip")("clickhouse"), STALE_AFTER_PATIENCE, TIMED_OUT, "source_timeout"),
    Cell("no HTTP", network("garbage")("clickhouse"), STALE, UNAVAILABLE, "source_unavailable"),
    Cell("auth error", another_password, STALE, DENIED, "source_denied", "Authentication failed", recovers_in_s=DENIED_S + 1),
    Cell("schema drift, column", COLUMN, REJECTED, REJECTED, "source_rejected", "open_positions", up=True),
    Cell("schema drift, table", TABLE, REJECTED, REJECTED, "source_rejected", "account_snapshots", up=True),
    Cell("OOM", TOO_HEAVY, STALE, failed(502, "source_overloaded"), "source_overloaded", "memory limit exceeded", up=True),
    Cell("disk full", FULL, STALE, UNAVAILABLE, "source_unavailable", "not enough space"),
    Cell("restart", killed, STALE, UNAVAILABLE, "source_unavailable"),
)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"clickhouse-{cell.name}")
async def test_a_clickhouse_fault_gives_the_last_answer_marked_or_says_what_failed_and_heals(stores: Stores, cell: Cell) -> None:
    async with bed(stores, MEMORY) as made:
        await play(made, "clickhouse", cell)


LIMITS: tuple[tuple[Fault, float], ...] = (("refuse", AT_ONCE_S), ("reset", AT_ONCE_S), ("black_hole", ATTEMPT_S + 0.2))


@pytest.mark.parametrize(("fault", "within_s"), LIMITS, ids=[f"clickhouse-{fault}" for fault, _ in LIMITS])
async def test_clickhouse_gone_with_nothing_kept_what_redis_has_is_shown_and_what_is_missing_is_said(
    stores: Stores, fault: Fault, within_s: float
) -> None:
    async with bed(stores) as made:
        live = await made.ask("open_trades", "now", "account")
        await made.proxies["clickhouse"].set(fault)
        await asyncio.sleep(FRESH_S)
        answer = await made.ask("open_trades", "both", "account")
        assert (answer.http, answer.status, answer.rows) == (200, "partial", live.rows)
        assert answer.seconds < within_s + SLACK_S
        assert "clickhouse: " in answer.says
        assert "the history is missing, only the live edge is shown" in answer.says
        assert 'missing="clickhouse"' in answer.headers["bridge-result"]
        await made.proxies["clickhouse"].set("none")
        await asyncio.sleep(FRESH_S)
        await until_fresh(made)


async def until_fresh(made: Bed) -> None:
    begun_s = asyncio.get_running_loop().time()
    while (answer := await made.ask("open_trades", "both", "account")).status != "fresh":
        assert asyncio.get_running_loop().time() - begun_s < RECOVERY_S + SLACK_S, answer.says
        await asyncio.sleep(0.02)
    assert len({row["time"] for row in answer.rows}) == 11


async def test_clickhouse_half_open_the_query_that_nobody_hears_of_is_killed(stores: Stores) -> None:
    async with bed(stores) as made:
        good = await fresh_answer(made, "clickhouse")
        kills = stores.clickhouse.kills()
        await made.proxies["clickhouse"].set("half_open")
        assert (await made.new("clickhouse")).code == "source_timeout"
        await until(lambda: stores.clickhouse.kills() > kills, 1.0, "no KILL QUERY came in")
        await made.proxies["clickhouse"].set("none")
        await recovered(made, "clickhouse", good, RECOVERY_S)


async def test_clickhouse_oom_a_question_that_is_too_heavy_is_asked_once_and_no_more(stores: Stores) -> None:
    # No pings in between: what comes through the proxy is this question's.
    async with bed(stores, MEMORY, probe_s=60) as made:
        await fresh_answer(made, "clickhouse")
        before = made.proxies["clickhouse"].questions
        async with TOO_HEAVY(made):
            assert (await made.new("clickhouse")).code == "source_overloaded"
        assert (made.errors("clickhouse"), made.proxies["clickhouse"].questions - before) == ({"source_overloaded": 1}, 1)


async def test_clickhouse_dns_failure_is_as_refused(stores: Stores) -> None:
    await no_such_name(stores, "clickhouse", {"host": "nowhere.invalid"})


async def test_clickhouse_clock_skew_is_said_and_measured(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    await ten_seconds_off(stores, "clickhouse", monkeypatch)


async def test_clickhouse_failover_through_haproxy_is_not_noticed(stores: Stores, tmp_path: Path) -> None:
    await fails_over(stores, tmp_path, "clickhouse", stores.clickhouse.port)
