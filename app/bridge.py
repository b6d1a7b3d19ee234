"""The use case: queries in, as many results out, none spoils another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.catalog import Catalogue, Limits, Plan, plan_events, plan_query
from app.downsample import thin
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
    age_text,
    instant_text,
)
from app.splice import cut, newest, seam_ms, splice
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
#: up to so many steps, or resolutions of the metric, back a value is an alert's "now" where nobody tells of now
_NOW_STEPS, _NOW_RESOLUTIONS = 2, 6
#: an answer's ages are whole milliseconds
_ROUNDING_MS = 1


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
        stale = _stale((part,), self.clock())
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


def assemble(plan: Plan, parts: Sequence[Part], now_ms: int, done_ms: int | None = None) -> Result:
    """The parts as one answer: joined at the seam, cut to the range, thinned, marked. An error when there is nothing to show.

    `now_ms` is the request's instant, `done_ms` that of the answer: a part may have aged while another was waited for.
    """
    done_ms = now_ms if done_ms is None else done_ms
    parts = [_aged(part, done_ms) for part in parts]
    asked = tuple(part.asked for part in parts)
    frames = {part.asked.part: part.frame for part in parts if part.frame is not None}
    failures = [part.asked.error for part in parts if part.asked.error is not None and not _unneeded(part, frames)]
    if failures and (plan.query.strict or not frames):
        return Result(plan.query, error=failures[0], status="error", range=plan.range, asked=asked)
    frame, remarks = _joined(plan, frames, now_ms)
    stale = _stale(parts, done_ms)
    missing = _missing(plan, parts, frame)
    cut_short = any(found.partial for found in frames.values())
    if plan.query.strict and (remarks or stale or cut_short):
        reason = (*remarks, *stale, *frame.notices)[0].text
        return Result(
            plan.query, error=SourceUnavailable(plan.metric.name, reason), status="error", range=plan.range, asked=asked
        )
    shown = _shown(plan, frame, bool(stale), now_ms)
    oldest_ms = min((found.asked_ms for found in frames.values()), default=now_ms)
    return Result(
        plan.query,
        shown.remark(*plan.notices, *stale, *missing, *remarks),
        status="partial" if failures or remarks or cut_short else "stale" if stale else "fresh",
        range=plan.range,
        asked=asked,
        age_s=max(done_ms - oldest_ms, 0) / 1000,
        good_to_ms=_good_to_ms(plan, frames),
        grid_ms=plan.thin_ms or plan.range.step_ms,
    )


def _good_to_ms(plan: Plan, frames: Mapping[PartName, Frame]) -> int | None:
    """As long as every part is fresh, the plan is the same, and no history has come to end too early to be whole."""
    ends = [frame.fresh_to_ms for frame in frames.values()]
    known = [end for end in ends if end is not None]
    if not known or len(known) < len(ends):
        return None
    if "live" not in frames:
        # Nothing goes on where the history ends: with the next bucket it is one too short.
        ends_ms = [frame.covers_to_ms for frame in frames.values() if frame.covers_to_ms is not None]
        known += [end_ms + plan.range.step_ms for end_ms in ends_ms if end_ms < plan.range.to_ms]
    return min(plan.good_to_ms, *known)


def _unneeded(part: Part, frames: Mapping[PartName, Frame]) -> bool:
    """A fallback that failed while an older answer stands for the main part: nothing is missing."""
    return part.asked.part == "fallback" and "history" in frames


def _aged(part: Part, done_ms: int) -> Part:
    """A part that was fresh when it was had, and is no more."""
    frame = part.frame
    if frame is None or frame.stale is not None or frame.fresh_to_ms is None or done_ms <= frame.fresh_to_ms + _ROUNDING_MS:
        return part
    reason = "it grew old while the other parts were waited for"
    return Part(replace(part.asked, stale=reason), replace(frame, stale=reason))


def _stale(parts: Sequence[Part], done_ms: int) -> tuple[Notice, ...]:
    """One remark for each part that an older answer stands in for: how old, as of when, and why."""
    return tuple(
        Notice(
            "warning",
            f"{part.asked.source}: STALE, {age_text(done_ms - part.frame.asked_ms)} old, as of "
            f"{instant_text(part.frame.asked_ms)}: {part.frame.stale}",
        )
        for part in parts
        if part.frame is not None and part.frame.stale is not None
    )


def _shown(plan: Plan, frame: Frame, stale: bool, now_ms: int) -> Frame:
    """The rows of the range, thinned, or the newest of each series. Of a stale answer whose last values lie before the range
    they are shown all the same, at their own time: a blank panel would say less."""
    if plan.query.strict and plan.query.instant:
        return _now(plan, frame, now_ms)
    inside = cut(frame, plan.range.from_ms, plan.range.to_ms)
    if stale and not len(inside) and len(frame):
        inside = newest(cut(frame, 0, plan.range.to_ms))
    if plan.thin_ms:
        inside = thin(inside, plan.thin_ms)
    return newest(inside) if plan.query.instant else inside


def _now(plan: Plan, frame: Frame, now_ms: int) -> Frame:
    """An alert's newest values. It compares them without looking at their time: what ended before is no value of now, and where
    the newest is known to have none (no margin is used any more) an older one is not the truth. What Redis tells of now is in the
    open bucket."""
    back_ms = max(_NOW_STEPS * plan.range.step_ms, _NOW_RESOLUTIONS * plan.metric.entry.resolution_s * 1000)
    since_ms = min(now_ms, plan.range.to_ms) - back_ms
    if plan.live is not None and plan.metric.sampled:
        since_ms = plan.range.to_ms - plan.range.step_ms
    return newest(cut(frame, since_ms, plan.range.to_ms), null_too=True)


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
