"""`bridge check` lists every mistake of a catalogue in one run, with file, key and what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.__main__ import main
from app.catalog import load
from app.errors import ConfigError

KINDS = {"rts": "redis", "clickhouse": "clickhouse", "duckdb": "duckdb", "prometheus": "prometheus"}

RIGHT = """
group: trading
title: Trading
labels:
  account: {title: Account, metric: equity}
metrics:
  equity:
    title: Equity
    description: What an account is worth
    unit: currencyUSD
    aggregate: sum
    over_time: last
    labels: [account]
    aliases: [old]
    history: {source: duckdb, sql: "SELECT $from_ms AS time, {by}, 1 AS value WHERE true {where}"}
"""

#: Ten mistakes, one each: the place it must be reported at and a part of what must be said.
WRONG = """
group: trading
title: Trading
labels:
  account: {title: Account, metric: nonsense}
metrics:
  a:
    title: A
    description: d
    unit: short
    aggregate: sun
    over_time: last
    history: {source: duckdb, sql: "SELECT $from_ms AS time, 1 AS value"}
  b:
    title: B
    description: d
    unit: short
    agregate: sum
    aggregate: sum
    over_time: last
    history: {source: duckdb, sql: "SELECT $from_ms AS time, 1 AS value"}
  c:
    title: C
    description: d
    unit: short
    aggregate: sum
    over_time: last
    history: {source: duckbd, sql: "SELECT $from_ms AS time, 1 AS value"}
  d:
    title: D
    description: d
    unit: short
    aggregate: sum
    over_time: last
    aliases: [c]
    history: {source: duckdb, sql: "SELECT $form_ms AS time, 1 AS value"}
  e:
    title: E
    description: d
    unit: short
    aggregate: sum
    over_time: last
    labels: [acount]
    live: {source: rts, read: hashs, index: i, hash: "h:{id}", value: count}
  f:
    title: F
    description: d
    unit: short
    aggregate: sum
    over_time: last
    labels: [account]
    history: {source: prometheus, query: "sum by ({by}) (up{were})", labels: {acc: a}}
  g:
    title: G
    description: d
    unit: short
    aggregate: sum
    over_time: last
"""
EXPECTED = [
    ("labels.account.metric", "no metric 'nonsense' in the catalogue"),
    ("metrics.a.aggregate", "'sum', 'avg', 'min', 'max'"),
    ("metrics.b.agregate", "unknown key; allowed: title, description"),
    ("metrics.c.history.source", "unknown source 'duckbd'; configured: clickhouse, duckdb"),
    ("metrics.d.aliases", "name c is already defined in wrong.yaml at metrics.c"),
    ("metrics.d.history.sql", "unknown parameter $form_ms; allowed: $from_ms"),
    ("metrics.e.live", "'hashes', 'hash', 'size', 'stream', 'events', 'timeseries'"),
    ("metrics.f.history.labels.acc", "label is not declared above; declared: account"),
    ("metrics.f.history.query", "unknown placeholder {were}; allowed: {by}, {where}"),
    ("metrics.g", "has neither `history` nor `live`"),
]


def test_a_right_catalogue_loads_with_its_aliases() -> None:
    found = load({"right.yaml": RIGHT}, KINDS)
    assert (list(found.metrics), found.metric("old").name) == (["equity"], "equity")


def test_ten_planted_mistakes_are_all_listed_with_file_key_and_what_is_allowed() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"wrong.yaml": WRONG}, KINDS)
    listed = [(problem.file, problem.key, problem.message) for problem in caught.value.problems]
    for key, part in EXPECTED:
        assert [one for one in listed if one[:2] == ("wrong.yaml", key) and part in one[2]], (key, part, listed)


@pytest.mark.parametrize("name", ["_host", "to", "value"])
def test_a_label_that_a_caller_could_not_filter_by_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"labels.{name}: .* of /v1/rows; another name is needed"):
        load({"g.yaml": f"group: g\ntitle: G\nlabels: {{{name}: {{title: T, values: [a]}}}}"}, {})


def test_check_prints_each_mistake_on_a_line_and_exits_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG)
    status = main(["check", "--config", "provisioning/bridge.yaml", "--catalog", str(tmp_path)])
    lines = capsys.readouterr().err.splitlines()
    assert status == 2
    assert [key for key, _ in EXPECTED if not any(line.startswith(f"wrong.yaml: {key}: ") for line in lines)] == []


def test_the_catalogue_that_comes_with_the_bridge_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", "provisioning/bridge.yaml"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"dashboards: ok, 7 with \d{3} questions to the bridge", said.pop(2))
    assert said == [
        "configuration: ok, 7 sources",
        "catalogue: ok, 38 metrics, 2 events, 10 labels",
        "time limits: ok, source 4.5s < request 4.8s; set Grafana's and HAProxy's above that",
        "backend sync: off (no sync.url): nobody is told of an outage",
        "shared answers: off (no tier.host): each replica asks for itself",
        "backups: off (no backup.folder)",
        "state folder: none: nothing is kept over a restart",
    ]


def test_every_name_of_the_seed_answers() -> None:
    seed = (
        "redis_tss_signals_received_total",
        "trade_state_updates_per_sec",
        "redis_tss_signals_failed_total",
        "clickhouse_slippage_average",
        "instance_cpu_usage",
        "instance_memory_usage",
        "redis_tss_pending_signals",
        "redis_tss_signal_processing_latency",
        "redis_tss_connection_errors_total",
    )
    kinds = dict.fromkeys(("rts", "ris", "rtss", "rtrs"), "redis") | {
        name: name for name in ("clickhouse", "duckdb", "prometheus")
    }
    files = Path("provisioning/catalog").glob("*.yaml")
    catalogue = load({file.name: file.read_text(encoding="utf-8") for file in files}, kinds)
    assert [name for name in seed if catalogue.metric(name) is None] == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: [", ("line 1", "not YAML")),
        ("group: g\ngroup: h\ntitle: t", ("line 2", "'group' is defined twice")),
        ("- 1", ("dictionary",)),
        ("group: g\ntitle: t\nmetrcis: {}", ("metrcis", "unknown key; allowed: group, title, labels, metrics, events")),
    ],
)
def test_a_file_that_is_no_catalogue_says_where_and_why(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"file.yaml": text}, KINDS)
    assert [part for part in parts if part not in str(caught.value)] == []
