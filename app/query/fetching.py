"""The statements of a plan, asked of their sources at the same time; what answers in place of a part that failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from app.errors import BridgeError, SourceTimeout, SourceUnavailable
from app.model import Accept, Clock, Fetch, PartName, SourceReport, Statement
from app.query.parts import SourceAnswer
from app.query.plan import Plan

#: part of a request's time that is left for a stand-in after a source used up its own
_RESERVE_S = 0.25
#: weight of the newest answer in the moving average of a source's time
EWMA_WEIGHT = 0.2


class PartFetcher:
    """Asks the sources. `fetches` are the guarded sources by name; one that is not there is unavailable."""

    def __init__(self, fetches: Mapping[str, Fetch], clock: Clock) -> None:
        self._fetches = fetches
        self._clock = clock
        #: moving average of each source's answer time
        self.usual_s: dict[str, float] = {}

    async def fetch_parts(self, plan: Plan, deadline_s: float) -> list[SourceAnswer]:
        """History and live edge, fetched at the same time. Where the main part fails: its fallbacks, in order, then its cached
        answer."""
        asked: list[tuple[PartName, Statement | None]] = [("history", plan.history), ("live", plan.live)]
        wanted = [(part, statement) for part, statement in asked if statement]
        accept: Accept = "fresh" if plan.query.strict else "stale"
        first: Accept = "fresh" if plan.fallback else accept
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.fetch_part(part, statement, deadline_s, first if place == 0 else accept))
                for place, (part, statement) in enumerate(wanted)
            ]
        parts = [task.result() for task in tasks]
        if not parts or parts[0].frame is not None or plan.query.strict:
            return parts
        for statement in plan.fallback:
            parts.append(await self.fetch_part("fallback", statement, deadline_s, "fresh"))
            if parts[-1].frame is not None:
                return parts
        if plan.fallback:
            kept = await self.fetch_part(*wanted[0], deadline_s, "cached_only")
            parts[0] = _with_reason(kept, parts[0]) if kept.frame is not None else parts[0]
        if plan.history is not None and plan.live is not None and plan.live_alone is not None and parts[0].frame is None:
            # Nothing stands in for the history: the live store answers with what it still has of the whole range.
            alone = await self.fetch_part("live", plan.live_alone, deadline_s)
            parts = [*(part for part in parts if part.asked.part != "live"), alone]
        return parts

    async def fetch_part(self, part: PartName, statement: Statement, deadline_s: float, accept: Accept = "stale") -> SourceAnswer:
        """What one source answers to one statement, or why it does not."""
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
        age_s = max(self._clock() - frame.provenance.asked_ms, 0) / 1000
        took_s = time.perf_counter() - begun_s
        usual_s = self.usual_s.get(statement.source, took_s)
        self.usual_s[statement.source] = usual_s + (took_s - usual_s) * EWMA_WEIGHT
        report = SourceReport(statement.source, part, took_s, None, frame.provenance.stale, age_s, len(frame))
        return SourceAnswer(report, frame, statement)


def _with_reason(kept: SourceAnswer, failed: SourceAnswer) -> SourceAnswer:
    """The cached answer of a part, with the reason why it stands in."""
    assert kept.frame is not None  # noqa: S101  the caller looked
    assert failed.asked.error is not None  # noqa: S101  the caller looked
    text = failed.asked.error.reason
    return replace(
        kept, asked=replace(kept.asked, seconds=failed.asked.seconds, stale=text), frame=kept.frame.with_provenance(stale=text)
    )
