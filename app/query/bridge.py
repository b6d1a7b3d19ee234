"""The use case: queries in, one result for each; a failure stays in its own result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from app.catalog import Catalogue
from app.cooperative import run_apart
from app.errors import BridgeError, LimitExceeded, SourceTimeout, SourceUnavailable
from app.model import (
    Accept,
    Clock,
    Fetch,
    Matcher,
    Notice,
    PartName,
    Query,
    Result,
    SourceReport,
    Statement,
    Status,
)
from app.query.assemble import assemble_result, gap_remarks, later_seam_ms, stale_remarks
from app.query.events import shown_events
from app.query.limits import Limits
from app.query.parts import SourceAnswer
from app.query.plan import Plan, plan_events, plan_query
from app.telemetry import Telemetry

_VALUES_WINDOW_MS = 24 * 3600 * 1000
#: part of a request's time that is left for a stand-in after a source used up its own
_RESERVE_S = 0.25
#: a coarser step: by which factor, from how many buckets on, and after which share of the time it is fetched as well
COARSER_FACTOR = 10
COARSER_FROM_BUCKETS = 30
COARSER_AFTER_SHARE = 0.5
#: a source this much faster than the slowest of a request is asked a few turns of the event loop later
_MUCH_FASTER_S = 0.002
YIELDS = 20
#: weight of the newest answer in the moving average of a source's time
EWMA_WEIGHT = 0.2
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
        self._fetches = fetches
        self._telemetry = telemetry
        #: moving average of each source's answer time
        self._usual_s: dict[str, float] = {}

    async def run(self, queries: Sequence[Query], budget_s: float) -> list[Result]:
        """One result per query, in order, within the budget; all see the same instant as now.

        Raises LimitExceeded for too many queries; every other failure is in its own result.
        """
        if len(queries) > self.limits.max_targets:
            raise LimitExceeded(f"targets: {len(queries)} in one request; at most {self.limits.max_targets} are allowed")
        now_ms, deadline_s = self.clock(), asyncio.get_running_loop().time() + budget_s
        plans = [self._plan_or_error(query, now_ms) for query in queries]
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

    def _plan_or_error(self, query: Query, now_ms: int) -> Plan | BridgeError:
        try:
            return plan_query(self.catalogue, query, now_ms, self.limits)
        except BridgeError as failure:
            return failure

    def _slow_first(self, plans: Sequence[Plan | BridgeError]) -> tuple[list[int], list[int]]:
        """The indices of the plans that decide how long the request takes, and of those that are done long before."""
        usual_s = [max((self._usual_s.get(source, 0.0) for source in _sources_of(plan)), default=0.0) for plan in plans]
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
        part = await self._fetch_part("history", statement, asyncio.get_running_loop().time() + budget_s)
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
            except BridgeError as failure:
                result = Result(query, error=failure, status="error")
        self._telemetry.queries.labels(result.status).inc()
        return result

    async def _answer_plan(self, plan: Plan, now_ms: int, deadline_s: float) -> Result:
        if not _worth_coarser(plan):
            return await self._assemble_parts(plan, await self._fetch_parts(plan, deadline_s), now_ms, deadline_s)
        fine = asyncio.create_task(self._fetch_parts(plan, deadline_s))
        coarse: asyncio.Task[Result] | None = None
        try:
            left_s = deadline_s - asyncio.get_running_loop().time()
            await asyncio.wait((fine,), timeout=left_s * COARSER_AFTER_SHARE)
            if not fine.done():
                coarse = asyncio.create_task(self._answer_coarser(plan, now_ms, deadline_s))
            parts = await fine
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

    async def _assemble_parts(self, plan: Plan, parts: Sequence[SourceAnswer], now_ms: int, deadline_s: float) -> Result:
        """The answer. Where the live store begins later than the planned seam, both sides are fetched again with a later seam."""
        seam_ms = later_seam_ms(plan, parts)
        if seam_ms is not None:
            plan = plan_query(self.catalogue, plan.query, now_ms, self.limits, seam_ms)
            parts = await self._fetch_parts(plan, deadline_s)
        begins_ms = await self._begins_ms(plan, deadline_s)
        assembling = partial(assemble_result, plan, parts, now_ms, self.clock(), begins_ms)
        return await run_apart(assembling, sum(part.asked.rows for part in parts) * _ROW_MS)

    async def _begins_ms(self, plan: Plan, deadline_s: float) -> int | None:
        """From when on the history has data at all; None where nobody needs to know, or the store does not say."""
        if plan.begins is None:
            return None
        found = (await self._fetch_part("history", plan.begins, deadline_s)).frame
        return int(found.value[0]) if found is not None and len(found) and np.isfinite(found.value[0]) else None

    async def _answer_coarser(self, plan: Plan, now_ms: int, deadline_s: float) -> Result:
        """The same question with far fewer buckets. It is fetched beside the finer one once half the time is up."""
        query = replace(plan.query, step_ms=plan.range.step_ms * COARSER_FACTOR)
        coarser = plan_query(self.catalogue, query, now_ms, self.limits)
        return await self._assemble_parts(coarser, await self._fetch_parts(coarser, deadline_s), now_ms, deadline_s)

    async def _fetch_parts(self, plan: Plan, deadline_s: float) -> list[SourceAnswer]:
        """History and live edge, fetched at the same time. Where the main part fails: its fallbacks, in order, then its cached
        answer."""
        asked: list[tuple[PartName, Statement | None]] = [("history", plan.history), ("live", plan.live)]
        wanted = [(part, statement) for part, statement in asked if statement]
        accept: Accept = "fresh" if plan.query.strict else "stale"
        first: Accept = "fresh" if plan.fallback else accept
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._fetch_part(part, statement, deadline_s, first if place == 0 else accept))
                for place, (part, statement) in enumerate(wanted)
            ]
        parts = [task.result() for task in tasks]
        if not parts or parts[0].frame is not None or plan.query.strict:
            return parts
        for statement in plan.fallback:
            parts.append(await self._fetch_part("fallback", statement, deadline_s, "fresh"))
            if parts[-1].frame is not None:
                return parts
        if plan.fallback:
            kept = await self._fetch_part(*wanted[0], deadline_s, "cached_only")
            parts[0] = _with_reason(kept, parts[0]) if kept.frame is not None else parts[0]
        if plan.history is not None and plan.live is not None and plan.live_alone is not None and parts[0].frame is None:
            # Nothing stands in for the history: the live store answers with what it still has of the whole range.
            alone = await self._fetch_part("live", plan.live_alone, deadline_s)
            parts = [*(part for part in parts if part.asked.part != "live"), alone]
        return parts

    async def _fetch_part(
        self, part: PartName, statement: Statement, deadline_s: float, accept: Accept = "stale"
    ) -> SourceAnswer:
        begun_s = time.perf_counter()
        try:
            fetch = self._fetches.get(statement.source)
            if fetch is None:
                raise SourceUnavailable(statement.source, "not configured")
            left_s = deadline_s - asyncio.get_running_loop().time()
            # A cached answer or a fallback needs a moment, too.
            until_s = deadline_s - min(_RESERVE_S, left_s * 0.1)
            async with asyncio.timeout_at(deadline_s):
                frame = await fetch(replace(statement, accept=accept, until_s=until_s))
        except TimeoutError:
            failure = SourceTimeout(statement.source, "no answer within the request's time limit")
            return SourceAnswer(SourceReport(statement.source, part, time.perf_counter() - begun_s, failure), statement=statement)
        except BridgeError as failure:
            return SourceAnswer(SourceReport(statement.source, part, time.perf_counter() - begun_s, failure), statement=statement)
        age_s = max(self.clock() - frame.provenance.asked_ms, 0) / 1000
        took_s = time.perf_counter() - begun_s
        usual_s = self._usual_s.get(statement.source, took_s)
        self._usual_s[statement.source] = usual_s + (took_s - usual_s) * EWMA_WEIGHT
        report = SourceReport(statement.source, part, took_s, None, frame.provenance.stale, age_s, len(frame))
        return SourceAnswer(report, frame, statement)


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
        and history.read.spared_by_coarser
    )


def _with_reason(kept: SourceAnswer, failed: SourceAnswer) -> SourceAnswer:
    """The cached answer of a part, with the reason why it stands in."""
    assert kept.frame is not None  # noqa: S101  the caller looked
    assert failed.asked.error is not None  # noqa: S101  the caller looked
    text = failed.asked.error.reason
    return replace(
        kept, asked=replace(kept.asked, seconds=failed.asked.seconds, stale=text), frame=kept.frame.with_provenance(stale=text)
    )


def _is_too_much(parts: Sequence[SourceAnswer]) -> bool:
    """Whether the main part failed because it was too slow or too heavy, or an older answer stands in for it."""
    main = parts[0].asked
    missing = main.error is not None and (main.error.heavy or main.error.timed_out) and len(parts) < 3
    return missing or main.stale is not None


def _with_coarser_remark(result: Result, plan: Plan) -> Result:
    fine, coarse = plan.range.step_ms / 1000, result.range.step_ms / 1000
    text = f"{plan.metric.name}: step {coarse:g}s in place of {fine:g}s, which is more than the store can answer in time"
    return replace(result, frame=result.frame.remark(Notice("warning", text)), valid_until_ms=None)
