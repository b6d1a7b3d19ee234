"""What a statement brings back, on the wire and on the embedded engine alike."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.errors import SourceError, SourceOverloaded, SourceRejected, SourceTimeout
from app.model import Matcher, TimeRange
from app.sources.base import Ask
from app.sources.clickhouse.source import ClickHouseRead, ClickHouseSource
from tests.sources.clickhouse.conftest import DATABASE, SLOW, TEN_MINUTES, Store, series, statement, until
from tests.sources.sql_shapes import RIGHT, WRONG, shaped

AVERAGE = """
    SELECT toUnixTimestamp64Milli(toStartOfInterval(at, toIntervalMillisecond({step_ms:Int64}))) AS time, {by}, avg(lots) AS value
    FROM fills
    WHERE at >= fromUnixTimestamp64Milli({from_ms:Int64}) AND at < fromUnixTimestamp64Milli({to_ms:Int64}) {where}
    GROUP BY ALL ORDER BY time
"""
EACH = "SELECT toInt64(number) AS time, {by}, 1 AS value FROM words WHERE 1 {where} ORDER BY time"

#: Labels that try to leave their quotes, and labels that look like numbers.
WORDS = (
    *("", "a", "A", "ab", "b'c", 'b"c', "x' OR 1=1 --", "\\", "\\'", "tab\there", "line\nbreak", "{where}", "{w0:String}"),
    *("%s", "é", "\U0001f600", "NULL", "10", "9", "-1.5", "1e1", "100000000000000000000", "[a]", "a,b"),
)


@pytest.fixture(scope="module", autouse=True)
def tables(store: Store) -> None:
    store.execute(f"DROP TABLE IF EXISTS {DATABASE}.fills")
    store.execute(
        f"""CREATE TABLE {DATABASE}.fills (at DateTime64(3, 'UTC'), account LowCardinality(String),
        side Enum8('buy' = 1, 'sell' = -1), retcode UInt16, note Nullable(String), lots Decimal(12, 4))
        ENGINE = MergeTree ORDER BY (account, at)"""
    )
    store.execute(
        f"""INSERT INTO {DATABASE}.fills VALUES ('1970-01-01 00:00:00.000', 'A1', 'buy', 10009, NULL, 1.5),
        ('1970-01-01 00:00:59.999', 'A1', 'sell', 10009, 'late', 0.25), ('1970-01-01 00:01:00.000', 'A1', 'buy', 10006, '', 3),
        ('1970-01-01 00:01:30.000', 'B2', 'sell', 10009, 'x', 0.0001), ('1970-01-01 00:10:00.000', 'B2', 'buy', 10009, 'x', 9)"""
    )
    store.execute(f"DROP TABLE IF EXISTS {DATABASE}.words")
    store.execute(f"CREATE TABLE {DATABASE}.words (number UInt32, word Nullable(String)) ENGINE = MergeTree ORDER BY number")
    texts = ", ".join(f"({place}, {_literal(word)})" for place, word in enumerate(WORDS))
    store.execute(f"INSERT INTO {DATABASE}.words VALUES {texts}, (1000, NULL)")


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t") + "'"


@pytest.mark.parametrize("shape", RIGHT.values(), ids=RIGHT)
async def test_the_check_is_content_with_what_the_engine_answers(source: ClickHouseSource, shape: str) -> None:
    read = ClickHouseRead(source="history", sql=shaped(shape, AVERAGE, "at >="), labels={"account": "account"})
    assert list(read.problems()) == []
    only = (Matcher("account", "=", ("A1",)),)
    found = await source.fetch(read.statement(Ask("m", TEN_MINUTES, ("account",), only)))
    assert series(found) == {(("account", "A1"),): [(0, 0.875), (60_000, 3.0)]}


@pytest.mark.parametrize("shape", WRONG.values(), ids=WRONG)
def test_the_check_is_not_content_with_what_the_engine_refuses(shape: str) -> None:
    assert list(ClickHouseRead(source="history", sql=shaped(shape, AVERAGE, "at >=")).problems()) != []


async def test_a_time_that_names_no_zone_is_utc_whatever_the_hosts_zone(tmp_path: Path) -> None:
    sql = "SELECT toInt64(toUnixTimestamp(toStartOfDay(toDateTime('1970-01-02 01:00:00')))) * 1000 AS time, 1 AS value"
    assert await asyncio.to_thread(answered_in_new_york, tmp_path, sql) == [86_400_000]


def answered_in_new_york(folder: Path, sql: str) -> Any:
    """What a bridge with an embedded engine on a host in New York answers to this template: the times."""
    program = """
import asyncio, json, sys
from pathlib import Path
from tests.sources.clickhouse.conftest import ClickHouseConfig, statement

async def main():
    source = ClickHouseConfig(interface="chdb", path=Path(sys.argv[1]), database="default").build("history")
    print(json.dumps((await source.fetch(statement(sys.argv[2]))).time.tolist()))
    await source.close()

asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(folder), sql]
    environment = {**os.environ, "TZ": "America/New_York", "PYTHONPATH": os.pathsep.join(sys.path)}
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


async def test_the_kept_labels_make_the_series(source: ClickHouseSource) -> None:
    frame = await source.fetch(statement(AVERAGE, by=("account", "direction"), direction="side"))
    assert series(frame) == {
        (("account", "A1"), ("direction", "buy")): [(0, 1.5), (60_000, 3.0)],
        (("account", "A1"), ("direction", "sell")): [(0, 0.25)],
        (("account", "B2"), ("direction", "sell")): [(60_000, 0.0001)],
    }


async def test_without_kept_labels_there_is_one_series(source: ClickHouseSource) -> None:
    frame = await source.fetch(statement(AVERAGE, account="account"))
    assert series(frame) == {(): [(0, 0.875), (60_000, 1.50005)]}


async def test_the_range_and_the_step_are_bound(source: ClickHouseSource) -> None:
    frame = await source.fetch(statement(AVERAGE, span=TimeRange(60_000, 660_000, 30_000), account="account"))
    assert series(frame) == {(): [(60_000, 3.0), (90_000, 0.0001), (600_000, 9.0)]}


async def test_labels_of_any_column_type_are_text_and_null_is_the_empty_text(source: ClickHouseSource) -> None:
    frame = await source.fetch(
        statement(AVERAGE, by=("retcode", "note"), where=(Matcher("retcode", "!=", ("10006",)),), note="note")
    )
    assert {tuple(value for _, value in labels) for labels in frame.series} == {("", "10009"), ("late", "10009"), ("x", "10009")}


async def test_a_word_that_an_enum_does_not_know_matches_nothing(source: ClickHouseSource) -> None:
    frame = await source.fetch(statement(AVERAGE, where=(Matcher("side", "=", ("hold",)),), side="side"))
    assert len(frame) == 0
    assert frame.series == ()


async def test_a_percent_sign_in_the_statement_is_itself(source: ClickHouseSource) -> None:
    frame = await source.fetch(statement("SELECT toInt64(7 % 4) AS time, '%s' LIKE '%%' AS value"))
    assert series(frame) == {(): [(3, 1.0)]}


async def test_five_hundred_long_values_are_bound(source: ClickHouseSource) -> None:
    values = (*(f"{place}".rjust(200, "-") for place in range(500)), "a")
    frame = await source.fetch(statement(EACH, by=("word",), where=(Matcher("word", "=|", values),), word="word"))
    assert frame.series == ((("word", "a"),),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("toDecimal64('-12.3456', 4)", -12.3456),
        ("toNullable(toDecimal128('99999999999999.5', 2))", 99999999999999.5),
        ("toUInt64(18446744073709551615)", 18446744073709551615.0),
        ("CAST(NULL AS Nullable(Float64))", None),
        ("NULL", None),
        ("nan", None),
        ("1 / 0", None),
        ("-1 / 0", None),
        ("toFloat32(0.5)", 0.5),
        ("true", 1.0),
        ("count()", 1.0),
    ],
)
async def test_any_number_becomes_a_float_and_what_is_none_becomes_null(
    source: ClickHouseSource, value: str, expected: float | None
) -> None:
    frame = await source.fetch(statement(f"SELECT toInt64(7000) AS time, {value} AS value;"))
    assert series(frame) == {(): [(7000, expected)]}


async def test_no_rows_are_an_empty_frame(source: ClickHouseSource) -> None:
    later = TimeRange(3_600_000, 7_200_000, 60_000)
    frame = await source.fetch(statement(AVERAGE, by=("account",), span=later, account="account"))
    assert (len(frame), frame.series, frame.offsets) == (0, (), (0,))


async def test_many_rows_come_back_whole_and_in_order(source: ClickHouseSource) -> None:
    sql = """SELECT toInt64((99999 - number) * 1000) AS time, {by}, number AS value, number % 3 AS lane
        FROM numbers(100000) WHERE {from_ms:Int64} = 0 {where}"""
    frame = await source.fetch(statement(sql, by=("kind",), kind="lane"))
    assert frame.series == ((("kind", "0"),), (("kind", "1"),), (("kind", "2"),))
    assert len(frame) == 100_000
    assert all((times[1:] > times[:-1]).all() and (values == 99_999 - times / 1000).all() for _, times, values in frame.runs())


async def test_columns_without_a_value_are_events_in_the_order_of_time(source: ClickHouseSource) -> None:
    sql = """SELECT toUnixTimestamp64Milli(at) AS time, if(isNull(note), NULL, time + 5) AS time_end, note AS title,
        ['a', toString(side)] AS tags, {by} retcode AS id FROM fills WHERE account = 'A1' {where} ORDER BY time DESC"""
    frame = await source.fetch(statement(sql, where=(Matcher("side", "=", ("buy",)),), side="side"))
    assert frame.time.tolist() == [0, 60_000]
    assert (frame.series, frame.offsets) == (((),), (0, 2))
    assert frame.text == {"time_end": (None, "60005"), "title": (None, ""), "tags": ("a,buy", "a,buy"), "id": ("10009", "10006")}


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT toInt64(0) AS time, nosuch AS value FROM fills", "nosuch"),
        ("SELECT toInt64(0) AS time, 1 AS value FROM nosuch", "nosuch"),
        ("SELECT toInt64(0) AS time, nosuch(1) AS value", "nosuch"),
        ("SELECT WHERE 1 AS value, 0 AS time", "Syntax error"),
        ("SELECT toInt64(0) AS time, 'word' AS value", "word"),
        ("SELECT toInt64({missing:Int64}) AS time, 1 AS value", "missing"),
        ("SELECT toInt64(0) AS zeit, 1 AS value", "identifier `time`"),
        ("SELECT at AS time, 1 AS value FROM fills", "toUnixTimestamp64Milli"),
    ],
)
async def test_a_wrong_statement_is_rejected_with_the_reason(source: ClickHouseSource, sql: str, said: str) -> None:
    with pytest.raises(SourceRejected, match=r"^history: ") as refusal:
        await source.fetch(statement(sql))
    assert said in refusal.value.message


async def test_a_label_that_the_statement_does_not_return_is_rejected(source: ClickHouseSource) -> None:
    with pytest.raises(SourceRejected, match="identifier `account`"):
        await source.fetch(statement("SELECT toInt64(0) AS time, 1 AS value", by=("account",)))


async def test_more_rows_than_allowed_are_refused_and_not_cut(store: Store) -> None:
    source = store.config.model_copy(update={"max_rows": 1000}).build("history")
    with pytest.raises(SourceOverloaded, match="more than 1000 rows"):
        await source.fetch(statement("SELECT toInt64(number) AS time, 1 AS value FROM numbers(1001)"))
    frame = await source.fetch(statement("SELECT toInt64(number) AS time, 1 AS value FROM numbers(1000)"))
    assert len(frame) == 1000
    await source.close()


async def test_too_much_memory_is_refused(store: Store) -> None:
    source = store.config.model_copy(update={"max_memory_bytes": 20_000_000}).build("history")
    with pytest.raises(SourceOverloaded, match="memory"):
        await source.fetch(statement("SELECT toInt64(0) AS time, length(groupArray(number)) AS value FROM numbers(100000000)"))
    await source.close()


async def test_the_server_gives_a_statement_up_after_its_time_limit(store: Store) -> None:
    source = store.config.model_copy(update={"max_execution_time_s": 0.3}).build("history")
    started = time.monotonic()
    with pytest.raises(SourceTimeout, match="Timeout exceeded"):
        await source.fetch(statement(SLOW))
    assert time.monotonic() - started < 5  # it would take 20 s
    await source.close()


async def test_a_cancelled_query_is_gone_at_the_engine_and_the_source_goes_on(store: Store, source: ClickHouseSource) -> None:
    asking = asyncio.create_task(source.fetch(statement(SLOW)))
    await until(lambda: store.running() == 1)
    asking.cancel()
    await until(lambda: store.running() == 0)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert series(await source.fetch(statement("SELECT toInt64(0) AS time, 1 AS value"))) == {(): [(0, 1.0)]}


async def test_the_caller_of_a_cancelled_query_is_free_at_once(store: Store, source: ClickHouseSource) -> None:
    asking = asyncio.create_task(source.fetch(statement(SLOW)))
    await until(lambda: store.running() == 1)
    started = time.monotonic()
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    assert time.monotonic() - started < 2  # it would take 20 s


async def test_twenty_cancelled_queries_leave_every_connection_usable(store: Store, source: ClickHouseSource) -> None:
    asking = [asyncio.create_task(source.fetch(statement(SLOW))) for _ in range(20)]
    await until(lambda: store.running() == store.config.pool_size)
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    await until(lambda: store.running() == 0)
    answers = await asyncio.gather(*(source.fetch(statement(f"SELECT toInt64(0) AS time, {n} AS value")) for n in range(20)))
    assert [series(frame) for frame in answers] == [{(): [(0, float(n))]} for n in range(20)]


async def test_ping_says_which_version_answers(source: ClickHouseSource) -> None:
    assert (await source.ping()).startswith("ClickHouse 2")


async def test_a_database_that_is_not_there_is_an_error_until_it_is(store: Store) -> None:
    source = store.config.model_copy(update={"database": "bridge_test_later"}).build("history")
    ask = statement("SELECT toInt64(0) AS time, 1 AS value")
    with pytest.raises(SourceError, match="bridge_test_later"):
        await source.fetch(ask)
    store.execute("CREATE DATABASE bridge_test_later")
    assert len(await source.fetch(ask)) == 1
    await source.close()
    store.execute("DROP DATABASE bridge_test_later")
