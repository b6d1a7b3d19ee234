"""What must hold whatever is asked: each relation asks the bridge in two ways, or holds its answer against the raw rows.

A relation returns what is wrong, a line each; nothing where it holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import httpx

from app.catalog import Catalogue, Metric
from tests.e2e.reference import Answer, Key, Reference, Window
from tests.servers.world import MIN_WINDOW_S
from tests.truth.questions import HOUR_S, Question, counts_events

Points = dict[tuple[Key, int], float | None]


@dataclass(frozen=True)
class Subject:
    """The bridge at one clock, and the raw rows behind it."""

    client: httpx.AsyncClient
    catalogue: Catalogue
    reference: Reference

    def metric(self, question: Question) -> Metric:
        return self.catalogue.metrics[question.metric]

    async def answer(self, params: Mapping[str, str], path: str = "/v1/rows") -> dict[str, Any]:
        reply = await self.client.get(path, params=params)
        assert reply.status_code == 200, f"{path} {dict(params)}: {reply.status_code} {reply.text[:300]}"
        body: dict[str, Any] = reply.json()
        return body

    async def points(self, question: Question, path: str = "/v1/rows", **more: str) -> Points:
        """Every point by its labels and time."""
        return points_of(await self.answer(question.params(**more), path), question)


def points_of(body: Mapping[str, Any], question: Question) -> Points:
    """Every point by its labels and time; a point that is there twice is an error of its own."""
    found: Points = {}
    for row in body["rows"]:
        key = tuple(row[label] or "" for label in question.by), row["time"]
        assert key not in found, f"{key} is there twice"
        found[key] = row["value"]
    return found


Relation = Callable[[Subject, Question], Awaitable[list[str]]]


def same(left: float | None, right: float | None) -> bool:
    if left is None or right is None:
        return left is right
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-6)


def without_zeros(points: Points, metric: Metric) -> Points:
    """The points without the zeros of a metric that has one wherever nothing happened: raw rows do not have them."""
    return {key: value for key, value in points.items() if value != 0} if metric.entry.zeros else points


def differences(left: Points, right: Points, names: str) -> list[str]:
    """Every point that one of them lacks, or that is not equal."""
    return [
        f"{names}: {key}: {left.get(key, 'no row')} and {right.get(key, 'no row')}"
        for key in sorted(left.keys() | right.keys())
        if key not in left or key not in right or not same(left[key], right[key])
    ]


def _of(answer: Answer) -> Points:
    return {(key, at): value for key, course in answer.items() for at, value in course.items()}


async def equals_the_raw_rows(subject: Subject, question: Question) -> list[str]:
    """Each bucket is what the raw rows of that bucket give, however long the bucket is, the open one included."""
    metric = subject.metric(question)
    asked = replace(question, points=1000)
    if not counts_events(metric) and question.step_s < 60:
        return []  # stores may have been sampled more finely than the raw rows are
    window = Window(asked.from_ms, asked.now_ms, asked.step_s * 1000)
    if not counts_events(metric) and len(window.buckets) > 30:
        return []  # a question to Prometheus for each bucket
    body = await subject.answer(asked.params())
    window = replace(window, until_ms=_stated_until_ms(body, asked.metric))
    rate_window = f"{max(asked.step_s, MIN_WINDOW_S)}s"
    wanted = without_zeros(_of(subject.reference.answer(asked.metric, window, asked.by, rate_window)), metric)
    return differences(without_zeros(points_of(body, asked), metric), wanted, "the bridge and the raw rows")


def _stated_until_ms(body: Mapping[str, Any], metric: str) -> int | None:
    """Until when a figure that has no parts is said to be complete in the newest bucket that the history answers."""
    for notice in body["meta"]["metrics"][metric]["notices"]:
        if found := re.search(r"is answered by \w+, until (\S+ \S+)Z$", notice["text"]):
            return round(datetime.fromisoformat(f"{found[1]}+00:00").timestamp() * 1000)
    return None


async def total_is_that_of_the_window(subject: Subject, question: Question) -> list[str]:
    """`step=range` is the figure of exactly the asked window."""
    metric = subject.metric(question)
    if not counts_events(metric):
        return []
    resolution_ms = metric.entry.resolution_s * 1000
    if resolution_ms > 1000:  # rows of a minute
        question = replace(question, from_ms=question.from_ms // resolution_ms * resolution_ms)
    body = await subject.answer(question.params(step="range"))
    until_ms = _stated_until_ms(body, question.metric) or question.now_ms
    window = ExactWindow(question.from_ms, question.now_ms, question.now_ms - question.from_ms, until_ms)
    wanted = without_zeros(_of(subject.reference.answer(question.metric, window, question.by, "")), metric)
    return differences(without_zeros(points_of(body, question), metric), wanted, "step=range and the raw rows")


class ExactWindow(Window):
    """One bucket from `from_ms` on."""

    def bucket(self, at_ms: float) -> int:
        return self.from_ms if self.from_ms <= at_ms < (self.until_ms or self.now_ms) else -1

    @property
    def buckets(self) -> range:
        return range(self.from_ms, self.from_ms + 1)


async def parts_add_up(subject: Subject, question: Question) -> list[str]:
    """What adds up over label sets adds up to the whole."""
    metric = subject.metric(question)
    if metric.entry.aggregate not in ("sum", "count") or not metric.entry.labels or not counts_events(metric):
        return []
    asked = replace(question, points=1000)
    whole = await subject.points(asked.with_by())
    parts: Points = {}
    for (_, at), value in (await subject.points(asked.with_by(*sorted(metric.entry.labels)))).items():
        parts[(), at] = (parts.get(((), at)) or 0.0) + (value or 0.0)
    parts, whole = (without_zeros({key: round_noise(value) for key, value in one.items()}, metric) for one in (parts, whole))
    return differences(parts, whole, "the sum over all labels and the whole")


def round_noise(value: float | None) -> float | None:
    """What is left of amounts that cancel each other out is 0."""
    return 0.0 if value is not None and abs(value) < 1e-6 else value


async def nothing_is_zero_and_nothing_else(subject: Subject, question: Question) -> list[str]:
    """A series of a metric with zeros has every bucket from the first row of the stores up to now, none before and none after."""
    metric = subject.metric(question)
    if not metric.entry.zeros:
        return []
    points = await subject.points(replace(question, points=1000))
    begins_ms = min(round(row["executed"]) for row in subject.reference.stores.trades)
    step_ms = question.step_s * 1000
    first_ms = max(-(-begins_ms // step_ms) * step_ms, question.from_ms // step_ms * step_ms)
    wanted = set(range(first_ms, question.now_ms, step_ms))
    wrong = []
    for key in {key for key, _ in points}:
        had = {at for one, at in points if one == key}
        early = [at for at in had - wanted if at < first_ms and points[key, at] == 0]
        if wanted - had or early or max(had) > question.now_ms:
            wrong.append(f"{key}: {len(wanted - had)} buckets are missing, {len(early)} zeros are before the first row")
    return wrong


async def instant_is_the_newest_of_the_curve(subject: Subject, question: Question) -> list[str]:
    """`instant` is the last point of each series that is known, whatever the bridge thins for a curve."""
    asked = replace(question, points=1000)
    if subject.metric(question).sampled:
        body = await subject.answer(asked.params(instant="true", step="auto"))
        step_ms = body["meta"]["metrics"][question.metric]["step_ms"]
        # An alert's curve is never thinned.
        reply = await subject.client.get("/alert/v1/rows", params=asked.params(step=f"{step_ms}ms"))
        if reply.status_code != 200:
            return []
        curve, found = points_of(reply.json(), asked), points_of(body, asked)
    else:
        curve, found = await subject.points(asked), await subject.points(asked, instant="true")
    return differences(found, _newest(curve), "instant and the newest of the curve")


def _newest(curve: Points) -> Points:
    """The last point of each series that is known, else its last one."""
    newest: dict[Key, tuple[int, float | None]] = {}
    for (key, at), value in sorted(curve.items(), key=lambda item: item[0][1]):
        if value is not None or newest.get(key, (0, None))[1] is None:
            newest[key] = at, value
    return {(key, at): value for key, (at, value) in newest.items()}


async def forms_agree(subject: Subject, question: Question) -> list[str]:
    """Long and wide rows, frames and the JSON plugin show the same points."""
    long = await subject.points(question)
    wide = await subject.answer(question.params(shape="wide"))
    wide_values = sorted(
        (row["time"], value) for row in wide["rows"] for name, value in row.items() if name != "time" and value is not None
    )
    wrong = _unlike(wide_values, sorted((at, value) for (_, at), value in long.items() if value is not None), "wide and long")
    reply = await subject.client.get("/v1/frames", params=question.params())
    frames: Points = {}
    for one in reply.json():
        labels = one["schema"]["fields"][1].get("labels", {})
        times, values = one["data"]["values"]
        frames |= {
            (tuple(labels.get(label) or "" for label in question.by), at): value for at, value in zip(times, values, strict=True)
        }
    wrong += differences(frames, long, "frames and rows")
    return wrong + differences(await _panel(subject, question), long, "the JSON plugin and rows")


def _unlike(left: list[Any], right: list[Any], names: str) -> list[str]:
    alike = len(left) == len(right) and all(a[0] == b[0] and same(a[1], b[1]) for a, b in zip(left, right, strict=True))
    return [] if alike else [f"{names}: {left[:5]}... and {right[:5]}..."]


async def _panel(subject: Subject, question: Question) -> Points:
    payload = {"by": list(question.by), "step": f"{question.step_s}s"}
    body = {
        "range": {"from": question.from_ms, "to": question.now_ms},
        "maxDataPoints": question.points,
        "targets": [{"refId": "A", "target": question.metric, "payload": payload}],
    }
    reply = await subject.client.post("/json/query", json=body)
    assert reply.status_code == 200, reply.text[:300]
    return {
        (tuple(one["tags"].get(label) or "" for label in question.by), at): value
        for one in reply.json()
        for value, at in one["datapoints"]
    }


async def alerts_see_what_panels_show(subject: Subject, question: Question) -> list[str]:
    """Where both answer, an alert gets the panel's figures and never a point that the panel has not. Of closed buckets it gets
    some where the panel has some. The open bucket of a growing figure is the panel's alone (docs/alert-rules.md)."""
    reply = await subject.client.get("/alert/v1/rows", params=question.params())
    if reply.status_code != 200:
        return [] if reply.status_code in (400, 503) else [f"alert: {reply.status_code} {reply.text[:200]}"]
    alert = {(tuple(row[label] or "" for label in question.by), row["time"]): row["value"] for row in reply.json()["rows"]}
    step_ms = reply.json()["meta"]["metrics"][question.metric]["step_ms"]
    shown = await subject.points(replace(question, points=1000), step=f"{step_ms}ms")
    wrong = differences(alert, {key: value for key, value in shown.items() if key in alert}, "alert and panel")
    open_ms = question.now_ms // step_ms * step_ms if subject.metric(question).accumulates else question.now_ms
    closed = {key: value for key, value in without_zeros(shown, subject.metric(question)).items() if key[1] < open_ms}
    if closed and not alert:
        wrong.append(f"the alert got no rows where the panel has {closed}")
    return wrong


async def extremes_survive(subject: Subject, question: Question) -> list[str]:
    """The lowest and the highest sample are in the curve, however few points are asked for."""
    metric = subject.metric(question)
    if not metric.sampled or metric.history is None:
        return []
    if question.now_ms - question.from_ms > 6 * HOUR_S * 1000:
        question = question.with_by(*question.by[:1])  # else it is ten thousands of rows a question
    body = await subject.answer(question.params(step="auto", maxDataPoints=str(max(question.points, 10))))
    begins_ms = body["meta"]["metrics"][question.metric].get("covers_from", question.from_ms)
    every_s = metric.entry.resolution_s
    whole = await subject.answer(replace(question, from_ms=begins_ms, step_s=every_s).params(), "/alert/v1/rows")
    shown, known = ([(_key(row, question), row["value"]) for row in one["rows"]] for one in (body, whole))
    wrong = []
    for key in {key for key, _ in known}:
        wrong += _unlike_extremes(
            key, [value for one, value in shown if one == key], [value for one, value in known if one == key]
        )
    facts = body["meta"]["metrics"][question.metric]
    return [f"{one} ({facts['status']}; step {facts['step_ms']} ms; {facts['notices']})" for one in wrong]


def _key(row: Mapping[str, Any], question: Question) -> Key:
    return tuple(row[label] or "" for label in question.by)


def _unlike_extremes(key: Key, left: Iterable[float | None], right: Iterable[float | None]) -> list[str]:
    shown, every = ([value for value in values if value is not None] for values in (left, right))
    if not every:
        return []
    if not shown:
        return [f"{key}: no value at all is shown"]
    alike = same(min(shown), min(every)) and same(max(shown), max(every))
    return [] if alike else [f"{key}: {min(shown)} to {max(shown)} is shown, {min(every)} to {max(every)} is known"]


async def a_filter_is_its_series(subject: Subject, question: Question) -> list[str]:
    """A filter on one value gives what that value's series has among all."""
    if question.only is None:
        return []
    asked = replace(question.with_by(question.only), points=1000)
    every = await subject.points(asked)
    values = sorted({key[0] for key, _ in every if key[0]})[:2]
    wrong = []
    for value in values:
        alone = await subject.points(asked, where=f'{question.only}=["{value}"]')
        wrong += differences(alone, {key: one for key, one in every.items() if key[0] == (value,)}, f"only {value} and among all")
    return wrong


async def each_event_is_told_once(subject: Subject, question: Question) -> list[str]:
    """Windows that follow one another have each event once, and none from outside; they meet right behind an event."""
    begin_ms, end_ms = question.from_ms, question.now_ms
    whole = sorted(await _events(subject, begin_ms, end_ms))
    if not whole:
        return []
    middle_ms = whole[len(whole) // 2][0] + 1
    first, second = await _events(subject, begin_ms, middle_ms), await _events(subject, middle_ms, end_ms)
    outside = [one for one in first if not begin_ms <= one[0] < middle_ms] + [
        one for one in second if not middle_ms <= one[0] < end_ms
    ]
    wrong = [f"outside their window: {outside[:3]}"] if outside else []
    if sorted(first + second) != whole:
        wrong.append(f"{len(first)} and {len(second)} events of two windows, {len(whole)} of both")
    return wrong


async def _events(subject: Subject, from_ms: int, to_ms: int) -> list[tuple[int, str]]:
    """Time and id of each failed trade, all pages."""
    found, cursor = [], ""
    while True:
        asked = {"name": "trade_failures", "from": str(from_ms), "to": str(to_ms)}
        body = await subject.answer({**asked, "cursor": cursor} if cursor else asked, "/v1/events")
        found += [(row["time"], row["id"]) for row in body["rows"]]
        cursor = body["next_cursor"]
        if not cursor:
            return found


async def no_row_is_lost(subject: Subject, question: Question) -> list[str]:
    """An answer of more rows than most has them all; an alert rule gets them all or an error."""
    if question.from_ms % 40:
        return []  # it takes a second
    names = ("equity", "balance", "margin", "free_margin", "margin_level", "floating_pnl", "drawdown")
    asked = {"metric": ",".join(names), "by": "account,broker", "step": "30s"}
    params = asked | {"from": str(question.now_ms - 86_400_000), "to": str(question.now_ms)}
    reply = await subject.client.get("/alert/v1/rows", params=params)
    if reply.status_code != 200:
        return []
    body = reply.json()
    known = body["meta"]["total_rows"]
    return [] if len(body["rows"]) == known else [f"an alert got {len(body['rows'])} of {known} rows"]


RELATIONS: tuple[Relation, ...] = (
    equals_the_raw_rows,
    total_is_that_of_the_window,
    parts_add_up,
    nothing_is_zero_and_nothing_else,
    instant_is_the_newest_of_the_curve,
    forms_agree,
    alerts_see_what_panels_show,
    extremes_survive,
    a_filter_is_its_series,
    each_event_is_told_once,
    no_row_is_lost,
)
