"""`bridge check` lists every mistake of a catalogue in one run, with file, key and what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.__main__ import main
from app.catalog import load, survey_folder, survey_texts
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
    ("metrics.a.aggregate", "'ratio'; found 'sun'; nearest: sum"),
    ("metrics.b.agregate", "unknown key; nearest: aggregate"),
    (
        "metrics.c.history.source",
        "source 'duckbd' is not configured; nearest: duckdb; where there is none, say `sources: {duckbd: {enabled: false}}`",
    ),
    ("metrics.d.aliases", "name c is already defined in wrong.yaml at metrics.c"),
    ("metrics.d.history.sql", "unknown parameter $form_ms; allowed: $from_ms"),
    ("metrics.e.live", "'hashes', 'hash', 'size', 'stream', 'events', 'timeseries'"),
    ("metrics.f.history.labels.acc", "label is not declared above; nearest: account"),
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
        "catalogue: ok, 39 metrics, 2 events, 11 labels",
        "alert rules: ok, 17 questions to the bridge",
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
        ("- 1", ("a mapping is expected here with the keys group, title, labels, metrics, events",)),
        ("group: g\ntitle: t\nmetrcis: {}", ("metrcis", "unknown key; nearest: metrics")),
    ],
)
def test_a_file_that_is_no_catalogue_says_where_and_why(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"file.yaml": text}, KINDS)
    assert [part for part in parts if part not in str(caught.value)] == []


LIVE = "live: {source: rts, index: i, hash: 'h:{id}', value: count, labels: {account: a}}"


def entry(name: str, *lines: str, unit: str = "short", labels: str = "[account]", live: str = LIVE) -> str:
    fixed = f"title: T, description: D, unit: {unit}, aggregate: sum, over_time: last, labels: {labels}, {live}"
    return f"  {name}: {{{', '.join((fixed, *lines))}}}"


def found(
    *metrics: str, head: str = "labels: {account: {title: A, metric: m}}", kinds: dict[str, str] | None = None
) -> list[str]:
    text = "\n".join(("group: g", "title: G", head, "metrics:", *metrics))
    survey = survey_texts({"f.yaml": text}, KINDS if kinds is None else kinds)
    return [f"{problem.key}: {problem.message}" for problem in survey.problems]


def test_entries_that_fit_each_other_have_no_problem() -> None:
    assert found(entry("m", "export: {name: tds_m, by: [account]}")) == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([entry("m", unit="prcent")], "metrics.m.unit: 'prcent' is no unit of Grafana's; nearest: percent"),
        ([entry("m", unit="Percent")], "metrics.m.unit: 'Percent' is no unit of Grafana's; nearest: percent"),
        ([entry("m", unit="'suffix:'")], "metrics.m.unit: 'suffix:' is no unit of Grafana's; allowed: prefix:, suffix:"),
        ([entry("m", labels="[account, account]")], "metrics.m.labels: account is listed twice"),
        ([entry("m", "aliases: [m]")], "metrics.m.aliases: name m is already defined in f.yaml at metrics.m"),
        ([entry("m", "aliases: [n]"), entry("n")], "metrics.n: name n is already defined in f.yaml at metrics.m.aliases"),
        (
            [entry("m", "export: {name: tds_m, by: [acount]}")],
            "metrics.m.export.by: label 'acount' is not one of this metric's; nearest: account",
        ),
        ([entry("m", "export: {name: bridge_m}")], "metrics.m.export.name: begins as the bridge's own metrics do"),
        (
            [entry("m", "export: {name: tds_m}"), entry("n", "export: {name: tds_m}")],
            "metrics.n.export.name: tds_m is the gauge of m already",
        ),
        ([entry("m", "export: {name: tds_m, scale: nan}")], "metrics.m.export.scale: Input should be a finite number"),
        (
            [entry("m"), entry("n", labels="[acount]", live=LIVE.replace("account: a", ""))],
            "metrics.n.labels: label 'acount' is not",
        ),
        ([entry("m", labels="[]", live=LIVE.replace("account: a", ""))], "labels.account.metric: m has no label account"),
        ([entry("m", live="live: {source: 5}")], "metrics.m.live.source: a source's name is needed here; allowed: clickhouse"),
        (
            [entry("m", live=LIVE.replace("count", "cuont"))],
            "metrics.m.live.value: Input should be 'count'; found 'cuont'; nearest:",
        ),
        ([entry("m", live=LIVE.replace("hash:", "hsh:"))], "metrics.m.live.hsh: unknown key; nearest: hash"),
    ],
)
def test_entries_that_do_not_fit_are_said_with_key_value_and_the_nearest_right_one(metrics: list[str], said: str) -> None:
    assert [one for one in found(*metrics) if one.startswith(said)], found(*metrics)


@pytest.mark.parametrize(
    ("source", "read", "said"),
    [
        ("duckdb", 'sql: "SELECT $from_ms AS time, {by}, 1 AS value"', "has labels but no {where}"),
        ("duckdb", 'sql: "SELECT $from_ms AS time, 1 AS value WHERE true {where}"', "has labels but no {by}"),
        ("clickhouse", 'sql: "SELECT {from_ms:Int64} AS time, {by}, 1 AS value FROM t"', "has labels but no {where}"),
        ("prometheus", 'query: "sum by ({by}) (up)"', "has labels but no {where}"),
    ],
)
def test_a_template_without_a_placeholder_for_a_label_of_the_same_name_is_refused(source: str, read: str, said: str) -> None:
    """A filter on the label would be left out, and the figure of all accounts shown as that of one."""
    history = f"history: {{source: {source}, {read}}}"
    wrong = re.sub(r"history: \{.*\}", lambda _: history, RIGHT)
    with pytest.raises(ConfigError) as found:
        load({"a.yaml": wrong}, KINDS)
    [problem] = found.value.problems
    assert (problem.key.startswith("metrics.equity.history."), said in problem.message) == (True, True)


def test_a_label_that_the_read_does_not_map_is_no_column_of_points_either() -> None:
    wrong = RIGHT.replace("account", "weight")
    with pytest.raises(ConfigError, match="'weight' is a column of points"):
        load({"a.yaml": wrong}, KINDS)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("{title: A, metric: m, values: [a]}", "labels.account: has `metric` and `values`; allowed: one of them"),
        ("{title: A, values: [a, b, a]}", "labels.account: has the value 'a' twice"),
        ("{title: A}", "labels.account: needs `metric`"),
        ("{title: A, metric: n}", "labels.account.metric: no metric 'n' in the catalogue; allowed: m"),
        ("{title: A, values: [true]}", "labels.account.values.0: Input should be a valid string; found 'True'"),
    ],
)
def test_a_label_has_its_values_from_one_place(label: str, said: str) -> None:
    assert [one for one in found(entry("m"), head=f"labels: {{account: {label}}}") if one.startswith(said)]


def test_a_label_that_yaml_would_take_for_a_truth_is_a_text() -> None:
    head = "labels: {account: {title: A, values: [on, off, no, 12:30:45, 2026-01-01]}}"
    assert found(entry("m"), head=head) == []


def test_a_source_that_is_not_configured_is_one_line_however_many_reads_name_it() -> None:
    kinds = {name: kind for name, kind in KINDS.items() if name != "rts"}
    text = (
        "source 'rts' is not configured (3 reads name it, this one first); allowed: clickhouse, duckdb, prometheus; "
        "where there is none, say `sources: {rts: {enabled: false}}`"
    )
    assert found(entry("m"), entry("n"), entry("o"), kinds=kinds) == [f"metrics.m.live.source: {text}"]


def test_a_read_of_a_source_that_is_off_is_accepted() -> None:
    assert found(entry("m"), kinds={"rts": "off"}) == []


def test_one_wrong_key_of_a_file_hides_no_other_mistake() -> None:
    said = found(entry("m", unit="prcent"), entry("n", live=LIVE.replace("hash:", "hsh:")), head="lables: {}")
    assert [one.split(":")[0] for one in said] == ["lables", "metrics.m.unit", "metrics.n.live.hsh"]


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ("{fresh_s: 1, stale_s: 0, volatile_s: 300}", []),
        ("{fresh: 1}", ["metrics.m.cache.fresh: unknown key; nearest: fresh_s"]),
        ("{fresh_s: 3601}", ["metrics.m.cache.fresh_s: Input should be less than or equal to 3600; found '3601'"]),
        (
            "{stale_s: soon}",
            ["metrics.m.cache.stale_s: Input should be a valid number, unable to parse string as a number; found 'soon'"],
        ),
    ],
    ids=["right", "misspelt", "too long", "no number"],
)
def test_cache_times_of_a_metric_are_checked(cache: str, said: list[str]) -> None:
    assert found(entry("m", f"cache: {cache}")) == said


def test_a_metric_that_is_wrong_makes_no_others_wrong() -> None:
    said = found(entry("m", unit="prcent"), entry("n"))
    assert [one.split(":")[0] for one in said] == ["metrics.m.unit"]


def test_a_file_that_cannot_be_read_makes_no_names_unknown() -> None:
    broken = "group: g\ntitle: G\nlabels:\n  account: {title: A, values: [a]}\n  x: [\n"
    right = "\n".join(("group: h", "title: H", "metrics:", entry("m")))
    assert [problem.file for problem in survey_texts({"a.yaml": broken, "b.yaml": right}, KINDS).problems] == ["a.yaml"]


def test_without_a_configuration_any_source_is_taken_for_one() -> None:
    text = "\n".join(("group: g", "title: G", "labels: {account: {title: A, metric: m}}", "metrics:", entry("m")))
    assert survey_texts({"f.yaml": text}, None).problems == []


def test_a_catalogue_file_that_is_none_is_named_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    (tmp_path / "b.yaml").write_text("group: g\ntitle: G\nx: 1\n")
    assert [str(problem) for problem in survey_folder(tmp_path, {}).problems] == [
        "a.yaml: cannot be read: Is a directory",
        "b.yaml: x: unknown key; allowed: events, group, labels, metrics, title",
    ]
