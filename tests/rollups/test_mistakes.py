"""`bridge check` says what is wrong with roll-ups in a catalogue."""

from __future__ import annotations

import pytest

from app.catalog import survey_texts

KINDS = {"duckdb": "duckdb", "clickhouse": "clickhouse"}
RIGHT = """
group: accounts
title: Accounts
labels: {account: {title: Account, metric: equity}}
metrics:
  equity:
    title: Equity
    description: What an account is worth
    unit: currencyUSD
    aggregate: sum
    over_time: last
    labels: [account]
    history:
      source: duckdb
      labels: {account: account_id}
      sql: >-
        SELECT epoch_ms(ts) // $step_ms * $step_ms AS time, {by}, max(x) AS value FROM {table} WHERE ts
        >= make_timestamp_ms($from_ms) {where} GROUP BY ALL
      samples: {each: [account], sql: "SELECT epoch_ms(ts) AS time, {by}, x AS value FROM {table} WHERE TRUE {where}"}
      table: samples
      columns: [ts, account_id, x]
      rollups:
        - {from_step: 1m, table: samples_1m}
        - {from_step: 1h, table: samples_1h, labels: [account]}
        - {from_thinned: 1h, table: "(SELECT * FROM extremes_1h)"}
"""
MISTAKES = [
    ("FROM {table} WHERE ts", "FROM samples WHERE ts", "history.sql: has `rollups` but no {table}; write `FROM {table}`"),
    ("x AS value FROM {table}", "x AS value FROM samples", "history.samples.sql: is missing or has no {table}"),
    ("      table: samples\n", "", "history.table: is missing: which table does {table} stand for?"),
    ("      columns: [ts, account_id, x]\n", "", "history.columns: is missing: the columns that the template reads of {table}"),
    ("columns: [ts, account_id, x]", "columns: [ts, x]", "history.columns: lacks account_id, a label's column"),
    ("columns: [ts, account_id, x]", 'columns: ["ts; DROP"]', "history.columns.0: "),
    (
        "labels: [account]}\n        - {from_t",
        "labels: [acount]}\n        - {from_t",
        "history.rollups.1.labels: 'acount' is no label",
    ),
    ("from_step: 1h", "from_step: 90s", "history.rollups: `from_step` must ascend, each a multiple of the one before it"),
    ("from_step: 1m", "from_step: 1 minute", "history.rollups.0.from_step: "),
    ("{from_step: 1m, table", "{table", "history.rollups.0: has both `from_step` and `from_thinned`, or neither"),
    ("table: samples_1m", "table: samples_1m; DROP TABLE samples", "history.rollups.0.table: "),
    ("table: samples_1m", 'table: "(SELECT FROM WHERE)"', "history.sql: not SQL"),
    ("table: samples_1m", "tabel: samples_1m", "history.rollups.0.tabel: "),
    ("from_thinned: 1h", "from_thinned: 1d", None),
    ("      rollups:", "      keeps: 90d\n      rollups:", None),
    ("      rollups:", "      parts: max\n      keeps: 90d\n      rollups:", "history.keeps: is for samples"),
    ("      rollups:", "      gaps: SELECT hour FROM gaps\n      rollups:", None),
    (
        "      rollups:",
        "      rolled_sql: SELECT 1 AS time, {by}, 1 AS value, 2 AS weight FROM {table} WHERE TRUE {where}\n      rollups:",
        "history.rolled_sql: and `sql` must both",
    ),
]


def problems(text: str) -> list[str]:
    return [f"{one.key}: {one.message}" for one in survey_texts({"a.yaml": text}, KINDS).problems]


def test_roll_ups_that_fit_have_no_problem() -> None:
    assert problems(RIGHT) == []


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_roll_ups_that_do_not_fit_are_said_with_their_key(right: str, wrong: str, said: str | None) -> None:
    assert RIGHT.count(right) >= 1
    found = problems(RIGHT.replace(right, wrong, 1))
    assert (not found) == (said is None), found
    assert said is None or any(line.startswith(f"metrics.equity.{said}") for line in found), found


def test_gaps_are_hours_so_that_no_roll_up_of_days_goes_with_them() -> None:
    text = RIGHT.replace("from_step: 1h", "from_step: 1d").replace(
        "      rollups:", "      gaps: SELECT hour FROM gaps\n      rollups:"
    )
    assert problems(text) == ["metrics.equity.history.rollups.1: is wider than an hour, and `gaps` are hours"]
