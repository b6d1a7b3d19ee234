"""What every asker got, and whether that can be true."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.chaos.lab.world import World


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came of it. Seconds are of the monotonic clock; `number` is None where no value was shown."""

    store: str
    route: str
    panel: int
    asked_s: float
    done_s: float
    http: int
    status: str
    age_s: float
    number: int | None


@dataclass(slots=True)
class Outage:
    """One fault: when it began, when it was undone (the store listened again), when the store had a new number again."""

    store: str
    how: str
    begun_s: float
    undone_s: float = 0.0
    refilled_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    figure: str
    target: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """The promises, in the seconds of this run."""

    fresh_s: float
    recovery_s: float
    slack_s: float


def findings(world: World, answers: Sequence[Answer], outages: Sequence[Outage], limits: Limits) -> list[Finding]:
    """Every promise against the whole history."""
    panels = [answer for answer in answers if answer.route != "alert"]
    alerts = [answer for answer in answers if answer.route == "alert"]
    return [
        _served(panels, outages),
        _true("an unmarked answer that was older than its freshness", world, _unmarked(panels), outages, limits),
        _never_written(world, panels),
        _marked(world, panels, outages, limits),
        _true("an alert's answer that was old", world, [a for a in alerts if a.http == 200], outages, limits),
        _alert_marks(alerts),
        _neighbours(panels, outages),
        _recovery(answers, outages, limits),
        _calm(panels, outages, limits),
    ]


def _unmarked(answers: Iterable[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.http == 200 and answer.status == "fresh"]


def _served(panels: Sequence[Answer], outages: Sequence[Outage]) -> Finding:
    good = sum(answer.http == 200 for answer in panels)
    share = good / max(len(panels), 1)
    during = [answer for answer in panels if _of(answer, outages)]
    served = sum(answer.http == 200 for answer in during)
    figure = f"{share:.4%} of {len(panels)} ({served} of {len(during)} of a store that was down)"
    return Finding("answers that are 200", figure, ">= 99.9 %", share >= 0.999)


def _of(answer: Answer, outages: Sequence[Outage]) -> bool:
    return any(o.store == answer.store and o.begun_s <= answer.asked_s <= o.undone_s for o in outages)


def _true(name: str, world: World, answers: Sequence[Answer], outages: Sequence[Outage], limits: Limits) -> Finding:
    wrong = [answer for answer in answers if not _can_be_true(world, answer, outages, limits)]
    worst = max((_older_s(world, answer) for answer in answers if answer.number), default=0.0)
    figure = f"{len(wrong)} of {len(answers)}; the oldest value was replaced {worst:.2f}s before"
    for a in wrong[:3]:
        figure += (
            f"\n  {a.store} {a.route}: {a.number}, replaced {_older_s(world, a):.2f}s before {a.asked_s:.2f}, age {a.age_s:.2f}s"
        )
    return Finding(name, figure, f"0 (freshness {limits.fresh_s:.2f}s)", not wrong and len(answers) > 0)


def _can_be_true(world: World, answer: Answer, outages: Sequence[Outage], limits: Limits) -> bool:
    since_s = answer.asked_s - limits.fresh_s - world.slack_s[answer.store] - limits.slack_s
    if answer.number is not None:
        return world.writings[answer.store].current(answer.number, since_s, answer.done_s)
    # A store that came back empty is shown as it is until it is filled again.
    return any(o.store == answer.store and o.begun_s <= answer.done_s and since_s <= o.refilled_s for o in outages)


def _older_s(world: World, answer: Answer) -> float:
    """How long before the asking the value had been replaced."""
    done_s = world.writings[answer.store].done_s
    number = answer.number or 0
    return max(answer.asked_s - done_s[number], 0.0) if number < len(done_s) else 0.0


def _never_written(world: World, answers: Sequence[Answer]) -> Finding:
    shown = [answer for answer in answers if answer.number is not None]
    wrong = sum(not 1 <= (a.number or 0) <= world.writings[a.store].newest_before(a.done_s) for a in shown)
    return Finding("a value that was never written", f"{wrong} of {len(shown)}", "0", not wrong)


def _marked(world: World, answers: Sequence[Answer], outages: Sequence[Outage], limits: Limits) -> Finding:
    """A mark must not lie either: the age that it states is at least the value's own, as far as that is known."""
    stale = [answer for answer in answers if answer.http == 200 and answer.status == "stale" and answer.number]
    slack_s = limits.slack_s + limits.fresh_s
    wrong = sum(_older_s(world, a) > a.age_s + slack_s + world.slack_s[a.store] + (a.done_s - a.asked_s) for a in stale)
    return Finding("a stale answer that understates its age", f"{wrong} of {len(stale)}", "0", not wrong)


def _alert_marks(alerts: Sequence[Answer]) -> Finding:
    wrong = sum(answer.http == 200 and answer.status != "fresh" for answer in alerts)
    refused = sum(answer.http != 200 for answer in alerts)
    return Finding("a stale or partial answer to an alert", f"{wrong} of {len(alerts)} ({refused} were errors)", "0", not wrong)


def _neighbours(panels: Sequence[Answer], outages: Sequence[Outage]) -> Finding:
    calm = [a.done_s - a.asked_s for a in panels if not any(o.begun_s <= a.asked_s <= o.undone_s + 1 for o in outages)]
    troubled = [
        a.done_s - a.asked_s
        for a in panels
        if any(o.begun_s <= a.asked_s <= o.undone_s and o.store != a.store for o in outages) and not _of(a, outages)
    ]
    before, during = _p99(calm), _p99(troubled)
    figure = f"x{during / before:.2f} (p99 {during * 1000:.1f} ms while another store is down, {before * 1000:.1f} ms else)"
    return Finding("a neighbour of a store that is down", figure, "<= x1.15", during / before <= 1.15)


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98] if len(seconds) > 1 else 1e-9


def _recovery(answers: Sequence[Answer], outages: Sequence[Outage], limits: Limits) -> Finding:
    """From the store's return until the last panel was still shown old values; what is asked later is answered fresh."""
    each = [(found, outage) for outage in outages if (found := _took_s(answers, outage, outages)) is not None]
    took = [seconds for seconds, _ in each]
    worst, which = max(each, key=lambda item: item[0], default=(0.0, None))
    name = f" ({which.store}, {which.how})" if which else ""
    figure = f"{worst:.2f}s at worst{name}, {statistics.median(took or [0.0]):.2f}s in the median, of {len(took)} outages"
    return Finding(
        "all answers are fresh again after", figure, f"<= {limits.recovery_s:.2f}s", bool(took) and worst <= limits.recovery_s
    )


def _calm(panels: Sequence[Answer], outages: Sequence[Outage], limits: Limits) -> Finding:
    calm = [a for a in panels if not any(o.begun_s <= a.asked_s <= o.undone_s + limits.recovery_s for o in outages)]
    old = sum(answer.status != "fresh" for answer in calm)
    share = old / max(len(calm), 1)
    return Finding("marked answers while nothing is down", f"{old} of {len(calm)} ({share:.2%})", "<= 1 %", share <= 0.01)


def _took_s(answers: Sequence[Answer], outage: Outage, outages: Sequence[Outage]) -> float | None:
    ends_s = min((o.begun_s for o in outages if o.store == outage.store and o.begun_s > outage.undone_s), default=float("inf"))
    after = [a for a in answers if a.store == outage.store and outage.undone_s <= a.asked_s < ends_s]
    served: set[tuple[str, int]] = set()
    last_s = outage.undone_s
    for answer in after:
        if answer.status == "fresh":
            served.add((answer.route, answer.panel))
        elif (answer.route, answer.panel) not in served:
            last_s = max(last_s, answer.asked_s)
    return last_s - outage.undone_s if served else None
