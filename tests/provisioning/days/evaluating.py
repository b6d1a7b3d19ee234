"""Grafana's rules over a desk's day: every evaluation, and the messages that they make.

The verdict of each evaluation comes from the day's figures. At every evaluation at which a verdict changes, and at every
`sample`th besides, the rule asks the bridge as Grafana does, and what it gets must be these figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest

from app.model import Labels, Values
from tests.provisioning.alerting import ON_THE_BRIDGE, RULES
from tests.provisioning.days.asking import DayOfBridge
from tests.provisioning.days.desk import Desk
from tests.servers.alerting import Verdict
from tests.servers.grafana_states import Message, seconds_of, states_of

#: the stores whose failure makes a metric an error for a rule
_NEEDED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("margin_level", "drawdown", "account_age"), ("rts",)),
    "heartbeat_age": ("ris",),
    **dict.fromkeys(("sync_latency", "sync_failure", "disk_fullness"), ("prometheus",)),
    "result_backlog": ("rtrs",),
    "signal_backlog": ("rtss",),
    "reject_rate": ("clickhouse", "rtrs"),
}


@dataclass(frozen=True, slots=True)
class Course:
    """What one rule sees in the day: a row an evaluation, NaN for no figure; and whether its stores answer."""

    labels: tuple[Labels, ...]
    values: Values
    over: np.ndarray
    error: np.ndarray
    empty: np.ndarray

    def verdict(self, place: int) -> Verdict | None:
        """The verdict of one evaluation; None is an error."""
        if self.error[place]:
            return None
        if self.empty[place]:
            return Verdict({}, frozenset())
        row = self.values[place]
        known = np.flatnonzero(~np.isnan(row)).tolist()
        newest = {frozenset(self.labels[column]): float(row[column]) for column in known}
        return Verdict(newest, frozenset(frozenset(self.labels[column]) for column in known if self.over[place, column]))

    def changes(self) -> np.ndarray:
        """The evaluations whose verdict is not the one before."""
        state = np.column_stack((self.over, self.error, self.empty))
        return np.flatnonzero(np.append(False, (state[1:] != state[:-1]).any(axis=1)))

    @property
    def quiet(self) -> bool:
        """Whether nothing in the day can make a message."""
        return not (self.over.any() or self.error.any() or np.isnan(self.values).all(axis=1).any() or self.empty.any())


@lru_cache
def _asked(uid: str) -> Mapping[str, str]:
    params = RULES[uid]["data"][0]["model"]["url_options"]["params"]
    return {param["key"]: param["value"] for param in params}


def course_of(uid: str, desk: Desk) -> Course:
    """The rule's figures in the whole day."""
    asked = _asked(uid)
    metric = asked["metric"]
    labels, values = _shares(asked, desk) if metric == "reject_rate" else _figures(metric, desk)
    [limit] = RULES[uid]["data"][-1]["model"]["conditions"][0]["evaluator"]["params"]
    above = RULES[uid]["data"][-1]["model"]["conditions"][0]["evaluator"]["type"] == "gt"
    with np.errstate(invalid="ignore"):
        over = values > limit if above else values < limit
    now_ms = desk.at_ms.tolist()
    failing = [[desk.failure(source, at, metric) for source in _NEEDED[metric]] for at in now_ms] if desk.troubles else []
    error = np.array([any(one is not None and not one.metric for one in row) for row in failing] or [False] * len(now_ms))
    empty = np.array([any(one is not None and bool(one.metric) for one in row) for row in failing] or [False] * len(now_ms))
    return Course(labels, values, over, error, empty)


def _figures(metric: str, desk: Desk) -> tuple[tuple[Labels, ...], Values]:
    found = desk.figure(metric)
    return tuple(found.labels), found.values


def _shares(asked: Mapping[str, str], desk: Desk) -> tuple[tuple[Labels, ...], Values]:
    """One share over the whole window, from a full minute on; null below the least number of orders."""
    since = (desk.at_ms - seconds_of(asked["from"].removeprefix("now-")) * 1000) // 60_000 * 60_000
    shares = desk.shares(since, desk.at_ms)
    values = [np.where(orders >= int(asked["least"]), share, np.nan) for share, orders in shares.values()]
    return tuple((("broker", broker),) for broker in shares), np.stack(values, axis=1)


def messages_of(desk: Desk, sample: int) -> list[Message]:
    """Every message of the day. Raises AssertionError where the bridge does not say what the day's figures are."""
    courses = {uid: course_of(uid, desk) for uid in ON_THE_BRIDGE}
    asyncio.run(_compare(desk, courses, sample))
    told = [message for uid, course in courses.items() if not course.quiet for message in _told(uid, desk, course)]
    return sorted(told, key=lambda message: message.at_s)


def _told(uid: str, desk: Desk, course: Course) -> Iterator[Message]:
    states = states_of(RULES[uid])
    for place, at_ms in enumerate(desk.at_ms.tolist()):
        states.evaluate((at_ms - desk.start_ms) // 1000, course.verdict(place))
    yield from states.messages


async def _compare(desk: Desk, courses: Mapping[str, Course], sample: int) -> None:
    bridge = DayOfBridge(desk)
    changes = set().union(*(course.changes().tolist() for course in courses.values()))
    for place in sorted(changes | set(range(0, len(desk.at_ms), sample))):
        for uid, found in (await bridge.verdicts(int(desk.at_ms[place]))).items():
            _compare_one(f"{uid} at {place}", found, courses[uid].verdict(place))


def _compare_one(what: str, found: Verdict | None, ours: Verdict | None) -> None:
    assert (found is None) == (ours is None), what
    if found is not None and ours is not None:
        assert dict(found.newest) == pytest.approx(dict(ours.newest), rel=1e-9, abs=1e-9), what
        assert found.firing == ours.firing, what
