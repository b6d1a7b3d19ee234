"""The use case: queries in, one result for each; a failure stays in its own result."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from app.catalog import Catalogue
from app.cooperative import run_apart
from app.errors import BridgeError, LimitExceeded
from app.model import (
    Clock,
    Fetch,
    Matcher,
    Notice,
    Query,
    Result,
    Status,
)
from app.query.assemble import assemble_result, gap_remarks, later_seam_ms, stale_remarks
from app.query.events import shown_events
from app.query.fetching import PartFetcher
from app.query.limits import Limits
from app.query.parts import SourceAnswer
from app.query.plan import Plan, plan_events, plan_query
from app.query.planning import Planner
from app.query.top import narrow_to_series, ranking_query, ranks_first, with_marks_of
from app.telemetry import Telemetry

_VALUES_WINDOW_MS = 24 * 3600 * 1000
#: a coarser step: by which factor, from how many buckets on, and after which share of the time it is fetched as well
COARSER_FACTOR = 10
COARSER_FROM_BUCKETS = 30
COARSER_AFTER_SHARE = 0.5
#: points of a thinned series besides two for each stretch
_BESIDE_STRETCHES = 5
#: how often fewer points are tried after too many rows
_FEWER_TRIES = 2
#: a source this much faster than the slowest of a request is asked a few turns of the event loop later
_MUCH_FASTER_S = 0.002
YIELDS = 20
#: what joining and thinning take for each row
_ROW_MS = 0.0002


class Bridge:
    """Answers queries from the sources. `fetches` are the guarded sources by name; one that is not there is unavailable."""

    def __init__(
        self,
        catalogue: Catalogue,
        fetches: Mapping[str, Fetch],
        telemetry: Telemetry,
        clock: Clock,
        limits: Limits | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.limits = limits or Limits()
        self.clock = clock
        self._fetcher = PartFetcher(fetches, clock)
        self._planner = Planner(catalogue, self.limits, self._fetcher)
        self._telemetry = telemetry

    async def run(self, queries: Sequence[Query], budget_s: float) -> list[Result]:
        """One result per query, in order, within the budget; all see the same instant as now.

        Raises LimitExceeded for too many queries; every other failure is in its own result.
        """
        if len(queries) > self.limits.max_targets:
            raise LimitExceeded(f"targets: {len(queries)} in one request; at most {self.limits.max_targets} are allowed")
        now_ms, deadline_s = self.clock(), asyncio.get_running_loop().time() + budget_s
        plans = await self._planner.plan_all(queries, now_ms, deadline_s)
        first, then = self._slow_first(plans)
        tasks: dict[int, asyncio.Task[Result]] = {}
        async with asyncio.TaskGroup() as group:
            for place in first:
                tasks[place] = group.create_task(self._run_plan(queries[place], plans[place], now_ms, deadline_s))
            if then:
                # Let the questions to slow stores leave before the work for the fast ones begins.
                for _ in range(YIELDS):
                    await asyncio.sleep(0)
            for place in then:
                tasks[place] = group.create_task(self._run_plan(queries[place], plans[place], now_ms, deadline_s))
        return [tasks[place].result() for place in range(len(queries))]

    def _slow_first(self, plans: Sequence[Plan | BridgeError]) -> tuple[list[int], list[int]]:
        """The indices of the plans that decide how long the request takes, and of those that are done long before."""
        usual_s = [max((self._fetcher.usual_s.get(source, 0.0) for source in _sources_of(plan)), default=0.0) for plan in plans]
        bound_s = max(usual_s, default=0.0) - _MUCH_FASTER_S
        places = range(len(plans))
        return [place for place in places if usual_s[place] > bound_s], [place for place in places if usual_s[place] <= bound_s]

    async def events(
        self,
        name: str,
        from_ms: int,
        to_ms: int,
        where: tuple[Matcher, ...],
        budget_s: float,
        ref_id: str = "A",
        reaching: bool = True,
    ) -> Result:
        """The events of one kind that began in [from_ms, to_ms) and, with `reaching`, those that lasted into it from before.

        The frame has text columns. The result's range begins where the events are complete. Errors are in the result.
        """
        query = Query(name, from_ms, to_ms, ref_id, where=where)
        try:
            event = self.catalogue.event(name)
            known = tuple(matcher for matcher in where if matcher.label in event.entry.labels)
            statement = plan_events(event, from_ms, to_ms, known, self.limits)
        except BridgeError as failure:
            return Result(query, error=failure, status="error")
        part = await self._fetcher.fetch_part("history", statement, asyncio.get_running_loop().time() + budget_s)
        if part.frame is None:
            return Result(query, error=part.asked.error, status="error", asked=(part.asked,))
        now_ms = self.clock()
        stale = stale_remarks((part,), now_ms)
        shown, since_ms, left_out = shown_events(part.frame, name, from_ms, to_ms, reaching)
        missing = (*left_out, *gap_remarks(name, part.frame.covers_to_ms, min(now_ms, to_ms)))
        status: Status = "partial" if missing or shown.partial else "stale" if stale else "fresh"
        return Result(
            query,
            shown.remark(*stale, *missing),
            status=status,
            range=replace(statement.range, from_ms=since_ms, to_ms=to_ms),
            asked=(part.asked,),
            age_s=part.asked.age_s,
        )

    async def values(
        self, label: str, where: tuple[Matcher, ...], budget_s: float, from_ms: int | None = None, to_ms: int | None = None
    ) -> tuple[list[str], Result | None]:
        """The values of a label, sorted, narrowed by the filters that apply to the metric that shows them; and its result.

        The window is the asked one, and at least the day before its end, so that what was quiet for an hour can still be chosen.
        Raises UnknownName for an unknown label, also of a filter, and the source's error when its values cannot be fetched.
        """
        for matcher in where:
            self.catalogue.label(matcher.label, "where")
        spec = self.catalogue.label(label)
        if spec.metric is None:
            return list(spec.values), None
        metric = self.catalogue.metric(spec.metric)
        narrowed = tuple(matcher for matcher in where if matcher.label in metric.entry.labels and matcher.label != label)
        end_ms = self.clock() if to_ms is None else to_ms
        begin_ms = end_ms - _VALUES_WINDOW_MS if from_ms is None else min(from_ms, end_ms - _VALUES_WINDOW_MS)
        query = Query(metric.name, begin_ms, end_ms, by=(label,), where=narrowed, max_points=10, instant=True)
        [result] = await self.run([query], budget_s)
        if result.error is not None:
            raise result.error
        return sorted({value for labels in result.frame.series for _, value in labels if value}), result

    async def _run_plan(self, query: Query, plan: Plan | BridgeError, now_ms: int, deadline_s: float) -> Result:
        with self._telemetry.inflight.track_inprogress():
            try:
                if isinstance(plan, BridgeError):
                    raise plan
                result = await self._answer_plan(plan, now_ms, deadline_s)
                self._planner.refuse_too_many(result)
            except BridgeError as failure:
                result = Result(query, error=failure, status="error")
        self._telemetry.queries.labels(result.status).inc()
        return result

    async def _answer_plan(self, plan: Plan, now_ms: int, deadline_s: float) -> Result:
        if plan.query.ranking.top is None or not ranks_first(plan, self._planner.known_series(plan.query)):
            return await self._answer_in_time(plan, now_ms, deadline_s)
        top = await self._answer_in_time(self._planner.plan_again(plan, now_ms, ranking_query(plan.query)), now_ms, deadline_s)
        if not top.frame.series:
            return await self._answer_in_time(plan, now_ms, deadline_s)
        narrowed = self._planner.plan_again(plan, now_ms, narrow_to_series(plan.query, top.frame))
        found = await self._answer_in_time(replace(narrowed, ranked_of=top.ranked.total), now_ms, deadline_s)
        return replace(with_marks_of(found, top), query=plan.query)

    async def _answer_in_time(self, plan: Plan, now_ms: int, deadline_s: float) -> Result:
        """The answer; with a coarser step if the asked one takes too long or has too many rows."""
        if not _worth_coarser(plan):
            return await self._assemble_parts(*await self._fetch_fitting(plan, now_ms, deadline_s), now_ms, deadline_s)
        fine = asyncio.create_task(self._fetch_fitting(plan, now_ms, deadline_s))
        coarse: asyncio.Task[Result] | None = None
        try:
            left_s = deadline_s - asyncio.get_running_loop().time()
            await asyncio.wait((fine,), timeout=left_s * COARSER_AFTER_SHARE)
            if not fine.done():
                coarse = asyncio.create_task(self._answer_coarser(plan, now_ms, deadline_s))
            plan, parts = await fine
            refused = parts[0].asked.error
            if coarse is None and refused is not None and refused.heavy:
                # The store refused it as too much; it may answer a tenth of the buckets.
                coarse = asyncio.create_task(self._answer_coarser(plan, now_ms, deadline_s))
                await asyncio.wait((coarse,))
            if coarse is not None and coarse.done() and _is_too_much(parts) and coarse.result().status == "fresh":
                self._telemetry.coarser.inc()
                return _with_coarser_remark(coarse.result(), plan)
            return await self._assemble_parts(plan, parts, now_ms, deadline_s)
        finally:
            fine.cancel()
            if coarse is not None:
                coarse.cancel()

    async def _fetch_fitting(self, plan: Plan, now_ms: int, deadline_s: float) -> tuple[Plan, list[SourceAnswer]]:
        """The parts of the plan; where a store has more rows than it may return, those of a plan with fewer points."""
        parts = await self._fetcher.fetch_parts(plan, deadline_s)
        for _ in range(_FEWER_TRIES):
            if not any(part.asked.error is not None and part.asked.error.too_many_rows for part in parts):
                break
            plan = self._planner.plan_with_fewer(plan, now_ms)
            parts = await self._fetcher.fetch_parts(plan, deadline_s)
        return plan, parts

    async def _assemble_parts(self, plan: Plan, parts: Sequence[SourceAnswer], now_ms: int, deadline_s: float) -> Result:
        """The answer. Where the live store begins later than the planned seam, both sides are fetched again with a later seam."""
        seam_ms = later_seam_ms(plan, parts)
        if seam_ms is not None:
            plan = plan_query(self.catalogue, plan.query, now_ms, self.limits, seam_ms, plan.room)
            parts = await self._fetcher.fetch_parts(plan, deadline_s)
        if (
            plan.query.by
            and (series := [len(part.frame.series) for part in parts if part.frame is not None])
            and not _has_failed(parts)
        ):
            self._planner.note_series(plan.query, max(series))
        begins_ms = await self._begins_ms(plan, deadline_s)
        assembling = partial(assemble_result, plan, parts, now_ms, self.clock(), begins_ms)
        return await run_apart(assembling, sum(part.asked.rows for part in parts) * _ROW_MS)

    async def _begins_ms(self, plan: Plan, deadline_s: float) -> int | None:
        """From when on the history has data at all; None where nobody needs to know, or the store does not say."""
        if plan.begins is None:
            return None
        found = (await self._fetcher.fetch_part("history", plan.begins, deadline_s)).frame
        return int(found.value[0]) if found is not None and len(found) and np.isfinite(found.value[0]) else None

    async def _answer_coarser(self, plan: Plan, now_ms: int, deadline_s: float) -> Result:
        """The same question with far fewer buckets. It is fetched beside the finer one once half the time is up."""
        query = replace(plan.query, step_ms=plan.range.step_ms * COARSER_FACTOR)
        if (wide_ms := _wide_stretch_ms(plan)) > 0:
            query = replace(plan.query, max_points=2 * ((plan.query.to_ms - plan.query.from_ms) // wide_ms) + _BESIDE_STRETCHES)
        coarser = self._planner.plan_again(plan, now_ms, query)
        return await self._assemble_parts(coarser, await self._fetcher.fetch_parts(coarser, deadline_s), now_ms, deadline_s)


def _has_failed(parts: Sequence[SourceAnswer]) -> bool:
    return any(part.frame is None for part in parts)


def _sources_of(plan: Plan | BridgeError) -> set[str]:
    return set() if isinstance(plan, BridgeError) else {found.source for found in (plan.history, plan.live) if found is not None}


def _worth_coarser(plan: Plan) -> bool:
    """Whether a coarser step may be faster: many buckets, a read that is cheaper with fewer, and no alert."""
    history = plan.history
    return (
        history is not None
        and not plan.query.strict
        and len(history.range) >= COARSER_FROM_BUCKETS
        and history.read is not None
        and (history.read.spared_by_coarser or _wide_stretch_ms(plan) > 0)
    )


def _wide_stretch_ms(plan: Plan) -> int:
    """The stretches of the store's roll-up of extremes, where they are wider than the plan's: they spare it the samples."""
    read, history = plan.metric.history, plan.history
    if read is None or history is None or history.read is None or history.read.spared_by_coarser or not read.each:
        return 0
    is_apart = set(read.each) <= set(plan.query.by)
    return read.thins_from_ms if is_apart and 0 < history.thin_ms < read.thins_from_ms else 0


def _is_too_much(parts: Sequence[SourceAnswer]) -> bool:
    """Whether the main part failed because it was too slow or too heavy, or an older answer stands in for it."""
    main = parts[0].asked
    missing = main.error is not None and (main.error.heavy or main.error.timed_out) and len(parts) < 3
    return missing or main.stale is not None


def _with_coarser_remark(result: Result, plan: Plan) -> Result:
    fine, coarse = plan.range.step_ms / 1000, result.range.step_ms / 1000
    what = f"step {coarse:g}s in place of {fine:g}s"
    if fine == coarse:
        what = f"{result.query.max_points} points a series in place of {plan.query.max_points}"
    text = f"{plan.metric.name}: {what}, which is more than the store can answer in time"
    return replace(result, frame=result.frame.remark(Notice("warning", text)), valid_until_ms=None)
