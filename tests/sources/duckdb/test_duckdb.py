"""The duckdb source. A second process holds the writer's file open for writing during the whole suite."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import pytest_asyncio

from app.errors import SourceOverloaded, SourceRejected, SourceTimeout, SourceUnavailable
from app.model import Frame, Matcher, TimeRange
from app.sources.base import Ask
from app.sources.duckdb.snapshots import covers_to_ms
from app.sources.duckdb.source import DuckDBConfig, DuckDBRead, DuckDBSource
from tests.frames import shown
from tests.servers.patience import quickest
from tests.servers.snapshots import SnapshotPublisher, snapshot_name
from tests.sources.sql_shapes import RIGHT, WRONG, shaped

MINUTE = TimeRange(0, 60_000, 10_000)
SQL = """SELECT epoch_ms(ts) // $step_ms * $step_ms AS time, {by}, sum(amount) AS value FROM samples
    WHERE ts >= make_timestamp_ms($from_ms) AND ts < make_timestamp_ms($to_ms) {where} GROUP BY ALL ORDER BY time"""
READ = DuckDBRead(source="lake", sql=SQL, labels={"firm": "broker"})
ENDLESS = DuckDBRead(source="lake", sql="SELECT 0 AS time, count(*) AS value FROM range(100000000) a, range(100000) b")
ROWS = ((1_000, "A1", "x", 1.5), (2_000, "A2", "x", 2.0), (11_000, "A1", "y", None), (21_000, "10", "y", 4.25))


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SnapshotPublisher]:
    with SnapshotPublisher(tmp_path_factory.mktemp("writer")) as publisher:
        publisher.insert(*ROWS)
        yield publisher


@pytest.fixture
def snapshots(writer: SnapshotPublisher) -> SnapshotPublisher:
    """The writer, with one snapshot published and all others gone."""
    for file in writer.snapshots.iterdir():
        file.unlink()
    writer.publish(60_000)
    return writer


def source_of(folder: Path, **more: Any) -> DuckDBSource:
    return DuckDBConfig(snapshots=folder, poll_s=0, **more).build("lake")


@pytest_asyncio.fixture
async def lake(snapshots: SnapshotPublisher) -> AsyncIterator[DuckDBSource]:
    source = source_of(snapshots.snapshots)
    yield source
    await source.close()


async def ask(source: DuckDBSource, read: DuckDBRead = READ, by: tuple[str, ...] = (), where: tuple[Matcher, ...] = ()) -> Frame:
    return await source.fetch(read.statement(Ask("m", MINUTE, by, where)))


def test_the_writers_own_file_cannot_be_read_by_anybody_else(snapshots: SnapshotPublisher) -> None:
    with pytest.raises(duckdb.IOException):
        duckdb.connect(str(snapshots.live), read_only=True)


async def test_rows_become_series_with_null_as_null(lake: DuckDBSource) -> None:
    assert shown(await ask(lake, by=("account",))) == {
        "account=10": {20_000: 4.25},
        "account=A1": {0: 1.5, 10_000: None},
        "account=A2": {0: 2.0},
    }


async def test_without_a_label_everything_is_one_series(lake: DuckDBSource) -> None:
    assert shown(await ask(lake)) == {"": {0: 3.5, 10_000: None, 20_000: 4.25}}


async def test_a_label_may_be_called_otherwise_in_the_store(lake: DuckDBSource) -> None:
    assert shown(await ask(lake, by=("firm",))) == {"firm=x": {0: 3.5}, "firm=y": {10_000: None, 20_000: 4.25}}


@pytest.mark.parametrize("shape", RIGHT.values(), ids=RIGHT)
async def test_the_check_is_content_with_what_the_engine_answers(lake: DuckDBSource, shape: str) -> None:
    read = DuckDBRead(source="lake", sql=shaped(shape, SQL, "ts >="), labels={"account": "account"})
    assert list(read.problems()) == []
    only = (Matcher("account", "=", ("A1",)),)
    assert shown(await ask(lake, read, by=("account",), where=only)) == {"account=A1": {0: 1.5, 10_000: None}}


@pytest.mark.parametrize("shape", WRONG.values(), ids=WRONG)
def test_the_check_is_not_content_with_what_the_engine_refuses(shape: str) -> None:
    assert list(DuckDBRead(source="lake", sql=shaped(shape, SQL, "ts >=")).problems()) != []


async def test_a_column_with_a_time_zone_gives_the_same_rows_whatever_the_hosts_zone(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / snapshot_name(60_000))) as file:
        file.execute("CREATE TABLE samples (ts TIMESTAMPTZ, amount DOUBLE)")
        file.execute("INSERT INTO samples VALUES (to_timestamp(1), 1.5), (to_timestamp(11), 2)")
    read = "SELECT epoch_ms(ts) // $step_ms * $step_ms AS time, sum(amount) AS value FROM samples WHERE {span} GROUP BY ALL"
    spans = (
        "ts >= make_timestamp_ms($from_ms) AND ts < make_timestamp_ms($to_ms)",
        "date_trunc('day', ts) = make_timestamp_ms($from_ms)",
        "ts::DATE = DATE '1970-01-01'",
        "hour(ts) = 0",
    )
    asked = [read.format(span=span) for span in spans]
    assert await asyncio.to_thread(answered_in_new_york, tmp_path, asked) == [{"": {"0": 1.5, "10000": 2.0}}] * len(spans)


def answered_in_new_york(folder: Path, asked: list[str]) -> Any:
    """What a bridge on a host in New York answers to these templates."""
    program = """
import asyncio, json, sys
from pathlib import Path
from tests.sources.duckdb.test_duckdb import DuckDBRead, ask, shown, source_of

async def main():
    source = source_of(Path(sys.argv[1]))
    print(json.dumps([shown(await ask(source, DuckDBRead(source="lake", sql=sql))) for sql in json.loads(sys.argv[2])]))
    await source.close()

asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(folder), json.dumps(asked)]
    environment = {**os.environ, "TZ": "America/New_York", "PYTHONPATH": os.pathsep.join(sys.path)}
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


async def test_nothing_found_is_an_empty_frame_that_knows_how_far_the_data_goes(lake: DuckDBSource) -> None:
    found = await ask(lake, where=(Matcher("account", "=", ("nobody",)),))
    assert (len(found), found.series, found.covers_to_ms) == (0, (), 60_000)


@pytest.mark.parametrize(
    "statement",
    [
        "COPY samples TO '{folder}/out.csv'",
        "SELECT * FROM read_csv('{folder}/latest')",
        "SELECT * FROM glob('{folder}/*')",
        "ATTACH '{folder}/other.duckdb' AS other",
        "EXPORT DATABASE '{folder}/export'",
        "INSTALL httpfs",
        "SET memory_limit = '8GB'",
        "SET enable_external_access = true",
        "CREATE TABLE mine (a INT)",
    ],
)
async def test_sql_reaches_nothing_outside_the_snapshot(lake: DuckDBSource, snapshots: SnapshotPublisher, statement: str) -> None:
    await ask(lake)
    snapshot = lake._snapshots.current  # noqa: SLF001  the connection itself is what is tested
    assert snapshot is not None
    with pytest.raises(duckdb.Error):
        snapshot.connection.cursor().execute(statement.format(folder=snapshots.snapshots))


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT nonsense", SourceRejected),
        ("SELECT 0 AS time, amout AS value FROM samples", SourceRejected),
        ("SELECT 'x' AS time, 1 AS value", SourceRejected),
        ("SELECT 1 AS value", SourceRejected),
        ("SELECT i AS time, 1 AS value FROM range(101) t(i)", SourceOverloaded),
    ],
)
async def test_what_goes_wrong_in_the_engine_says_who_must_act(
    snapshots: SnapshotPublisher, sql: str, error: type[Exception]
) -> None:
    source = source_of(snapshots.snapshots, max_rows=100)
    with pytest.raises(error):
        await ask(source, DuckDBRead(source="lake", sql=sql))
    await source.close()


async def test_the_engines_own_time_limit_is_a_time_out(snapshots: SnapshotPublisher) -> None:
    source = source_of(snapshots.snapshots, max_execution_time_s=0.1)
    with pytest.raises(SourceTimeout):
        await ask(source, ENDLESS)
    await source.close()


async def test_a_cancelled_query_is_gone_within_a_quarter_of_a_second_and_its_neighbours_go_on(lake: DuckDBSource) -> None:
    await ask(lake)

    async def cancelled_s() -> float:
        running = [asyncio.create_task(ask(lake, ENDLESS)) for _ in range(5)]
        await asyncio.sleep(0.2)
        begun = time.perf_counter()
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        assert shown(await ask(lake)) == {"": {0: 3.5, 10_000: None, 20_000: 4.25}}
        return time.perf_counter() - begun

    assert await quickest(cancelled_s, 0.25) < 0.25
    before = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - before < 0.1, "a thread goes on computing"


async def test_a_query_that_is_cancelled_before_it_begins_never_runs(lake: DuckDBSource) -> None:
    for _ in range(50):
        task = asyncio.create_task(ask(lake, ENDLESS))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert len(await ask(lake)) == 3


async def test_no_snapshot_is_unavailable_and_names_the_folder(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    with pytest.raises(SourceUnavailable, match="no snapshot in"):
        await ask(source)
    assert source.age_s() is None
    await source.close()


async def test_snapshots_are_swapped_under_load_without_a_failed_query(lake: DuckDBSource, snapshots: SnapshotPublisher) -> None:
    asked = 0
    seen: set[int | None] = set()
    done = asyncio.Event()

    async def load() -> None:
        nonlocal asked
        while not done.is_set():
            found = await ask(lake, by=("account",))
            seen.add(found.covers_to_ms)
            asked += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(load())
        for place in range(20):
            old = sorted(snapshots.snapshots.glob("snap-*"))[:-2]
            await asyncio.to_thread(snapshots.publish, 60_000 + 1000 * (place + 1))
            for file in old:
                file.unlink()
            async with asyncio.timeout(30):
                while asked < 25 * (place + 1) or len(seen) < place + 2:  # each is in use before the next one comes
                    await asyncio.sleep(0.002)
        done.set()
    assert (asked >= 500, len(seen)) == (True, 21)


async def test_an_old_snapshot_is_closed_when_its_last_query_has_ended(lake: DuckDBSource, snapshots: SnapshotPublisher) -> None:
    await ask(lake)
    first = lake._snapshots.current  # noqa: SLF001  its closing is what is tested
    assert first is not None
    running = asyncio.create_task(ask(lake, ENDLESS))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(snapshots.publish, 61_000)
    assert (await ask(lake)).covers_to_ms == 61_000
    first.connection.execute("SELECT 1")
    running.cancel()
    await asyncio.wait([running])
    await ask(lake)
    with pytest.raises(duckdb.ConnectionException):
        first.connection.execute("SELECT 1")


async def test_for_a_damaged_snapshot_the_one_before_stands_in_and_is_as_old_as_it_is(
    lake: DuckDBSource, snapshots: SnapshotPublisher
) -> None:
    await ask(lake)
    damaged = snapshot_name(70_000)
    (snapshots.snapshots / damaged).write_bytes(b"not a database" * 1000)
    snapshots.point(damaged)
    found = await ask(lake)
    assert found.covers_to_ms == 60_000
    assert f"snapshot {damaged} cannot be opened" in str(found.older_copy)
    await asyncio.to_thread(snapshots.publish, 80_000)
    assert (await ask(lake)).older_copy is None


async def test_a_snapshot_whose_file_is_gone_goes_on_serving_marked(lake: DuckDBSource, snapshots: SnapshotPublisher) -> None:
    await ask(lake)
    for file in snapshots.snapshots.iterdir():
        file.unlink()
    found = await ask(lake)
    assert (found.covers_to_ms, "is gone, and there is no other" in str(found.older_copy)) == (60_000, True)


@pytest.mark.parametrize("pointer", [None, "", "garbage", "../../etc/passwd", "snap-20261399T000000.000Z.duckdb"])
async def test_without_a_right_pointer_the_newest_snapshot_is_used(
    lake: DuckDBSource, snapshots: SnapshotPublisher, pointer: str | None
) -> None:
    await asyncio.to_thread(snapshots.publish, 90_000)
    if pointer is None:
        (snapshots.snapshots / "latest").unlink()
    else:
        snapshots.point(pointer)
    found = await ask(lake)
    assert (found.covers_to_ms, bool(found.notices)) == (90_000, pointer is not None)


async def test_a_pointer_to_a_file_that_is_gone_falls_back_to_the_newest(
    lake: DuckDBSource, snapshots: SnapshotPublisher
) -> None:
    snapshots.point(snapshot_name(99_000))
    found = await ask(lake)
    assert (found.covers_to_ms, "cannot be opened" in str(found.older_copy)) == (60_000, True)


async def test_a_snapshot_from_the_future_is_marked_and_its_time_not_believed(
    lake: DuckDBSource, snapshots: SnapshotPublisher
) -> None:
    await asyncio.to_thread(snapshots.publish, (int(time.time()) + 3600) * 1000)
    found = await ask(lake)
    assert found.covers_to_ms is not None
    assert abs(found.covers_to_ms - time.time() * 1000) < 5000
    assert "is dated in the future" in found.notices[0].text


async def test_the_snapshots_age_is_reported(lake: DuckDBSource) -> None:
    await ask(lake)
    age_s = lake.age_s()
    assert age_s is not None
    assert abs(age_s - (time.time() - 60)) < 5


async def test_ping_names_the_engine_and_the_snapshot(lake: DuckDBSource) -> None:
    assert await lake.ping() == f"DuckDB v{duckdb.__version__}, {snapshot_name(60_000)}"


async def test_columns_without_a_value_are_events_in_the_order_of_time(lake: DuckDBSource) -> None:
    read = DuckDBRead(
        source="lake", sql="SELECT epoch_ms(ts) AS time, account AS title FROM samples WHERE amount > 1 ORDER BY ts DESC"
    )
    found = await ask(lake, read)
    assert (found.time.tolist(), found.text) == ([1000, 2000, 21000], {"title": ("A1", "A2", "10")})


@pytest.mark.parametrize(
    ("name", "covers"), [("snap-19700101T000100.250Z.duckdb", 60_250), ("snap-x.duckdb", None), ("latest", None)]
)
def test_a_snapshots_name_states_how_far_it_goes(name: str, covers: int | None) -> None:
    assert covers_to_ms(name) == covers


@pytest.mark.parametrize(
    ("sql", "remark"),
    [
        ("SELECT 1; SELECT 2", "exactly one SELECT is allowed"),
        ("DROP TABLE samples", "exactly one SELECT is allowed"),
        ("SELEC 1", "not SQL"),
        ("SELECT $frm_ms AS time, 1 AS value", "unknown parameter $frm_ms; allowed: $from_ms, $to_ms, $step_ms, $now_ms"),
        ("SELECT {bye} 1 AS time", "unknown placeholder {bye}"),
    ],
)
def test_a_wrong_read_is_found_before_it_is_asked(sql: str, remark: str) -> None:
    assert [text for _, text in DuckDBRead(source="lake", sql=sql).problems() if text.startswith(remark)] != []
