"""What an alert says: every text of every rule, filled in as Grafana does it for each state, and as Prometheus' twin says it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dashboards.alerts import RULES as TABLE
from dashboards.alerts import TWINS
from dashboards.rule import Rule
from tests.provisioning.alerting import RULES
from tests.provisioning.test_prometheus import alert_rules
from tests.servers.go_templates import AlertData, CannotExpand, expand

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "go_templates.jsonl").read_text("utf-8").splitlines()]
LABELS = {"account": "ACC1001", "instance": "mt5-001", "source": "rtrs", "sink": "duckdb", "group": "sync", "broker": "alpha"} | {
    "host": "host-1",
    "disk": "/",
}
#: What Grafana has in each state. A resolved alert is filled in anew, with the value that is no longer over the limit.
STATES: Mapping[str, AlertData] = {
    "firing": AlertData(LABELS, {"A": 150.25, "B": 150.25, "C": 1.0}),
    "resolved": AlertData(LABELS, {"A": 1.0, "B": 1.0, "C": 0.0}),
    "no data": AlertData({"datasource_uid": "bridge-infinity-alerts", "ref_id": "A"}, {}),
    "error": AlertData({}, {}),
    "a value that is no number": AlertData(LABELS, {"B": None, "C": None}),
}
SENTENCES = {
    "tds-margin-level-low": ("Account ACC1001: margin level 150.2 %", "The margin level of the accounts is not known"),
    "tds-margin-level-critical": ("Account ACC1001: margin level 150.2 %", "The margin level of the accounts is not known"),
    "tds-drawdown-high": ("Account ACC1001: drawdown 150.2 %", "The drawdown of the accounts is not known"),
    "tds-drawdown-critical": ("Account ACC1001: drawdown 150.2 %", "The drawdown of the accounts is not known"),
    "tds-account-silent": (
        "Account ACC1001: last written 2m 30s ago",
        "No account's figures can be read: none is written, or the store does not answer",
    ),
    "tds-heartbeat-late": ("Instance mt5-001: last heartbeat 2m 30s ago", "The heartbeats of the instances are not known"),
    "tds-heartbeat-lost": (
        "Instance mt5-001: last heartbeat 2m 30s ago",
        "No instance's heartbeat can be read: none beats, or the store does not answer",
    ),
    "tds-sync-slow": (
        "rtrs to duckdb: one sync in twenty takes longer than 2m 30s",
        "How long the syncs take is not known",
    ),
    "tds-sync-fails": ("rtrs to duckdb: 150.2 syncs a minute fail", "How many syncs fail is not known"),
    "tds-results-wait": (
        "sync: 150.2 results wait for their sync",
        "How many results wait is not known: nobody synchronises, or the store does not answer",
    ),
    "tds-signals-wait": (
        "sync: 150.2 signals wait",
        "How many signals wait is not known: nobody reads them, or the store does not answer",
    ),
    "tds-signals-pile-up": ("sync: 150.2 signals wait", "How many signals wait is not known"),
    "tds-rejects-many": (
        "Broker alpha rejected 150.2 % of the orders of the last hour",
        "How many orders are rejected is not known",
    ),
    "tds-rejects-most": (
        "Broker alpha rejected 150.2 % of the orders of the last 15 minutes",
        "How many orders are rejected is not known",
    ),
    "tds-rejects-half": (
        "Broker alpha rejected 150.2 % of the orders of the last 15 minutes",
        "How many orders are rejected is not known",
    ),
    "tds-disk-fills": ("Host host-1: 150.2 % of / is used", "How full the disks are is not known"),
    "tds-disk-full": ("Host host-1: 150.2 % of / is used", "How full the disks are is not known"),
    "tds-source-down": (
        "rtrs answers no bridge",
        "No bridge tells whether the stores answer: none runs, or Prometheus reaches none",
    ),
    "tds-stale-served": (
        "Older values of rtrs have been shown for 5 minutes",
        "Whether older values are shown is not known",
    ),
}


def _filled(text: str, data: AlertData) -> str | None:
    try:
        return expand(text, data)
    except CannotExpand:
        return None


@pytest.mark.parametrize("case", RECORDED, ids=range(len(RECORDED)))
def test_a_text_is_filled_in_as_the_real_expander_does_it(case: Mapping[str, Any]) -> None:
    assert _filled(case["template"], AlertData(case["labels"] or {}, case["values"] or {})) == case["result"]


def test_the_recorded_texts_show_why_a_text_must_hold_without_values() -> None:
    said = {case["template"]: case["result"] for case in RECORDED if not case["values"] and not case["labels"]}
    assert said["{{ humanize .Values.B.Value }}"] is None
    assert said['{{ printf "%.1f" .Values.B.Value }}'] == "%!f(<nil>)"
    assert said["{{ .Labels.account }}"] == "[no value]"


def test_there_is_a_sentence_for_every_rule() -> None:
    assert SENTENCES.keys() == RULES.keys()


@pytest.mark.parametrize("uid", RULES)
def test_a_rule_says_what_is_wrong_and_in_other_words_that_it_cannot_know(uid: str) -> None:
    summary, (full, without) = RULES[uid]["annotations"]["summary"], SENTENCES[uid]
    assert expand(summary, STATES["firing"]) == full
    assert {expand(summary, STATES[state]) for state in ("no data", "error")} == {without}
    assert without != expand(summary, STATES["resolved"])


def _texts() -> Iterator[tuple[str, str, str]]:
    for uid, rule in RULES.items():
        for name, text in {**rule["annotations"], **rule["labels"]}.items():
            yield uid, name, text


@pytest.mark.parametrize(("uid", "name", "text"), [*_texts()])
def test_no_text_is_ever_sent_as_a_template(uid: str, name: str, text: str) -> None:
    for state, data in STATES.items():
        said = expand(text, data)
        assert re.search(r"\{\{|no value\]|%!|NaN|<nil>|  |^\s|\s$", said) is None, (state, said)
        assert said, state


@pytest.mark.parametrize("rule", [rule for rules in TABLE.values() for rule in rules], ids=lambda rule: rule.uid)
def test_a_title_says_the_limit_and_how_bad_it_is(rule: Rule) -> None:
    title = RULES[rule.uid]["title"]
    assert title.endswith(f" ({rule.severity})")
    assert rule.problems() == []
    if rule.limit not in (0, 1):
        assert _first_number(title) == {"ms": rule.limit * 1000, "minute": rule.limit / 60}.get(_unit(title), rule.limit)


def _first_number(text: str) -> float:
    return float(re.findall(r"\d+(?:\.\d+)?", text)[0])


def _unit(text: str) -> str:
    [found] = re.findall(r"\d (ms|minute)\b", text) or [""]
    return str(found)


def test_no_two_rules_are_called_alike_and_the_worse_one_of_a_pair_has_the_worse_limit() -> None:
    titles = [rule["title"] for rule in RULES.values()]
    assert len(set(titles)) == len(titles)
    pairs: dict[tuple[str, tuple[str, ...]], list[Rule]] = {}
    for rule in (rule for rules in TABLE.values() for rule in rules if rule.metric):
        pairs.setdefault((rule.metric, rule.by), []).append(rule)
    for rules in pairs.values():
        ranks = [(rule.limit if rule.than == "gt" else -rule.limit, rule.severity == "critical") for rule in rules]
        assert ranks == sorted(ranks)


TWIN_PAIRS = [(rule, alert_rules()[rule.alert]) for rules in TWINS.values() for rule in rules if rule.uid and rule.alert]


def test_the_rules_on_the_same_subject_are_twins() -> None:
    assert len(TWIN_PAIRS) == 14


@pytest.mark.parametrize(("rule", "twin"), TWIN_PAIRS, ids=[rule.uid for rule, _ in TWIN_PAIRS])
def test_a_twin_has_the_same_limit_time_window_severity_and_words(rule: Rule, twin: Mapping[str, Any]) -> None:
    """Read from the two files, not from the table."""
    ours = RULES[rule.uid]
    [limit] = ours["data"][-1]["model"]["conditions"][0]["evaluator"]["params"]
    assert float(twin["expr"].split()[-1]) == limit
    assert twin.get("for", "0s") == ours["for"]
    assert twin["labels"]["severity"] == ours["labels"]["severity"]
    assert _window_s(ours) == _promql_window_s(twin["expr"])
    assert twin["annotations"]["description"] == ours["annotations"]["description"]
    spoken = re.sub(r"\{\{[^}]*\$labels\.(\w+)[^}]*\}\}", lambda found: LABELS[found[1]], twin["annotations"]["summary"])
    said = expand(ours["annotations"]["summary"], STATES["firing"])
    assert re.fullmatch(re.escape(re.sub(r"\{\{.*?\}\}", "\0", spoken)).replace("\0", "[0-9.mhs ]+"), said)


def _window_s(rule: Mapping[str, Any]) -> int:
    """The stretch of time that a rule's figure is made of; 0 is the newest value."""
    model = rule["data"][0]["model"]
    if "expr" in model:
        return _promql_window_s(model["expr"])
    params = {param["key"]: param["value"] for param in model["url_options"]["params"]}
    return _seconds(params["from"].removeprefix("now-")) if params.get("step") == "range" else 0


def _promql_window_s(expression: str) -> int:
    [window] = set(re.findall(r"\[(\w+)\]", expression)) or {"0s"}
    return _seconds(window)


def _seconds(span: str) -> int:
    return int(span[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[span[-1]]


SPANS = {"ms": 0.001, "second": 1, "minute": 60, "hour": 3600, "day": 86400}
EVERY_RULE = [rule for rules in TWINS.values() for rule in rules] + [rule for rules in TABLE.values() for rule in rules]


def _spans_after(words: str, text: str) -> list[float]:
    """The spans in a text that stand behind these words: `for 5 minutes`, `in the last hour`."""
    found = re.findall(rf"\b(?:{words}) (?:(\d+) )?(second|minute|hour|day)s?\b", text)
    return [float(count or 1) * SPANS[unit] for count, unit in found]


def _whole_text(rule: Rule) -> str:
    """The title and all texts as they stand in the files."""
    files = [RULES[rule.uid]["annotations"]] if rule.uid else []
    files += [alert_rules()[rule.alert]["annotations"]] if rule.alert else []
    return "\n".join([rule.full_title, *(file[name] for file in files for name in ("summary", "description"))])


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: f"{rule.uid}-{rule.alert}")
def test_a_time_in_the_words_is_the_time_of_the_rule(rule: Rule) -> None:
    """ "For five minutes" is what Grafana and Prometheus hold, less what the figure lingers; "in the last hour" is the window."""
    text = _whole_text(rule)
    held = [RULES[rule.uid]["for"]] if rule.uid else []
    held += [alert_rules()[rule.alert].get("for", "0s")] if rule.alert else []
    assert {_seconds(one) - rule.lingers_s for one in held} == {rule.lasts_s}
    assert set(_spans_after("for|has been seen for|No answer for", text)) <= {rule.lasts_s}
    windows = {_window_s(RULES[rule.uid])} if rule.uid else set()
    windows |= {_promql_window_s(alert_rules()[rule.alert]["expr"])} if rule.alert else set()
    assert windows <= {rule.window_s, rule.lingers_s}
    assert set(_spans_after("the last", text)) <= {rule.window_s}


def test_the_rules_whose_words_say_a_time_are_many() -> None:
    assert sum(bool(_spans_after("for", _whole_text(rule))) for rule in EVERY_RULE) >= 8
    assert sum(bool(_spans_after("the last", _whole_text(rule))) for rule in EVERY_RULE) >= 12


@pytest.mark.parametrize("rule", [one for one in EVERY_RULE if one.metric == "reject_rate"], ids=lambda rule: rule.uid)
def test_a_share_of_orders_calls_nobody_by_chance(rule: Rule) -> None:
    """A broker who rejects two orders in a thousand: the chance that a window with enough orders is over the limit anyway.

    Windows overlap, so each counts three times; of a day's worth it must be less than one in thirty days.
    """
    worst = max(_chance_above(rule.limit / 100, orders) for orders in range(rule.least, 4 * rule.least))
    assert worst * 3 * 86400 / rule.window_s < 1 / 30


def _chance_above(limit: float, orders: int, healthy: float = 0.002) -> float:
    """The chance that more than `limit` of so many orders are rejected (binomial)."""
    least = math.floor(limit * orders) + 1
    below = sum(math.comb(orders, count) * healthy**count * (1 - healthy) ** (orders - count) for count in range(least))
    return 1 - below
