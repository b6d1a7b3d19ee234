"""Asking only for what is new: the settled head of a kept answer is taken over, and the source is asked for the rest.

A bucket is *settled* once it was asked for `volatile_s` (at least two buckets' length) after its end: late rows and skewed clocks
have had that long. The rest, the volatile tail, is asked for again each time. What is taken over was itself asked for some time
ago; `reuse_to_ms` of the answer ends that, so that rows which come later still are in the answer after that at the latest.

Only reads whose buckets stand alone (`Read.sliceable`) are put together so: the same buckets come back whatever else is asked.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from app.errors import SourceError
from app.model import Clock, Fetch, Frame, Statement
from app.policies.store import Answers, Kept
from app.splice import cut, splice
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)

#: Of the answers that were put together, how many are compared with what the source says of the whole.
_COMPARED = 1 / 1000


class DeltaNumbers(Protocol):
    """What asking for the rest needs of the policy's numbers."""

    @property
    def volatile_s(self) -> float:
        """How long after its end a bucket may still change."""

    @property
    def settled_s(self) -> float:
        """How long settled buckets are taken over; 0 never."""


class Delta:
    """Asks for what the kept answers of the same shape do not hold.

    Now and then the whole is asked for as well, after everybody else, and compared; where they differ, all that is kept of that
    question goes, and a metric and a log line tell.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        answers: Answers,
        numbers: DeltaNumbers,
        telemetry: Telemetry,
        clock: Clock,
        chance: Callable[[], float] = random.random,
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
        if self._numbers.settled_s <= 0 or not _sliceable(statement):
            return await self._fetch(statement)
        now_ms = self._clock()
        head = self._head(statement, now_ms) if may_be_pieced(statement) else None
        joined = head.joined(await self._fetch(head.rest(statement))) if head else None
        if head is None or joined is None:
            frame = await self._fetch(statement)
            # Not all at once: what was first asked for together would be asked for anew together.
            reuse_ms = round(self._numbers.settled_s * 1000 * (1 - 0.1 * self._chance()))
            return replace(frame, reuse_to_ms=now_ms + reuse_ms)
        self._telemetry.spared.labels(self._source).inc()
        if self._chance() < _COMPARED:
            self._later(self._compare(statement, joined, head.until_ms))
        return joined

    async def close(self) -> None:
        """End the comparisons."""
        comparing = set(self._comparing)
        for task in comparing:
            task.cancel()
        if comparing:
            await asyncio.wait(comparing)

    def _head(self, statement: Statement, now_ms: int) -> Head | None:
        usable = [
            (until_ms, kept)
            for kept in self._answers.shaped(statement)
            if (until_ms := taken_over_to_ms(kept, statement, self._numbers.volatile_s, now_ms)) is not None
        ]
        if not usable:
            return None
        until_ms, kept = max(usable, key=lambda one: one[0])
        return Head(cut(kept.frame, statement.range.from_ms, until_ms), until_ms)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._comparing.add(task)
        task.add_done_callback(self._comparing.discard)

    async def _compare(self, statement: Statement, joined: Frame, until_ms: int) -> None:
        with suppress(SourceError):  # nothing to compare with
            whole = await self._fetch(replace(statement, lane="background", accept="fresh"))
            alike = settled_alike(joined, whole, until_ms)
            self._telemetry.compared.labels(self._source, "equal" if alike else "different").inc()
            if not alike:
                self._answers.drop_shape(statement)
                _log.warning("%s: %s: settled buckets have changed since they were asked for", self._source, statement.metric)


@dataclass(frozen=True, slots=True)
class Head:
    """What a kept answer spares: its rows from the asked range's start up to `until_ms`."""

    frame: Frame
    until_ms: int

    def rest(self, statement: Statement) -> Statement:
        """The statement for what is not taken over."""
        params = tuple((name, self.until_ms if name == "from_ms" else value) for name, value in statement.params)
        return replace(statement, params=params, range=replace(statement.range, from_ms=self.until_ms))

    def joined(self, rest: Frame) -> Frame | None:
        """The whole answer, as old as its rest; None where the rest reaches less far than what was taken over."""
        if rest.text or (rest.covers_to_ms is not None and rest.covers_to_ms < self.until_ms):
            return None
        whole = splice(self.frame, rest, self.until_ms)
        return replace(
            rest,
            time=whole.time,
            value=whole.value,
            series=whole.series,
            offsets=whole.offsets,
            reuse_to_ms=self.frame.reuse_to_ms,
            pieced=True,
        )


def may_be_pieced(statement: Statement) -> bool:
    """Whether an answer to this may be put together. An alert's is not: what came very late must be in it."""
    return statement.lane != "alert" and _sliceable(statement)


def _sliceable(statement: Statement) -> bool:
    return statement.read is not None and statement.read.sliceable


def taken_over_to_ms(kept: Kept, statement: Statement, volatile_s: float, now_ms: int) -> int | None:
    """Up to when (epoch ms) an answer of the same shape may be taken over; None where that is nothing."""
    frame, asked, had = kept.frame, statement.range, kept.range
    if frame.notices or frame.text or now_ms >= frame.reuse_to_ms or had.from_ms > asked.from_ms:
        return None
    if (asked.from_ms - had.from_ms) % asked.step_ms:
        return None
    known_ms = frame.asked_ms if frame.covers_to_ms is None else min(frame.asked_ms, frame.covers_to_ms)
    settled_ms = known_ms - max(2 * asked.step_ms, round(volatile_s * 1000))
    # At least one bucket is asked for: an answer is as old as its newest part.
    newest_ms = min(settled_ms, had.to_ms, asked.to_ms - asked.step_ms)
    until_ms = asked.from_ms + (newest_ms - asked.from_ms) // asked.step_ms * asked.step_ms
    return until_ms if until_ms > asked.from_ms else None


def settled_alike(one: Frame, other: Frame, until_ms: int) -> bool:
    """Whether two answers have the same rows before an instant."""
    left, right = cut(one, 0, until_ms), cut(other, 0, until_ms)
    return (
        left.series == right.series
        and left.offsets == right.offsets
        and left.time.tobytes() == right.time.tobytes()
        and left.value.tobytes() == right.value.tobytes()
    )
