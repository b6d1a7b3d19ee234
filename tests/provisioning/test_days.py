"""Alert rules over simulated days: on a quiet one nobody is called, on a bad one each trouble is told of once.

`make quiet-days` runs twenty whole days; here are a few hours of three.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.provisioning.alerting import FOLDER, ON_THE_BRIDGE, RULES
from tests.provisioning.days.desk import Desk
from tests.provisioning.days.evaluating import messages_of
from tests.provisioning.days.scraped import Wrong, grafana_messages, scraped_day, twins_told
from tests.provisioning.days.troubles import PLANTED, Planted, bad_day
from tests.servers.grafana_states import Message

#: in seconds of the bad day, for Prometheus: Redis is down for two minutes, and older values are shown for seven
DOWN_S, STALE_S = (5000, 5120), (5000, 5420)


@pytest.fixture(scope="module")
def told() -> list[Message]:
    """What the rules on the bridge tell on the bad day."""
    return messages_of(bad_day(), sample=120)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_a_quiet_day_no_rule_says_anything(seed: int) -> None:
    assert messages_of(Desk(seed, 4), sample=90) == []


def test_on_a_quiet_day_prometheus_says_nothing_either(tmp_path: Path) -> None:
    desk = Desk(4, 2)
    with scraped_day(tmp_path, desk) as port:
        assert twins_told(port, desk) == []
        assert grafana_messages(port, desk) == []


def test_there_is_a_trouble_for_every_rule_on_the_bridge() -> None:
    assert {uid for one in PLANTED if not one.alert for uid in one.rules} == set(ON_THE_BRIDGE)
    assert len(PLANTED) >= 12


@pytest.mark.parametrize("one", PLANTED, ids=lambda one: f"{one.rules[0]}-{one.alert}")
def test_a_trouble_is_told_of_once_by_its_own_rule_and_resolved(told: list[Message], one: Planted) -> None:
    for uid in one.rules:
        mine = [message for message in told if message.rule == uid and _is_about(message, one)]
        assert [message.status for message in mine] == ["firing", "resolved"], (uid, mine)
        begins, ends = mine
        assert one.trouble.from_s <= begins.at_s
        assert ends.at_s >= one.trouble.to_s
        assert re.search(one.says, begins.summary), begins.summary
        assert begins.link == (RULES[uid]["dashboardUid"], str(RULES[uid]["panelId"]))
        assert begins.severity == RULES[uid]["labels"]["severity"]


def _is_about(message: Message, one: Planted) -> bool:
    if one.alert:
        return message.alert == one.alert
    labels = one.labels or getattr(one.trouble, "labels", ())
    # A share of orders stays over its limit until the window has passed.
    until_s = one.trouble.to_s + (3600 if one.labels else 0)
    return message.labels == frozenset(labels) and one.trouble.from_s <= message.at_s <= until_s


def test_nothing_else_is_told(told: list[Message]) -> None:
    assert len([message for message in told if message.status == "firing"]) == sum(len(one.rules) for one in PLANTED)


def test_a_store_that_is_down_is_one_notification_and_not_one_for_each_rule(told: list[Message]) -> None:
    """Grouped as the committed policy says."""
    policy = yaml.safe_load((FOLDER / "alerting" / "contacts.yaml").read_text("utf-8"))["policies"][0]
    [errors] = [route for route in policy["routes"] if "DatasourceError" in str(route["object_matchers"])]
    assert errors["group_by"] == ["alertname"]
    failed = [message for message in told if message.alert == "DatasourceError" and message.status == "firing"]
    assert Counter(message.at_s for message in failed) == {5000: 5}


def test_grafanas_rules_on_prometheus_tell_once_and_are_resolved(tmp_path: Path) -> None:
    desk = Desk(5, 2, instances=4)
    with scraped_day(tmp_path, desk, Wrong(DOWN_S, STALE_S), world=False) as port:
        told = grafana_messages(port, desk)
        twins = twins_told(port, desk, ["bridge"])
    found = {(message.rule, message.status): (message.at_s, message.summary) for message in told}
    assert len(told) == 4
    assert found["tds-source-down", "firing"][0] == pytest.approx(DOWN_S[0] + 60, abs=25)
    assert found["tds-source-down", "firing"][1] == "rts answers no bridge"
    assert found["tds-source-down", "resolved"][0] == pytest.approx(DOWN_S[1], abs=25)
    assert found["tds-stale-served", "firing"][0] == pytest.approx(STALE_S[0] + 360, abs=25)
    assert found["tds-stale-served", "firing"][1] == "Older values of rts have been shown for 5 minutes"
    assert found["tds-stale-served", "resolved"][0] == pytest.approx(STALE_S[1] + 60, abs=25)
    begun = {one.alert: one.from_s - desk.start_ms // 1000 for one in twins if dict(one.labels).get("source") == "rts"}
    assert begun == {
        "BridgeSourceDown": pytest.approx(DOWN_S[0] + 60, abs=30),
        "BridgeServesStale": pytest.approx(STALE_S[0] + 360, abs=30),
    }


def test_older_values_for_less_than_five_minutes_are_not_told_of(tmp_path: Path) -> None:
    desk = Desk(5, 1, instances=4)
    with scraped_day(tmp_path, desk, Wrong(stale_s=(600, 890)), world=False) as port:
        assert grafana_messages(port, desk) == []
