"""The use case: queries in, as many results out, none spoils another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.catalog import Catalogue, Limits, Plan, plan_events, plan_query
from app.downsample import thin
from app.errors import BridgeError, LimitExceeded, SourceTimeout, SourceUnavailable
from app.model import Asked, Clock, Fetch, Frame, Matcher, Notice, PartName, Query, Result, Statement, instant_text
from app.splice import cut, newest, seam_ms, splice
from app.telemetry import Telemetry

_VALUES_WINDOW_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Part:
    """What became of one statement: a frame, or the error in `asked`."""

    asked: Asked
    frame: Frame | None = None


class Bridge:
    """Answers queries from the sources. `fetches` are the guarded sources by name; one that is not there is unavailable."""

    def __init__(
        self,
        catalogue: Catalogue,
        fetches: Mapping[str, Fetch],
        telemetry: Telemetry,
        clock: Clock,
        limits: Limits | None = None,
        concurrent: int = 20,
    ) -> None:
        self.catalogue = catalogue
        self.limits = limits or Limits()
        self.clock = clock
        self._fetches = fetches
        self._telemetry = telemetry
        self._places = asyncio.Semaphore(concurrent)

    async def run(self, queries: Sequence[Query], budget_s: float) -> list[Result]:
        """One result per query, in order, within the budget; all see the same instant as now.

        Raises LimitExceeded for too many queries; every other failure is in its own result.
        """
        if len(queries) > self.limits.max_targets:
            raise LimitExceeded(f"targets: {len(queries)} in one request; at most {self.limits.max_targets} are allowed")
        now_ms, deadline_s = self.clock(), asyncio.get_running_loop().time() + budget_s
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._result(query, now_ms, deadline_s)) for query in queries]
        return [task.result() for task in tasks]

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
        return Result(query, part.frame, range=statement.range, asked=(part.asked,))

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

    async def _result(self, query: Query, now_ms: int, deadline_s: float) -> Result:
        try:
            plan = plan_query(self.catalogue, query, now_ms, self.limits)
            await self._place(deadline_s)
            try:
                with self._telemetry.inflight.track_inprogress():
                    result = assemble(plan, await self._parts(plan, deadline_s), now_ms)
            finally:
                self._places.release()
        except BridgeError as failure:
            result = Result(query, error=failure, status="error")
        self._telemetry.queries.labels(result.status).inc()
        return result

    async def _place(self, deadline_s: float) -> None:
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._places.acquire()
        except TimeoutError:
            raise SourceTimeout("bridge", "no place became free within the request's time limit") from None

    async def _parts(self, plan: Plan, deadline_s: float) -> list[Part]:
        """History and live edge, asked at the same time; fallbacks, one after the other, only when the main part is missing."""
        wanted: list[tuple[PartName, Statement | None]] = [("history", plan.history), ("live", plan.live)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(part, statement, deadline_s)) for part, statement in wanted if statement]
        parts = [task.result() for task in tasks]
        if not parts or parts[0].frame is not None or plan.query.strict:
            return parts
        for statement in plan.fallback:
            parts.append(await self._ask("fallback", statement, deadline_s))
            if parts[-1].frame is not None:
                break
        return parts

    async def _ask(self, part: PartName, statement: Statement, deadline_s: float) -> Part:
        begun_s = time.perf_counter()
        try:
            fetch = self._fetches.get(statement.source)
            if fetch is None:
                raise SourceUnavailable(statement.source, "not configured")
            async with asyncio.timeout_at(deadline_s):
                frame = await fetch(statement)
        except TimeoutError:
            failure = SourceTimeout(statement.source, "no answer within the request's time limit")
            return Part(Asked(statement.source, part, time.perf_counter() - begun_s, failure))
        except BridgeError as failure:
            return Part(Asked(statement.source, part, time.perf_counter() - begun_s, failure))
        return Part(Asked(statement.source, part, time.perf_counter() - begun_s), frame)


def assemble(plan: Plan, parts: Sequence[Part], now_ms: int) -> Result:
    """The parts as one answer: joined at the seam, cut to the range, thinned, marked. An error when there is nothing to show."""
    asked = tuple(part.asked for part in parts)
    frames = {part.asked.part: part.frame for part in parts if part.frame is not None}
    failures = [part.asked.error for part in parts if part.asked.error is not None]
    if failures and (plan.query.strict or not frames):
        return Result(plan.query, error=failures[0], status="error", range=plan.range, asked=asked)
    frame, remarks = _joined(plan, frames, now_ms)
    notices = (*plan.notices, *_missing(plan, parts, frame), *remarks)
    frame = cut(frame, plan.range.from_ms, plan.range.to_ms)
    if plan.thin_ms:
        frame = thin(frame, plan.thin_ms)
    if plan.query.instant:
        frame = newest(frame)
    partial = bool(failures or remarks)
    if partial and plan.query.strict:
        return Result(plan.query, error=SourceUnavailable(plan.metric.name, remarks[0].text), status="error", asked=asked)
    oldest_ms = min((found.asked_ms for found in frames.values()), default=now_ms)
    return Result(
        plan.query,
        frame.remark(*notices),
        status="partial" if partial else "fresh",
        range=plan.range,
        asked=asked,
        age_s=max(now_ms - oldest_ms, 0) / 1000,
    )


def _joined(plan: Plan, frames: Mapping[PartName, Frame], now_ms: int) -> tuple[Frame, tuple[Notice, ...]]:
    """The main part (history or its fallback) with the live edge after it, and what is missing between the two."""
    main, live = frames.get("history", frames.get("fallback")), frames.get("live")
    if main is None:
        return live if live is not None else Frame(asked_ms=now_ms), ()
    if live is None:
        return main, _gap(plan, main.covers_to_ms, min(now_ms, plan.range.to_ms))
    seam = seam_ms(plan.range.step_ms, plan.live_from_ms, plan.open_ms, main.covers_to_ms)
    return splice(main, live, seam), _gap(plan, main.covers_to_ms, seam)


def _gap(plan: Plan, covers_to_ms: int | None, needed_to_ms: int) -> tuple[Notice, ...]:
    """A remark where the history ends before it is needed to: what lies between is known to be incomplete."""
    if covers_to_ms is None or needed_to_ms - covers_to_ms < plan.range.step_ms:
        return ()
    missing_s = (needed_to_ms - covers_to_ms) / 1000
    text = f"{plan.metric.name}: the history ends at {instant_text(covers_to_ms)}; the {missing_s:.0f}s after it are incomplete"
    return (Notice("warning", text),)


def _missing(plan: Plan, parts: Sequence[Part], frame: Frame) -> tuple[Notice, ...]:
    """One remark for each part that failed, saying what stands in its place."""
    stand_in = next((part.asked.source for part in parts if part.asked.part == "fallback" and part.frame is not None), None)
    return tuple(Notice("warning", _remark(part.asked, stand_in, frame)) for part in parts if part.asked.error is not None)


def _remark(asked: Asked, stand_in: str | None, frame: Frame) -> str:
    text = str(asked.error)
    if asked.part == "fallback":
        return f"{text}; this fallback is missing too"
    if stand_in is not None:
        return f"{text}; answered by the fallback {stand_in}"
    if asked.part == "live":
        until = f"the newest point is {instant_text(int(frame.time.max()))}" if len(frame) else "nothing is known"
        return f"{text}; the live edge is missing, {until}"
    return f"{text}; the history is missing, only the live edge is shown"
