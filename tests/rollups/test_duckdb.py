"""DuckDB's roll-ups say what the raw table says: late rows and deletions included; a snapshot without them is read raw."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from app.sources.duckdb.rollups import update_rollups
from app.sources.duckdb.source import DuckDBConfig, DuckDBSource
from app.sources.sql.rollups import send_statement, wanted_tables
from demo.schema import DUCKDB
from tests.rollups.drawing import CASES, HOUR_MS, SEEDS, Drawn, answer_of, drawn_statements, told
from tests.servers.snapshots import snapshot_name

TO_MS = time.time_ns() // 1_000_000 // 60_000 * 60_000
FROM_MS = TO_MS - 72 * HOUR_MS
DATA = Drawn(FROM_MS, TO_MS, {"account": [f"A{n}" for n in range(6)], "broker": ["B0", "B1"]})

#: A sample of each account every 10 s, a few missing; account 3 changes its broker; margins are 0 for hours; figures repeat.
SAMPLES = f"""
INSERT INTO account_snapshots
SELECT make_timestamp_ms({FROM_MS} + n // 6 * 10000 + (hash(n, 1) % 9000)::BIGINT), 'A' || n % 6,
       CASE WHEN n % 6 = 3 THEN CASE WHEN n < 60000 THEN 'B0' ELSE 'B1' END ELSE 'B' || n % 2 END,
       1000 + n // 30000, 0, 1000 + (hash(n, 2) % 900000)::BIGINT / 10000,
       CASE WHEN n // 9000 % 4 = 1 THEN 0 ELSE hash(n, 3) % 50 END,
       7, (hash(n, 4) % 5000)::BIGINT / 7, 1050, hash(n, 5) % 9, hash(n, 6) % 3
FROM range({72 * 360 * 6}) r(n) WHERE hash(n, 7) % 19 <> 0 AND """


def write_samples(database: duckdb.DuckDBPyConnection) -> None:
    """Samples that were rolled up, late ones, and a deletion; rolled up again."""
    database.execute(DUCKDB)
    database.execute(SAMPLES + "hash(n, 9) % 7 <> 0")
    update_rollups(database)
    database.execute(SAMPLES + "hash(n, 9) % 7 = 0 AND n // 50000 = 1")
    database.execute("DELETE FROM account_snapshots WHERE hash(ts, account_id) % 97 = 0")
    update_rollups(database)


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    with duckdb.connect(str(folder / snapshot_name(TO_MS))) as database:
        write_samples(database)
    return folder


@pytest.fixture
async def source(snapshots: Path) -> AsyncIterator[DuckDBSource]:
    found = DuckDBConfig(snapshots=snapshots, max_rows=5_000_000, max_execution_time_s=60).build("duckdb")
    yield found
    await found.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_roll_up_answers_as_the_raw_table_does(source: DuckDBSource, seed: int) -> None:
    rolled = thinned = points = 0
    for statement in drawn_statements("duckdb", DATA, seed):
        found, raw = await source.fetch(statement), await source.fetch(replace(send_statement(statement), read=None))
        assert answer_of(found, statement) == answer_of(raw, statement), told(statement)
        used = send_statement(statement, wanted_tables(statement)).text != send_statement(statement).text
        rolled, points = rolled + used, points + used * len(raw)
        thinned += used and "account_extremes_1h" in wanted_tables(statement)
    assert (rolled > CASES // 4, thinned > 1, points > CASES * 10) == (True, True, True), (rolled, thinned, points)
