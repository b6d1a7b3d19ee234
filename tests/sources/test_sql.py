from __future__ import annotations

import pytest

from app.sources.sql.dialect import DUCKDB
from app.sources.sql.template import drop_final_order, template_problems, yields_points


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("SELECT 1 AS time, 2 AS value ORDER BY time", "SELECT 1 AS time, 2 AS value "),
        ("SELECT 1 AS time, 2 AS value order  by Time\n", "SELECT 1 AS time, 2 AS value "),
        ("SELECT 1 AS time ORDER BY time LIMIT 5", None),
        ("SELECT 1 AS time ORDER BY time DESC", None),
        ("SELECT 1 AS time ORDER BY time, account", None),
        ("SELECT 1 AS time, sum(x) OVER (ORDER BY time)", None),
        ("SELECT 1 AS time ORDER BY lifetime", None),
    ],
)
def test_only_an_order_by_time_at_the_very_end_is_left_out(text: str, left: str | None) -> None:
    assert drop_final_order(text) == (text if left is None else left)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("SELECT 1 AS time, 2 AS value", True),
        ("SELECT 1 as time, x as Value", True),
        ("SELECT 1 AS time, t AS title", False),
        ("SELECT 1 AS time, 'x AS value' AS title -- AS value\n/* 2 AS value */", False),
    ],
)
def test_points_have_a_value_and_events_none(text: str, points: bool) -> None:
    assert yields_points(text, DUCKDB) is points


@pytest.mark.parametrize(
    ("conditions", "wrong"),
    [
        ("a OR b {where}", True),
        ("(a OR b) {where}", False),
        ("a {where} OR b", True),
        ("x IN (SELECT y FROM u WHERE a OR b {where})", True),
        ("x IN (SELECT y FROM u WHERE a OR b) {where}", False),
        ("a = ' OR ' {where} -- OR", False),
        ('"or" = 1 {where}', False),
        ("a {where} ORDER BY a OR b", False),
    ],
)
def test_a_filter_beside_an_or_would_narrow_one_side_only(conditions: str, wrong: bool) -> None:
    sql = f"SELECT a OR b AS time, 1 AS value FROM t WHERE {conditions}"
    assert [key for key, text in template_problems(sql, {}, ("where",), DUCKDB) if "beside an OR" in text] == ["sql"] * wrong


@pytest.mark.parametrize(
    ("sql", "wrong"),
    [
        ("SELECT 1 FROM a WHERE x {where} UNION ALL SELECT 1 FROM b WHERE x", True),
        ("SELECT 1 FROM a WHERE x UNION SELECT 1 FROM b WHERE x {where}", True),
        ("SELECT 1 FROM (SELECT x FROM a WHERE x {where} UNION ALL SELECT x FROM b) WHERE x", True),
        ("SELECT 1 FROM a WHERE x {where} UNION ALL (SELECT 1 FROM b)", True),
        ("SELECT 1 FROM a WHERE x {where} UNION ALL SELECT 1 FROM b WHERE x {where}", False),
        ("SELECT 1 FROM a WHERE x {where} UNION ALL (SELECT 1 FROM (SELECT x FROM b WHERE x {where}))", False),
        ("SELECT 1 FROM (SELECT x FROM a UNION ALL SELECT x FROM b) WHERE x {where}", False),
        ("WITH c AS (SELECT x FROM a UNION ALL SELECT x FROM b) SELECT 1 FROM c WHERE x {where} -- UNION", False),
        ("SELECT 1 AS \"union\" FROM a WHERE 'union' {where}", False),
    ],
)
def test_a_filter_narrows_every_part_of_a_union(sql: str, wrong: bool) -> None:
    assert [key for key, text in template_problems(sql, {}, ("where",), DUCKDB) if "part of a UNION" in text] == ["sql"] * wrong
