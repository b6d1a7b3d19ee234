"""The plans of one request, sized so that their answers fit: what is known of the number of series decides on the grid."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from app.catalog import Catalogue
from app.errors import BridgeError
from app.model import UNRANKED, Query, Result, Statement
from app.query.fetching import PartFetcher
from app.query.limits import Limits
from app.query.plan import Plan, plan_query
from app.query.sizes import LEAST_POINTS, ROOMY, Room, SeriesCounts, share_cells, too_many_series

#: the newest values of so long show how many series a sampled metric has
_COUNTED_MS = 300_000
#: the share of a request's time that counting may take; a store that hangs must leave time for the others
_COUNTING_SHARE = 0.2
#: by how much fewer points are tried after too many rows
_FEWER = 4
#: A store that thins gives a few rows more than the points that are shown.
_SHARE_SHOWN = 0.8


class Planner:
    """Plans questions, and remembers how many series each had."""

    def __init__(self, catalogue: Catalogue, limits: Limits, fetcher: PartFetcher) -> None:
        self._catalogue = catalogue
        self._limits = limits
        self._fetcher = fetcher
        self._counts = SeriesCounts()

    async def plan_all(self, queries: Sequence[Query], now_ms: int, deadline_s: float) -> list[Plan | BridgeError]:
        """A plan for each question, or why there is none. All answers together have at most `most_cells` points."""
        plans = [self._plan_or_error(query, now_ms) for query in queries]
        if all(isinstance(plan, BridgeError) or not (plan.query.by or _labels_behind(plan)) for plan in plans):
            return plans
        counts = await asyncio.gather(*(self._count_shown(plan, now_ms, deadline_s) for plan in plans))
        behind = await asyncio.gather(*(self._count_behind(plan, now_ms, deadline_s) for plan in plans))
        wanted = [
            0 if isinstance(plan, BridgeError) else count * _points_of(plan) for plan, count in zip(plans, counts, strict=True)
        ]
        shares = share_cells(wanted, self._limits.most_cells)
        sizes = zip(plans, counts, behind, shares, strict=True)
        return [self._fit_plan(plan, now_ms, Room(count, cells, behind=hidden)) for plan, count, hidden, cells in sizes]

    def note_series(self, query: Query, series: int) -> None:
        """Remember how many series the answer to a question had."""
        self._counts.note(query, series)

    def refuse_too_many(self, result: Result) -> None:
        """Raise LimitExceeded for an answer of more series than are allowed; how many there are was not known before."""
        query, series = result.query, len(result.frame.series)
        if result.error is None and query.ranking.top is None and series > self._limits.most_series:
            raise too_many_series(query, series, self._limits.most_series)

    def plan_again(self, plan: Plan, now_ms: int, query: Query) -> Plan:
        """The plan for another question in the same room. Raises as `plan_query` does."""
        return plan_query(self._catalogue, query, now_ms, self._limits, room=plan.room)

    def plan_with_fewer(self, plan: Plan, now_ms: int) -> Plan:
        """The plan with a quarter of the points, for a question that has turned out to have too many series."""
        series = self._counts.find(plan.query) or 1
        cells = series * max(_points_of(plan) // _FEWER, LEAST_POINTS)
        return plan_query(self._catalogue, plan.query, now_ms, self._limits, room=Room(series, cells, cells, is_guess=True))

    def known_series(self, query: Query) -> int:
        """How many series a question had when it was last answered; 0 where that is not known."""
        return self._counts.find(query) or 0

    def _plan_or_error(self, query: Query, now_ms: int, room: Room = ROOMY) -> Plan | BridgeError:
        try:
            return plan_query(self._catalogue, query, now_ms, self._limits, room=room)
        except BridgeError as failure:
            return failure

    def _fit_plan(self, plan: Plan | BridgeError, now_ms: int, room: Room) -> Plan | BridgeError:
        """The plan again if its answer may be too large, with fewer points for each series."""
        if isinstance(plan, BridgeError):
            return plan
        if room.series > self._limits.most_series and plan.query.ranking.top is None:
            return too_many_series(plan.query, room.series, self._limits.most_series)
        thinned, whole = self._most_rows(plan, thinned=True), self._most_rows(plan, thinned=False)
        room = replace(room, cells=min(room.cells, round(thinned * _SHARE_SHOWN)), rows=whole)
        fits = room.series * _points_of(plan) <= room.cells and room.series * len(plan.range) <= whole
        return plan if fits and room.behind <= 1 else self._plan_or_error(plan.query, now_ms, room)

    def _most_rows(self, plan: Plan, thinned: bool) -> int:
        """The most rows that a statement of this plan may return: of those that the store thins, or of the others."""
        asked = (plan.history, plan.live if plan.metric.live_is_ranged else None, plan.live_alone, *plan.fallback)
        found = [
            self._limits.most_rows.get(one.source, ROOMY.rows)
            for one in asked
            if one is not None and bool(one.thin_ms) == thinned
        ]
        return min(found, default=ROOMY.rows)

    async def _count_shown(self, plan: Plan | BridgeError, now_ms: int, deadline_s: float) -> int:
        """How many series the answer has; 1 where that is not known and cannot be too many."""
        if isinstance(plan, BridgeError):
            return 1
        fits_anyway = _points_of(plan) * self._limits.most_series <= self._limits.most_cells
        return self._counts.find(plan.query) or (1 if fits_anyway else await self._count_series(plan, now_ms, deadline_s))

    async def _count_series(self, plan: Plan, now_ms: int, deadline_s: float) -> int:
        """How many series a question has, as the newest values show."""
        statement = self._counting_statement(plan, now_ms)
        if statement is None:
            return 1
        begun_s = asyncio.get_running_loop().time()
        found = await self._fetcher.fetch_part("history", statement, begun_s + (deadline_s - begun_s) * _COUNTING_SHARE)
        if found.frame is None:
            return 1
        self.note_series(plan.query, len(found.frame.series))
        return self._counts.find(plan.query) or 1

    async def _count_behind(self, plan: Plan | BridgeError, now_ms: int, deadline_s: float) -> int:
        """How many series a store puts together for the points of this plan; 0 where it puts none together."""
        if isinstance(plan, BridgeError) or not (each := _labels_behind(plan)):
            return 0
        query = replace(plan.query, by=each, ranking=UNRANKED)
        if (known := self._counts.find(query)) is not None:
            return known
        apart = self._plan_or_error(query, now_ms)
        return 0 if isinstance(apart, BridgeError) else await self._count_series(apart, now_ms, deadline_s)

    def _counting_statement(self, plan: Plan, now_ms: int) -> Statement | None:
        """The cheapest question whose answer has all series: that of the live edge, which is asked anyway, else newest values."""
        query = plan.query
        if not plan.metric.sampled or query.exact:
            return None
        if plan.live is not None and not plan.metric.live_is_ranged:
            return plan.live
        begins_ms = max(query.from_ms, query.to_ms - _COUNTED_MS)
        short = replace(query, from_ms=begins_ms, step_ms=None, max_points=10, instant=True, strict=False, ranking=UNRANKED)
        found = self._plan_or_error(short, now_ms)
        return None if isinstance(found, BridgeError) else found.history or found.live


def _labels_behind(plan: Plan | BridgeError) -> tuple[str, ...]:
    """The labels that tell apart what the store puts together in one point, of a figure that it thins."""
    if isinstance(plan, BridgeError) or plan.history is None or not plan.history.thin_ms or plan.metric.history is None:
        return ()
    each = plan.metric.history.each
    return () if set(each) <= set(plan.query.by) else each


def _points_of(plan: Plan) -> int:
    """How many points of each series the answer has at most."""
    shown = len(plan.range)
    if plan.query.instant:
        return 4 if plan.history is not None and plan.history.thin_ms else shown
    return min(shown, plan.query.max_points) if plan.thin_ms else shown
