"""Incremental fetches: the settled head of a cached answer is reused, and the source is asked for the rest only.

A bucket is *settled* once it was asked for `volatile_s` (at least two buckets' length) after its end: late rows have had that
long. Where the store's clock is behind, that counts from the store's own present. The rest is fetched again each time. Reused
buckets expire at `reusable_until_ms`; then the whole range is fetched again, so later rows appear by then.

Only reads whose buckets stand alone (`Read.sliceable`) are fetched so: they give the same buckets whatever else is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace

from app.errors import SourceError, SourceForeign
from app.jitter import JITTER
from app.model import Clock, Fetch, Frame, Statement
from app.policies.cache.answers import AnswerCache, CachedFrame, cache_ages
from app.policies.checked import misfit
from app.policies.settings import Policy
from app.series import clip, splice
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)

#: share of the incremental answers that are compared with a fetch of the whole
_COMPARED = 1 / 1000


class Incremental:
    """Fetches what the cached answers of the same shape do not hold.

    A small share of the answers is compared with a fetch of the whole in the background. Where the two differ, the cached answers
    of that shape are dropped, and a metric and a log line say so.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        answers: AnswerCache,
        numbers: Policy,
        telemetry: Telemetry,
        clock: Clock,
        chance: Callable[[], float] = JITTER.random,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._answers = answers
        self._numbers = numbers
        self._telemetry = telemetry
        self._clock = clock
        self._chance = chance
        self._comparing: set[asyncio.Task[None]] = set()

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        try:
            return await self._fetch_frame(statement)
        except SourceForeign:
            # The answers before it may be mixed up for the same reason.
            self._answers.drop_shape(statement)
            raise

    async def _fetch_frame(self, statement: Statement) -> Frame:
        if self._numbers.settled_s <= 0 or not _is_sliceable(statement):
            return await self._fetch(statement)
        now_ms = self._clock()
        head = self._find_head(statement, now_ms) if may_be_incremental(statement) else None
        joined = self._join_head(statement, head, await self._fetch(head.rest_statement(statement))) if head else None
        if head is None or joined is None:
            frame = await self._fetch(statement)
            # Spread: answers that were fetched together would otherwise expire together.
            reuse_ms = round(self._numbers.settled_s * 1000 * (1 - 0.1 * self._chance()))
            return frame.with_provenance(reusable_until_ms=now_ms + reuse_ms)
        self._telemetry.spared.labels(self._source).inc()
        if self._chance() < _COMPARED:
            self._start_task(self._compare_whole(statement, joined, head.until_ms))
        return joined

    async def close(self) -> None:
        """End the comparisons in the background."""
        comparing = set(self._comparing)
        for task in comparing:
            task.cancel()
        if comparing:
            await asyncio.wait(comparing)

    def _find_head(self, statement: Statement, now_ms: int) -> Head | None:
        volatile_s = cache_ages(statement, self._numbers).volatile_s
        usable = [
            (until_ms, kept)
            for kept in self._answers.of_shape(statement)
            # A metric with a shorter `volatile_s` has reused buckets that may still change for this one.
            if kept.statement.cache.volatile_s == statement.cache.volatile_s
            and (until_ms := reusable_until(kept, statement, volatile_s, now_ms)) is not None
        ]
        if not usable:
            return None
        until_ms, kept = max(usable, key=lambda one: one[0])
        return Head(clip(kept.frame, statement.range.from_ms, until_ms), until_ms)

    def _join_head(self, statement: Statement, head: Head, rest: Frame) -> Frame | None:
        """Head and rest as one answer; None where they do not fit together or do not fit the question."""
        joined = head.join_rest(rest)
        problem = misfit(statement, joined) if joined is not None else None
        if problem is not None:
            self._answers.drop_shape(statement)
            _log.warning("%s: %s: what was kept is not believed: %s", self._source, statement.metric, problem)
            return None
        return joined

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._comparing.add(task)
        task.add_done_callback(self._comparing.discard)

    async def _compare_whole(self, statement: Statement, joined: Frame, until_ms: int) -> None:
        with suppress(SourceError):  # nothing to compare with
            whole = await self._fetch(replace(statement, lane="background", accept="fresh"))
            alike = settled_alike(joined, whole, until_ms)
            self._telemetry.compared.labels(self._source, "equal" if alike else "different").inc()
            if not alike:
                self._answers.drop_shape(statement)
                _log.warning("%s: %s: settled buckets have changed since they were asked for", self._source, statement.metric)


@dataclass(frozen=True, slots=True)
class Head:
    """The reused part of a cached answer: its rows from the start of the asked range up to `until_ms`."""

    frame: Frame
    until_ms: int

    def rest_statement(self, statement: Statement) -> Statement:
        """The statement for what is not reused."""
        params = tuple((name, self.until_ms if name == "from_ms" else value) for name, value in statement.params)
        return replace(statement, params=params, range=replace(statement.range, from_ms=self.until_ms))

    def join_rest(self, rest: Frame) -> Frame | None:
        """The whole answer, as old as its rest; None where the rest is of another snapshot: a newer one may have other figures
        for every bucket.

        The remarks are those of the rest: what the source says of its present state, a clock that is off for example, comes with
        each fetch, and should not outlive it.
        """
        if rest.text or rest.covers_to_ms != self.frame.covers_to_ms:
            return None
        whole = splice(self.frame, rest, self.until_ms)
        return replace(
            rest,
            time=whole.time,
            value=whole.value,
            weight=whole.weight,
            series=whole.series,
            offsets=whole.offsets,
        ).with_provenance(reusable_until_ms=self.frame.provenance.reusable_until_ms, incremental=True)


def may_be_incremental(statement: Statement) -> bool:
    """Whether buckets may be reused for this statement. Not for an alert: its answer must have very late rows, too."""
    return statement.lane != "alert" and _is_sliceable(statement)


def _is_sliceable(statement: Statement) -> bool:
    return statement.read is not None and statement.read.sliceable


def reusable_until(kept: CachedFrame, statement: Statement, volatile_s: float, now_ms: int) -> int | None:
    """Up to which bucket (epoch ms) a cached answer of the same shape may be reused; None where no bucket may.

    Whether the source called it partial decides, and its times. Remarks do not.
    """
    frame, asked, had = kept.frame, statement.range, kept.range
    if frame.partial or frame.text or now_ms >= frame.provenance.reusable_until_ms or had.from_ms > asked.from_ms:
        return None
    if (asked.from_ms - had.from_ms) % asked.step_ms:
        return None
    # What the store has thinned can be reused in whole stretches.
    width_ms = statement.thin_ms or asked.step_ms
    if statement.thin_ms and (asked.from_ms % width_ms or had.from_ms % width_ms):
        return None
    known_ms = kept.asked_ms if frame.covers_to_ms is None else min(kept.asked_ms, frame.covers_to_ms)
    # What happened just now is, to a store whose clock is behind, still to come.
    settled_ms = known_ms - frame.behind_ms - max(2 * width_ms, round(volatile_s * 1000))
    if statement.thin_ms:
        # Rows that came unthinned then may be thinned now, and the other way round.
        settled_ms = min(settled_ms, kept.statement.thin_to_ms, statement.thin_to_ms)
    # At least one bucket is fetched: an answer is as old as its newest part.
    newest_ms = min(settled_ms, had.to_ms, asked.to_ms - asked.step_ms)
    until_ms = asked.from_ms + (newest_ms - asked.from_ms) // width_ms * width_ms
    return until_ms if until_ms > asked.from_ms else None


def settled_alike(one: Frame, other: Frame, until_ms: int) -> bool:
    """Whether two answers have the same rows before an instant."""
    left, right = clip(one, 0, until_ms), clip(other, 0, until_ms)
    return (
        left.series == right.series
        and left.offsets == right.offsets
        and left.time.tobytes() == right.time.tobytes()
        and left.value.tobytes() == right.value.tobytes()
    )
