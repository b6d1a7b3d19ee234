"""The top series of very many: which they are is asked first, and then their points alone.

A store that thins tells the highest, the lowest and the newest value of every series in a few rows. The order of the series needs
no more, so the points of those that are not shown are never fetched.
"""

from __future__ import annotations

from dataclasses import replace

from app.model import Frame, Matcher, Query, Result, Status
from app.query.plan import Plan

_WORST_FIRST: tuple[Status, ...] = ("error", "partial", "stale", "fresh")
#: with fewer series than `top` times this, one question for all is as fast as two
_MANY = 4


def ranks_first(plan: Plan, series: int) -> bool:
    """Whether the top series are worth a question of their own: the store finds them, and there are many more."""
    query, history = plan.query, plan.history
    top = query.ranking.top
    if top is None or history is None or history.read is None or series < _MANY * top:
        return False
    has_points = not (query.instant or query.exact or query.strict)
    return has_points and bool(query.by) and history.thin_ms > 0 and query.ranking.order != "label"


def ranking_query(query: Query) -> Query:
    """The question for the top series, each with its newest value."""
    return replace(query, instant=True)


def narrow_to_series(query: Query, top: Frame) -> Query:
    """The question for these series, and a few others if several labels tell them apart."""
    found = {label: tuple(sorted({dict(labels)[label] for labels in top.series})) for label in query.by}
    where = tuple(Matcher(label, "=|", values) for label, values in found.items())
    return replace(query, where=(*query.where, *where))


def with_marks_of(found: Result, top: Result) -> Result:
    """The answer for the top series with the marks of the one that has found them: it is as old and as partial as either."""
    if found.error is not None:
        return found
    said = [notice for notice in top.frame.notices if notice.severity == "warning"]
    until_ms = [result.valid_until_ms for result in (found, top) if result.valid_until_ms is not None]
    return replace(
        found,
        status=min(found.status, top.status, key=_WORST_FIRST.index),
        age_s=found.age_s if top.status == "fresh" else max(found.age_s, top.age_s),
        valid_until_ms=min(until_ms) if len(until_ms) == 2 else None,
        frame=found.frame.remark(*said),
    )
