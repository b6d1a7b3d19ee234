"""The use case: queries in, as many results out, none spoils another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from app.assembling import Part, assemble, stale_remarks
from app.catalog import Catalogue, Limits, Plan, plan_events, plan_query
from app.errors import BridgeError, LimitExceeded, SourceError, SourceTimeout, SourceUnavailable
from app.model import (
    Accept,
    Asked,
    Clock,
    Fetch,
    Frame,
    Matcher,
    Notice,
    PartName,
    Query,
    Result,
    Statement,
    Status,
    instant_text,
)
from app.splice import cut
from app.telemetry import Telemetry

_VALUES_WINDOW_MS = 24 * 3600 * 1000
#: events in one answer; a read need not bring more than one more
MOST_EVENTS = 1000
#: of a request's time, for what stands in once a source has used up its own
_RESERVE_S = 0.25
#: a coarser step: how much, from how many buckets on, and after which share of the time it is asked for too
_COARSER = 10
_WORTH_COARSER = 30
_FINE_SHARE = 0.5
#: a source this much faster than the slowest of a request is asked a few turns of the event loop later
_MUCH_FASTER_S = 0.002
_TURNS = 20
#: the newest answer's share in what a source usually takes
_LATELY = 0.2


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
        #: how long each source's answers take lately
        self._usual_s: dict[str, float] = {}

    async def run(self, queries: Sequence[Query], budget_s: float) -> list[Result]:
        """One result per query, in order, within the budget; all see the same instant as now.

        Raises LimitExceeded for too many queries; every other failure is in its own result.
        """
        if len(queries) > self.limits.max_targets:
            raise LimitExceeded(f"targets: {len(queries)} in one request; at most {self.limits.max_targets} are allowed")
        now_ms, deadline_s = self.clock(), asyncio.get_running_loop().time() + budget_s
        plans = [self._planned(query, now_ms) for query in queries]
        first, then = self._slow_first(plans)
        tasks: dict[int, asyncio.Task[Result]] = {}
        async with asyncio.TaskGroup() as group:
            for place in first:
                tasks[place] = group.create_task(self._result(queries[place], plans[place], now_ms, deadline_s))
            if then:
                # The slow stores' questions leave before ours for the others take up the processor.
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
            for place in then:
                tasks[place] = group.create_task(self._result(queries[place], plans[place], now_ms, deadline_s))
        return [tasks[place].result() for place in range(len(queries))]

    def _planned(self, query: Query, now_ms: int) -> Plan | BridgeError:
        try:
            return plan_query(self.catalogue, query, now_ms, self.limits)
        except BridgeError as failure:
            return failure

    def _slow_first(self, plans: Sequence[Plan | BridgeError]) -> tuple[list[int], list[int]]:
        """The places of those plans that decide how long the whole takes, and of those that will be done long before."""
        usual_s = [max((self._usual_s.get(source, 0.0) for source in _sources(plan)), default=0.0) for plan in plans]
        bound_s = max(usual_s, default=0.0) - _MUCH_FASTER_S
        places = range(len(plans))
        return [place for place in places if usual_s[place] > bound_s], [place for place in places if usual_s[place] <= bound_s]

    async def events(
        self, name: str, from_ms: int, to_ms: int, where: tuple[Matcher, ...], budget_s: float, ref_id: str = "A"
    ) -> Result:
        """The events of one kind in [from_ms, to_ms), as a frame with text columns. Errors are in the result."""
        query = Query(name, from_ms, to_ms, ref_id, where=where)
        try:
            event = self.catalogue.event(name)
            known = tuple(matcher for matcher in where if matcher.label in event.entry.labels)
            statement = plan_events(event, from_ms, to_ms, known, self.limits)
        except BridgeError as failure:
            return Result(query, error=failure, status="error")
        part = await self._ask("history", statement, asyncio.get_running_loop().time() + budget_s)
        if part.frame is None:
            return Result(query, error=part.asked.error, status="error", asked=(part.asked,))
        stale = stale_remarks((part,), self.clock())
        found = cut(part.frame, statement.range.from_ms, statement.range.to_ms)
        shown, left_out = _newest_events(found, name)
        status: Status = "partial" if left_out or found.partial else "stale" if stale else "fresh"
        return Result(
            query,
            shown.remark(*stale, *left_out),
            status=status,
            range=statement.range,
            asked=(part.asked,),
            age_s=part.asked.age_s,
        )

    async def values(self, label: str, where: tuple[Matcher, ...], budget_s: float) -> tuple[list[str], Result | None]:
        """The values of a label, sorted, narrowed by those filters that apply to the metric that shows them; and its result.

        Raises UnknownName for an unknown label and the source's error when its values cannot be had.
        """
        spec = self.catalogue.label(label)
        if spec.metric is None:
            return list(spec.values), None
        metric = self.catalogue.metric(spec.metric)
        narrowed = tuple(matcher for matcher in where if matcher.label in metric.entry.labels and matcher.label != label)
        now_ms = self.clock()
        query = Query(metric.name, now_ms - _VALUES_WINDOW_MS, now_ms, by=(label,), where=narrowed, max_points=10)
        [result] = await self.run([query], budget_s)
        if result.error is not None:
            raise result.error
        return sorted({value for labels in result.frame.series for _, value in labels if value}), result

    async def _result(self, query: Query, plan: Plan | BridgeError, now_ms: int, deadline_s: float) -> Result:
        with self._telemetry.inflight.track_inprogress():
            try:
                if isinstance(plan, BridgeError):
                    raise plan
                result = await self._answered(plan, now_ms, deadline_s)
            except BridgeError as failure:
                result = Result(query, error=failure, status="error")
        self._telemetry.queries.labels(result.status).inc()
        return result

    async def _answered(self, plan: Plan, now_ms: int, deadline_s: float) -> Result:
        if not _worth_coarser(plan):
            return assemble(plan, await self._parts(plan, deadline_s), now_ms, self.clock())
        fine = asyncio.create_task(self._parts(plan, deadline_s))
        coarse: asyncio.Task[Result] | None = None
        try:
            left_s = deadline_s - asyncio.get_running_loop().time()
            await asyncio.wait((fine,), timeout=left_s * _FINE_SHARE)
            if not fine.done():
                coarse = asyncio.create_task(self._coarse(plan, now_ms, deadline_s))
            parts = await fine
            if coarse is not None and coarse.done() and _ran_out_of_time(parts) and coarse.result().status == "fresh":
                self._telemetry.coarser.inc()
                return _said_coarser(coarse.result(), plan)
            return assemble(plan, parts, now_ms, self.clock())
        finally:
            fine.cancel()
            if coarse is not None:
                coarse.cancel()

    async def _coarse(self, plan: Plan, now_ms: int, deadline_s: float) -> Result:
        """The same question with far fewer buckets, asked once half the time is up while the finer one is still waited for."""
        query = replace(plan.query, step_ms=plan.range.step_ms * _COARSER)
        coarser = plan_query(self.catalogue, query, now_ms, self.limits)
        return assemble(coarser, await self._parts(coarser, deadline_s), now_ms, self.clock())

    async def _parts(self, plan: Plan, deadline_s: float) -> list[Part]:
        """History and live edge, asked at the same time. Where the main part is missing: its fallbacks, one after the other; what
        is kept of it when they fail too."""
        asked: list[tuple[PartName, Statement | None]] = [("history", plan.history), ("live", plan.live)]
        wanted = [(part, statement) for part, statement in asked if statement]
        accept: Accept = "fresh" if plan.query.strict else "stale"
        first: Accept = "fresh" if plan.fallback else accept
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._ask(part, statement, deadline_s, first if place == 0 else accept))
                for place, (part, statement) in enumerate(wanted)
            ]
        parts = [task.result() for task in tasks]
        if not parts or parts[0].frame is not None or plan.query.strict:
            return parts
        for statement in plan.fallback:
            parts.append(await self._ask("fallback", statement, deadline_s, "fresh"))
            if parts[-1].frame is not None:
                return parts
        if plan.fallback:
            kept = await self._ask(*wanted[0], deadline_s, "kept")
            parts[0] = _with_reason(kept, parts[0]) if kept.frame is not None else parts[0]
        return parts

    async def _ask(self, part: PartName, statement: Statement, deadline_s: float, accept: Accept = "stale") -> Part:
        begun_s = time.perf_counter()
        try:
            fetch = self._fetches.get(statement.source)
            if fetch is None:
                raise SourceUnavailable(statement.source, "not configured")
            left_s = deadline_s - asyncio.get_running_loop().time()
            # What is kept, or a fallback, needs a moment too.
            until_s = deadline_s - min(_RESERVE_S, left_s * 0.1)
            async with asyncio.timeout_at(deadline_s):
                frame = await fetch(replace(statement, accept=accept, until_s=until_s))
        except TimeoutError:
            failure = SourceTimeout(statement.source, "no answer within the request's time limit")
            return Part(Asked(statement.source, part, time.perf_counter() - begun_s, failure))
        except BridgeError as failure:
            return Part(Asked(statement.source, part, time.perf_counter() - begun_s, failure))
        age_s = max(self.clock() - frame.asked_ms, 0) / 1000
        took_s = time.perf_counter() - begun_s
        usual_s = self._usual_s.get(statement.source, took_s)
        self._usual_s[statement.source] = usual_s + (took_s - usual_s) * _LATELY
        return Part(Asked(statement.source, part, took_s, None, frame.stale, age_s), frame)


def _sources(plan: Plan | BridgeError) -> set[str]:
    return set() if isinstance(plan, BridgeError) else {found.source for found in (plan.history, plan.live) if found is not None}


def _worth_coarser(plan: Plan) -> bool:
    """Whether a coarser step may help in time: many buckets, a read that is spared by fewer, no alert."""
    history = plan.history
    return (
        history is not None
        and not plan.query.strict
        and len(history.range) >= _WORTH_COARSER
        and history.read is not None
        and history.read.spared_by_coarser
    )


def _with_reason(kept: Part, failed: Part) -> Part:
    """What is kept of a part, with the reason why it has to stand in."""
    reason = failed.asked.error
    text = reason.reason if isinstance(reason, SourceError) else str(reason)
    assert kept.frame is not None  # noqa: S101  the caller looked
    return Part(replace(kept.asked, seconds=failed.asked.seconds, stale=text), replace(kept.frame, stale=text))


def _ran_out_of_time(parts: Sequence[Part]) -> bool:
    """Whether the main part is missing, or an older one stands in, for want of time."""
    main = parts[0]
    return (isinstance(main.asked.error, SourceTimeout) and len(parts) < 3) or main.asked.stale is not None


def _newest_events(frame: Frame, name: str) -> tuple[Frame, tuple[Notice, ...]]:
    if len(frame) <= MOST_EVENTS:
        return frame, ()
    kept = frame.at(np.arange(len(frame) - MOST_EVENTS, len(frame)))
    text = f"{name}: more than {MOST_EVENTS} in this range; only the newest are shown, from {instant_text(int(kept.time[0]))} on"
    return kept, (Notice("warning", text),)


def _said_coarser(result: Result, plan: Plan) -> Result:
    fine, coarse = plan.range.step_ms / 1000, result.range.step_ms / 1000
    text = f"{plan.metric.name}: step {coarse:g}s in place of {fine:g}s, which could not be had within the request's time limit"
    return replace(result, frame=result.frame.remark(Notice("warning", text)), good_to_ms=None)
