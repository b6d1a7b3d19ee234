"""Answers shared between replicas: one of them asks, the others take what it got. A broken tier costs nothing."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass, replace
from typing import Protocol

import orjson

from app.errors import SourceError
from app.model import Clock, Fetch, Frame, Statement
from app.policies.packing import VERSION, pack, question, unpack
from app.telemetry import Telemetry

_POLL_S = (0.01, 0.03)
#: by as much the clocks of replicas may differ
_CLOCKS_APART_MS = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """What the shelf has: an answer's bytes, and the fencing token of a lease if it was granted (0: somebody else is asking)."""

    packed: bytes | None
    token: int


class Shelf(Protocol):
    """A store that all replicas reach. No method raises; when it is out of order it is simply not `usable`."""

    @property
    def usable(self) -> bool:
        """False while it does not answer."""

    async def find(self, name: str, fresh_after_ms: int, lease_ms: int) -> Found:
        """The answer of that name; unless it was asked after that instant, also a lease on asking anew, if nobody holds it."""

    async def put(self, name: str, token: int, packed: bytes, asked_ms: int, keep_ms: int) -> None:
        """Keep an answer and end the lease; ignored when a later lease's answer is there already."""

    async def give_up(self, name: str, token: int) -> None:
        """End a lease without an answer."""


class SharedNumbers(Protocol):
    """What is needed of the policy's numbers."""

    @property
    def fresh_s(self) -> float:
        """How long an answer may be served again."""

    @property
    def stale_s(self) -> float:
        """How long it may stand in."""

    @property
    def total_timeout_s(self) -> float:
        """How long an asking takes at most."""


class Shared:
    """Takes a fresh answer from the shelf; else asks under a lease and puts the answer there; else waits for who holds the lease.

    `fingerprint` tells differently configured sources apart. An answer whose question is not ours, letter by letter, is none, nor
    is one that was asked in our future: whose clock is ahead, of his answers we cannot tell how old they are.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        numbers: SharedNumbers,
        shelf: Shelf,
        fingerprint: str,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._numbers = numbers
        self._shelf = shelf
        self._fingerprint = fingerprint
        self._telemetry = telemetry
        self._clock = clock

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        if not self._shelf.usable or self._numbers.fresh_s <= 0:
            return await self._fetch(statement)
        asked = orjson.dumps(question(statement))
        name = hashlib.sha256(f"{VERSION} {self._fingerprint} ".encode() + asked).hexdigest()
        older: Frame | None = None
        ends_ms = self._clock() + round(self._numbers.total_timeout_s * 1000)
        while self._shelf.usable:
            found = await self._shelf.find(name, self._fresh_after_ms(), round(self._numbers.total_timeout_s * 1000))
            answer = self._answer(found, asked)
            if found.packed is not None and answer is None and not found.token:
                break  # fresh, and not ours to read: waiting would not change that
            older = answer or older
            if older is not None and older.asked_ms > self._fresh_after_ms():
                self._telemetry.cache_hits.labels(self._source, "replica").inc()
                return replace(older, fresh_to_ms=older.asked_ms + round(self._numbers.fresh_s * 1000))
            if found.token:
                return await self._ask(statement, name, found.token, older)
            if self._clock() >= ends_ms:
                break
            await asyncio.sleep(random.uniform(*_POLL_S))  # noqa: S311  jitter is no secret
        return await self._fetch(statement)

    def _fresh_after_ms(self) -> int:
        return self._clock() - round(self._numbers.fresh_s * 1000)

    def _answer(self, found: Found, asked: bytes) -> Frame | None:
        if found.packed is None:
            return None
        try:
            statement, frame = unpack(found.packed)
        except ValueError:
            return None
        if frame.asked_ms > self._clock() + _CLOCKS_APART_MS or orjson.dumps(question(statement)) != asked:
            return None
        return replace(frame, asked_ms=min(frame.asked_ms, self._clock()))

    async def _ask(self, statement: Statement, name: str, token: int, older: Frame | None) -> Frame:
        asked_ms = self._clock()
        try:
            frame = await self._fetch(statement)
        except SourceError as failure:
            await self._shelf.give_up(name, token)
            if older is None or not failure.allows_stale or asked_ms - older.asked_ms > self._numbers.stale_s * 1000:
                raise
            return replace(older, stale=failure.reason)
        except BaseException:
            # Left or crashed: the lease must not stand in the way of the next one, and nobody waits for this.
            self._shelf_later(name, token)
            raise
        if frame.partial:
            await self._shelf.give_up(name, token)
            return frame
        packed = pack(statement, replace(frame, asked_ms=asked_ms))
        await self._shelf.put(name, token, packed, asked_ms, round(max(self._numbers.stale_s, self._numbers.fresh_s) * 1000))
        return frame

    def _shelf_later(self, name: str, token: int) -> None:
        task = asyncio.ensure_future(self._shelf.give_up(name, token))
        _LEAVING.add(task)
        task.add_done_callback(_LEAVING.discard)


#: Tasks that end leases; kept here so that none is collected before it has ended.
_LEAVING: set[asyncio.Task[None]] = set()
