"""Which reads may be asked for a part of their buckets: only those that are certain to say the same of them."""

from __future__ import annotations

import pytest

from app.sources.clickhouse.source import ClickHouseRead
from app.sources.duckdb.source import DuckDBRead
from app.sources.prometheus.source import PrometheusRead
from app.sources.redis.hashes import HashesRead
from app.sources.sql import template

WINDOW = "ts >= make_timestamp_ms($from_ms) AND ts < make_timestamp_ms($to_ms)"
DUCKDB = (
    f"SELECT epoch_ms(ts) // $step_ms * $step_ms AS time, {{by}}, max(x) AS value FROM t WHERE {WINDOW} {{where}} GROUP BY ALL"
)
CLICKHOUSE = (
    "SELECT intDiv(toUnixTimestamp64Milli(ts), {step_ms:Int64}) * {step_ms:Int64} AS time, {by}, sum(x) AS value FROM t "
    "WHERE ts >= fromUnixTimestamp64Milli({from_ms:Int64}) AND ts < fromUnixTimestamp64Milli({to_ms:Int64}) {where} GROUP BY ALL"
)


@pytest.mark.parametrize(
    ("change", "sliceable"),
    [
        (("", ""), True),
        (("max(x)", "sum(x) / nullif(count(*), 0)"), True),
        (("max(x)", "sum(sum(x)) OVER (ORDER BY 1)"), False),
        (("GROUP BY ALL", "GROUP BY ALL LIMIT 10"), False),
        (("ts >= ", "ts > "), False),
        (("$from_ms)", "$from_ms - 60000)"), False),
        (("{where}", "{where} AND x > (SELECT avg(x) FROM t WHERE ts < make_timestamp_ms($to_ms))"), False),
        (("epoch_ms(ts) // $step_ms * $step_ms AS time", "max(ts) AS time"), False),
        (("max(x)", "max(x) * $now_ms"), False),
        (("max(x)", "max(x) + date_part('hour', now())"), False),
        (("FROM t ", "FROM t ASOF JOIN u USING (ts) "), False),
    ],
)
def test_a_template_is_sliceable_where_the_range_only_says_which_rows_are_read(change: tuple[str, str], sliceable: bool) -> None:
    assert template.is_sliceable(DUCKDB.replace(*change, 1)) is sliceable


@pytest.mark.parametrize(
    ("change", "sliceable"),
    [
        (("", ""), True),
        (("FROM t", "FROM t FINAL"), True),
        (("sum(x)", "arrayElement(groupArray(x), 1)"), False),
        (("sum(x)", "runningDifference(sum(x))"), False),
        (("GROUP BY ALL", "GROUP BY ALL ORDER BY time WITH FILL STEP {step_ms:Int64}"), False),
        (("sum(x)", "lagInFrame(sum(x)) OVER (ORDER BY time)"), False),
        (("{to_ms:Int64})", "{to_ms:Int64} + 1000)"), False),
    ],
)
def test_a_clickhouse_read_is_sliceable_where_the_range_only_says_which_rows_are_read(
    change: tuple[str, str], sliceable: bool
) -> None:
    assert ClickHouseRead(source="clickhouse", sql=CLICKHOUSE.replace(*change, 1)).sliceable is sliceable


@pytest.mark.parametrize(
    ("query", "sliceable"),
    [
        ("sum by ({by}) (rate(x{where}[{window}]))", True),
        ("x{where} offset 1h", True),
        ("x{where} offset -1h", False),
        ("x{where} @ end()", False),
    ],
)
def test_a_prometheus_read_is_sliceable_unless_its_buckets_are_evaluated_elsewhen(query: str, sliceable: bool) -> None:
    assert PrometheusRead(source="prometheus", query=query).sliceable is sliceable


def test_a_read_of_snapshots_is_sliceable_as_its_template_is() -> None:
    limited = DUCKDB.replace("GROUP BY ALL", "GROUP BY ALL LIMIT 10")
    assert [DuckDBRead(source="duckdb", sql=sql).sliceable for sql in (DUCKDB, limited)] == [True, False]


def test_a_live_read_is_not_sliceable() -> None:
    assert not HashesRead(source="rts", index="i", hash="h:{id}", field="f", aggregate="sum").sliceable
