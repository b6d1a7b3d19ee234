"""The states of a rule as Grafana moves it: what is told, when, and that it is told once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.provisioning.alerting import RULES
from tests.servers.alerting import Labels, Verdict
from tests.servers.grafana_states import RuleStates, states_of

A: Labels = frozenset({("account", "A")})
B: Labels = frozenset({("account", "B")})
WELL = 500.0
LOW = 180.0


def _verdict(values: Mapping[Labels, float]) -> Verdict:
    return Verdict(values, frozenset(labels for labels, value in values.items() if value < 200))


def _after(uid: str, *evaluations: Verdict | None) -> RuleStates:
    """The states of a rule after evaluations every 10 s."""
    states = states_of(RULES[uid])
    for place, found in enumerate(evaluations):
        states.evaluate(place * 10, found)
    return states


def _told(states: RuleStates) -> list[tuple[int, str, str]]:
    return [(one.at_s, one.alert, one.status) for one in states.messages]


def test_a_rule_holds_for_its_time_and_tells_once() -> None:
    title = RULES["tds-margin-level-low"]["title"]
    states = _after("tds-margin-level-low", *[_verdict({A: LOW, B: WELL})] * 12, *[_verdict({A: WELL, B: WELL})] * 3)
    assert _told(states) == [(60, title, "firing"), (120, title, "resolved")]
    assert {one.labels for one in states.messages} == {A}
    assert [one.summary for one in states.messages] == ["Account A: margin level 180.0 %", "Account A: margin level 500.0 %"]


def test_what_is_over_the_limit_for_less_is_not_told() -> None:
    assert _told(_after("tds-margin-level-low", *[_verdict({A: LOW}), *[_verdict({A: WELL})]] * 20)) == []
    assert _told(_after("tds-margin-level-low", *[_verdict({A: LOW})] * 6, _verdict({A: WELL}))) == []


def test_a_series_that_goes_away_is_resolved_at_the_second_evaluation_without_it() -> None:
    states = _after("tds-margin-level-critical", _verdict({A: 100, B: WELL}), *[_verdict({B: WELL})] * 3)
    assert [(at, status) for at, _, status in _told(states)] == [(0, "firing"), (20, "resolved")]


def test_a_store_that_fails_is_an_alert_of_its_own_and_the_series_wait() -> None:
    states = _after("tds-margin-level-low", *[_verdict({A: WELL})] * 2, *[None] * 3, *[_verdict({A: WELL})] * 2)
    assert _told(states) == [(20, "DatasourceError", "firing"), (50, "DatasourceError", "resolved")]
    assert states.messages[0].summary == "The margin level of the accounts is not known"


@pytest.mark.parametrize(
    ("uid", "told"),
    [
        ("tds-margin-level-low", []),
        ("tds-drawdown-high", [(10, "DatasourceNoData", "firing"), (30, "DatasourceNoData", "resolved")]),
    ],
)
def test_no_data_is_what_the_rule_says_it_is(uid: str, told: list[tuple[int, str, str]]) -> None:
    assert _told(_after(uid, _verdict({A: WELL}), *[_verdict({})] * 2, _verdict({A: WELL}))) == told


def test_where_no_data_is_itself_the_trouble_the_rule_fires_without_a_label() -> None:
    states = _after("tds-account-silent", *[_verdict({})] * 2)
    assert [(one.at_s, one.status, one.labels) for one in states.messages] == [(0, "firing", frozenset())]
    assert states.messages[0].summary.startswith("No account's figures can be read")
