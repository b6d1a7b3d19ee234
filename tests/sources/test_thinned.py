"""A store that thins gives what is needed to show the same points as its whole answer, thinned here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import clickhouse_connect
import duckdb
import numpy as np
import pytest

from app.model import Frame, Matcher, Statement, TimeRange
from app.series import clip, newest, thin
from app.sources.base import Ask, Read
from app.sources.clickhouse.source import ClickHouseRead
from app.sources.duckdb.source import DuckDBRead
from app.sources.sql.read import Samples, SqlRead
from app.sources.sql.rows import TIMES, VALUES, frame_of_points, select_series
from tests.frames import shown

BEGIN = 1_700_000_000_000
STEP = 10_000
ROWS = 3000
#: a course with ties, stretches of nulls, an infinity (the quotient of a division by zero) and a series that ends in nulls
COURSE = """CASE WHEN n BETWEEN 500 AND 640 OR (a = 'B' AND n > 2900) THEN NULL
    WHEN n % 977 = 3 THEN 'inf'::DOUBLE ELSE (n * 7919 % 13)::DOUBLE END"""
Engine = Callable[..., Frame]


def _span() -> TimeRange:
    return TimeRange(BEGIN, BEGIN + ROWS * STEP, STEP)


def _duckdb(thin_ms: int, label: str = "account", thin_to_ms: int = BEGIN + ROWS * STEP) -> Frame:
    sql = f"""SELECT ($from_ms + n * $step_ms) AS time, {{by}}, {COURSE} AS value
        FROM range({ROWS}) r(n), (VALUES ('A'), ('B')) s(a) WHERE $from_ms + n * $step_ms < $to_ms {{where}}"""
    statement = _statement(DuckDBRead(source="d", labels={label: "a"}, sql=sql), thin_ms, thin_to_ms)
    found = duckdb.connect().execute(select_series(statement, 10**6, DuckDBRead.dialect), dict(statement.params)).fetchnumpy()
    return frame_of_points(statement, {label: found[label].tolist()}, list(found[TIMES]), list(found[VALUES]))


def _clickhouse(thin_ms: int, label: str = "account", thin_to_ms: int = BEGIN + ROWS * STEP) -> Frame:
    course = COURSE.replace("'inf'::DOUBLE", "toFloat64(1) / 0").replace("(n * 7919 % 13)::DOUBLE", "toFloat64(n * 7919 % 13)")
    sql = f"""SELECT {{from_ms:Int64}} + n * {{step_ms:Int64}} AS time, {{by}}, {course} AS value
        FROM (SELECT number AS n, arrayJoin(['A', 'B']) AS a FROM numbers({ROWS})) WHERE 1 {{where}}"""
    statement = _statement(ClickHouseRead(source="c", labels={label: "a"}, sql=sql), thin_ms, thin_to_ms)
    with clickhouse_connect.get_client(interface="chdb") as client:
        text = select_series(statement, 10**6, ClickHouseRead.dialect)
        found = client.query(text, parameters=dict(statement.params), column_oriented=True)
    columns = dict(zip(found.column_names, found.result_columns, strict=True))
    times, values = ([np.array(one) for one in columns[name]] for name in (TIMES, VALUES))
    return frame_of_points(statement, columns, times, values)


def _statement(read: Read, thin_ms: int, thin_to_ms: int) -> Statement:
    return replace(read.statement(Ask("m", _span(), (*read.labels,))), thin_ms=thin_ms, thin_to_ms=thin_to_ms)


@pytest.mark.parametrize("engine", [_duckdb, _clickhouse])
@pytest.mark.parametrize("width", [7, 50, 700])
def test_what_a_store_has_thinned_is_shown_as_its_whole_answer_would_be(engine: Engine, width: int) -> None:
    whole, thinned = engine(0, "account"), engine(width * STEP, "account")
    assert (len(whole), len(thinned) < len(whole)) == (2 * ROWS, True)
    assert shown(thin(thinned, width * STEP)) == shown(thin(whole, width * STEP))


@pytest.mark.parametrize("engine", [_duckdb, _clickhouse])
@pytest.mark.parametrize("width", [50, 700, 10**7])
def test_from_where_the_live_edge_may_replace_rows_every_row_comes_and_takes_no_others_place(engine: Engine, width: int) -> None:
    to_ms = BEGIN + 2_345 * STEP
    whole, thinned = engine(0), engine(width * STEP, thin_to_ms=to_ms)
    late, early = (to_ms, BEGIN + ROWS * STEP), (0, to_ms)
    # An infinity is no value of a point.
    whole = replace(whole, value=np.where(np.isinf(whole.value), np.nan, whole.value))
    assert shown(clip(thinned, *late)) == shown(clip(whole, *late))
    assert shown(thin(clip(thinned, *early), width * STEP)) == shown(thin(clip(whole, *early), width * STEP))


@pytest.mark.parametrize("engine", [_duckdb, _clickhouse])
def test_of_one_stretch_for_all_the_newest_known_value_of_each_series_is_there(engine: Engine) -> None:
    whole, thinned = engine(0, "account"), engine(10**14, "account")
    assert (shown(newest(thinned)), len(thinned) <= 8) == (shown(newest(whole)), True)


@pytest.mark.parametrize("engine", [_duckdb, _clickhouse])
@pytest.mark.parametrize("label", ["v", "t", "picked", "stretch", "one", "row", "times", "values", "kept"])
def test_a_label_of_any_name_is_not_taken_for_a_column_of_the_thinning(engine: Engine, label: str) -> None:
    found = [engine(50 * STEP, name) for name in ("account", label)]
    assert found[0].time.tolist() == found[1].time.tolist()
    assert np.array_equal(found[0].value, found[1].value, equal_nan=True)
    assert [labels for labels, _, _ in found[1].runs()] == [((label, "A"),), ((label, "B"),)]


#: a sample every ten seconds, at a second of its own for each account; constant for a while, so that there are ties
SAMPLES = """(SELECT BEGIN + n * 10000 + a * 3000 AS at_ms, n AS at_n, 'A' || a AS account_id, 'B' || a % 2 AS broker_id,
    CASE WHEN n % 211 = 5 THEN NULL ELSE (n // 3 * 7919 + a * 31) % 97 END AS equity FROM range(2000) r(n), range(5) s(a))"""
READS = {
    "duckdb": (DuckDBRead, SAMPLES, "$from_ms", "$to_ms", "$step_ms", "at_ms // $step_ms * $step_ms", "arg_max(equity, at_ms)"),
    "clickhouse": (
        ClickHouseRead,
        """(SELECT BEGIN + n * 10000 + a * 3000 AS at_ms, n AS at_n, concat('A', toString(a)) AS account_id,
        concat('B', toString(a % 2)) AS broker_id, if(n % 211 = 5, NULL, (intDiv(n, 3) * 7919 + a * 31) % 97) AS equity
        FROM (SELECT number AS n, arrayJoin(range(5)) AS a FROM numbers(2000)))""",
        "{from_ms:Int64}",
        "{to_ms:Int64}",
        "{step_ms:Int64}",
        "intDiv(at_ms, {step_ms:Int64}) * {step_ms:Int64}",
        "argMax(tuple(equity), at_ms).1",
    ),
}


def _of_samples(engine: str) -> SqlRead:
    kind, table, begins, ends, _, bucket, newest_value = READS[engine]
    rows = f"FROM {table.replace('BEGIN', str(BEGIN))} q WHERE at_ms >= {begins} AND at_ms < {ends} {{where}}"
    inner = f"SELECT {bucket} AS time, account_id, broker_id, {newest_value} AS value {rows} GROUP BY time, account_id, broker_id"
    return kind(
        source="s",
        labels={"account": "account_id", "broker": "broker_id"},
        sql=f"SELECT time, {{by}}, sum(value) AS value FROM ({inner}) p GROUP BY ALL ORDER BY time",
        samples=Samples(each=("account",), sql=f"SELECT at_ms AS time, {{by}}, equity AS value {rows}"),
    )


def _fetched(read: SqlRead, statement: Statement) -> Frame:
    if isinstance(read, DuckDBRead):
        text = select_series(statement, 10**6, DuckDBRead.dialect)
        columns = duckdb.connect().execute(text, dict(statement.params)).fetchnumpy()
        cells = {label: columns[label].tolist() for label in statement.labels}
    else:
        with clickhouse_connect.get_client(interface="chdb") as client:
            text = select_series(statement, 10**6, ClickHouseRead.dialect)
            found = client.query(text, parameters=dict(statement.params), column_oriented=True)
        columns = {name: list(column) for name, column in zip(found.column_names, found.result_columns, strict=True)}
        cells = columns
    times, values = ([np.array(one) for one in columns[name]] for name in (TIMES, VALUES))
    return frame_of_points(statement, cells, times, values)


@pytest.mark.parametrize("engine", READS)
@pytest.mark.parametrize("by", [("account",), ("account", "broker")])
@pytest.mark.parametrize("width", [3, 40, 500, 10**7])
def test_the_samples_themselves_thinned_are_the_points_of_the_fine_answer_thinned(
    engine: str, by: tuple[str, ...], width: int
) -> None:
    read, span = _of_samples(engine), TimeRange(BEGIN, BEGIN + 1900 * STEP, STEP)
    fine = read.statement(Ask("m", span, by, (Matcher("account", "!=", ("A3",)),)))
    thinned = replace(fine, thin_ms=width * STEP, thin_to_ms=BEGIN + 1700 * STEP)
    direct = read.sampled_statement(thinned)
    assert direct.text != thinned.text
    found, whole = _fetched(read, direct), _fetched(read, fine)
    late, early = (BEGIN + 1700 * STEP, BEGIN + 1900 * STEP), (0, BEGIN + 1700 * STEP)
    assert (len(whole.series), shown(clip(found, *late))) == (4, shown(clip(whole, *late)))
    assert shown(thin(clip(found, *early), width * STEP)) == shown(thin(clip(whole, *early), width * STEP))
    assert shown(newest(found)) == shown(newest(whole))


@pytest.mark.parametrize("engine", READS)
def test_figures_of_several_accounts_are_put_together_before_they_are_thinned(engine: str) -> None:
    read = _of_samples(engine)
    for by in ((), ("broker",)):
        total = replace(read.statement(Ask("m", _span(), by)), thin_ms=50 * STEP)
        assert read.sampled_statement(total) is total
    unthinned = read.statement(Ask("m", _span(), ("account",)))
    assert read.sampled_statement(unthinned) is unthinned
