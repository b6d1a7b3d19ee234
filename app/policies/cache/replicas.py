"""Answers shared between replicas: one of them fetches, the others take its answer. A broken shared cache costs nothing."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from typing import Protocol

from app.errors import SourceError
from app.jitter import JITTER
from app.model import Clock, Fetch, Frame, Statement
from app.policies.cache.answers import cache_ages
from app.policies.cache.packing import VERSION, pack, question_bytes, unpack
from app.policies.checked import misfit
from app.policies.settings import Policy
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)

_POLL_S = (0.01, 0.03)
#: how far the clocks of replicas may be apart
_CLOCKS_APART_MS = 1000


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the shared cache has: an answer's bytes, and the fencing token of a lease (0: another replica holds it)."""

    packed: bytes | None
    token: int


class SharedCache(Protocol):
    """A cache that all replicas reach. No method raises; a broken one is not `usable`."""

    @property
    def usable(self) -> bool:
        """False while it does not answer."""

    async def find(self, name: str, fresh_after_ms: int, lease_ms: int) -> Lookup:
        """The answer of that name. One that was asked before that instant comes with a lease on a new fetch, if it is free."""

    async def put(self, name: str, token: int, packed: bytes, asked_ms: int, keep_ms: int) -> None:
        """Keep an answer and end the lease; ignored when the answer of a later lease is there already."""

    async def give_up(self, name: str, token: int) -> None:
        """End a lease without an answer."""


class Shared:
    """Takes a fresh answer from the shared cache; else fetches under a lease and puts the answer there; else waits for whichever
    replica holds the lease.

    `fingerprint` tells differently configured sources apart. An entry is checked like a source's own answer; one that is damaged
    or does not fit the question is a miss and one line in the log. Ignore an entry whose stored question differs from ours, or
    whose `asked_ms` lies in our future: the writer's clock is ahead, so its age is unknown.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        numbers: Policy,
        shared_cache: SharedCache,
        fingerprint: str,
        telemetry: Telemetry,
        clock: Clock,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._numbers = numbers
        self._shared_cache = shared_cache
        self._fingerprint = fingerprint
        self._telemetry = telemetry
        self._clock = clock
        #: the entry that was logged last
        self._logged = ""

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        may_share = self._shared_cache.usable and cache_ages(statement, self._numbers).fresh_s > 0
        asked = _bytes_to_share(statement) if may_share else None
        return await self._fetch(statement) if asked is None else await self._take_or_fetch(statement, asked)

    async def _take_or_fetch(self, statement: Statement, asked: bytes) -> Frame:
        name = hashlib.sha256(f"{VERSION} {self._fingerprint} ".encode() + asked).hexdigest()
        older: Frame | None = None
        ends_ms = self._clock() + round(self._numbers.total_timeout_s * 1000)
        while self._shared_cache.usable:
            found = await self._shared_cache.find(
                name, self._fresh_after_ms(statement), round(self._numbers.total_timeout_s * 1000)
            )
            answer = self._read_answer(found, asked, name)
            if found.packed is not None and answer is None and not found.token:
                break  # fresh, but not readable: waiting would not change that
            older = answer or older
            if older is not None and older.provenance.asked_ms > self._fresh_after_ms(statement):
                self._telemetry.cache_hits.labels(self._source, "replica").inc()
                return older
            if found.token:
                return await self._fetch_and_share(statement, name, found.token, older)
            if self._clock() >= ends_ms:
                break
            await asyncio.sleep(JITTER.uniform(*_POLL_S))
        return await self._fetch(statement)

    def _fresh_after_ms(self, statement: Statement) -> int:
        return self._clock() - round(cache_ages(statement, self._numbers).fresh_s * 1000)

    def _read_answer(self, found: Lookup, asked: bytes, name: str) -> Frame | None:
        if found.packed is None:
            return None
        try:
            statement, frame = unpack(found.packed)
        except ValueError as damage:
            self._log_refusal(name, str(damage))
            return None
        asked_ms = frame.provenance.asked_ms
        if asked_ms > self._clock() + _CLOCKS_APART_MS or question_bytes(statement) != asked:
            return None
        problem = misfit(statement, frame)
        if problem is not None:
            self._log_refusal(name, problem)
            return None
        return frame.with_provenance(asked_ms=min(asked_ms, self._clock()))

    def _log_refusal(self, name: str, problem: str) -> None:
        """Log a bad entry once: it is read over and over until it is replaced."""
        if name != self._logged:
            self._logged = name
            _log.warning("%s: what replicas share of an answer is not believed: %s", self._source, problem)

    async def _fetch_and_share(self, statement: Statement, name: str, token: int, older: Frame | None) -> Frame:
        asked_ms, ages = self._clock(), cache_ages(statement, self._numbers)
        try:
            frame = await self._fetch(statement)
        except SourceError as failure:
            await self._shared_cache.give_up(name, token)
            if older is None or not failure.allows_stale:
                raise
            if asked_ms - older.provenance.asked_ms > ages.stale_s * 1000:
                raise
            return older.with_provenance(stale=failure.reason)
        except BaseException:
            # Cancelled or crashed: free the lease for the next replica, without waiting for that.
            self._give_up_later(name, token)
            raise
        if frame.partial or frame.older_copy is not None:
            await self._shared_cache.give_up(name, token)
            return frame
        try:
            packed = pack(statement, frame.with_provenance(asked_ms=asked_ms))
        except UnicodeEncodeError:
            # A text that is not valid Unicode cannot be packed; the answer itself is good.
            await self._shared_cache.give_up(name, token)
            return frame
        await self._shared_cache.put(name, token, packed, asked_ms, round(max(ages.stale_s, ages.fresh_s) * 1000))
        return frame

    def _give_up_later(self, name: str, token: int) -> None:
        task = asyncio.ensure_future(self._shared_cache.give_up(name, token))
        _LEAVING.add(task)
        task.add_done_callback(_LEAVING.discard)


def _bytes_to_share(statement: Statement) -> bytes | None:
    """The question as bytes; None where it holds half a surrogate pair, which cannot be encoded."""
    try:
        return question_bytes(statement)
    except UnicodeEncodeError:
        return None


#: Tasks that end leases, kept here so that none is garbage-collected before its end.
_LEAVING: set[asyncio.Task[None]] = set()
