"""The top series of very many: which they are is asked first, and then their points alone.

A store that thins tells the highest, the lowest and the newest value of every series in a few rows. The order of the series needs
no more, so the points of those that are not shown are never fetched.
"""

from __future__ import annotations

from dataclasses import replace

from app.model import Frame, Matcher, Query
from app.query.plan import Plan

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
