"""Delivering: each server's calls in their order, until the backend takes them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import SourceUnavailable
from app.model import Clock
from app.sync.call import SyncCall, signed
from app.sync.settings import SyncSettings
from app.sync.spool import Entry, Spool

if TYPE_CHECKING:
    from app.sync.http import Backend

_log = logging.getLogger(__package__)

_NAME = "sync"
#: what the backend will never take, however often it is asked
_HOPELESS = frozenset({400, 401, 403, 404, 405, 410, 413, 422})
#: 2**n grows beyond any float in a day of attempts
_MOST_DOUBLINGS = 30

#: Counts one outcome of a call: (event, "delivered" | "failed_attempt" | "dropped").
Count = Callable[[str, str], None]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one attempt came to. `status` 0: nobody answered."""

    status: int
    words: str
    retry_after_s: float = 0.0

    @property
    def delivered(self) -> bool:
        return 200 <= self.status < 300


class BackendSync:
    """Queues calls and delivers them to the backend, each server's in order, until the backend takes them.

    Lives on one event loop: `tell` must be called there. A call that is told before `start` or after `stop` waits.
    """

    def __init__(self, settings: SyncSettings, count: Count, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._settings = settings
        self._count = count
        self._clock = clock
        self._sleep = sleep
        self._spool = Spool(settings.spool)
        self._waiting: dict[str, deque[Entry]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._http: Backend | None = None

    @property
    def on(self) -> bool:
        """Whether there is a backend to tell."""
        return self._settings.url is not None

    @property
    def pending(self) -> int:
        """Calls that are not delivered yet."""
        return sum(map(len, self._waiting.values()))

    async def start(self) -> None:
        """Pick up what the spool holds and begin to deliver."""
        if not self.on or self._http is not None:
            return
        self._http = self._client()
        queued = self._names()
        for entry in reversed([entry for entry in self._spool.kept() if entry.name not in queued]):
            self._queue(entry.call.server).appendleft(entry)
        for server in self._waiting:
            self._wake(server)

    async def stop(self) -> None:
        """Stop delivering; what is not delivered stays in the spool."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._workers.clear()
        if self._http is not None:
            await self._http.close()
            self._http = None
        if self.pending and self._settings.spool is None:
            _log.warning("sync: %d calls are not delivered, and there is no spool to keep them", self.pending)

    def tell(self, call: SyncCall) -> None:
        """Queue a call and return at once. Never raises; does nothing when off or when this very call waits already."""
        if not self.on:
            return
        try:
            self._take(Entry(call=call, queued_ms=self._clock()))
        except Exception:  # whoever watches Redis must not die of the telling
            _log.exception("sync: %s of %s could not be queued", call.event, call.server)

    async def deliver_now(self, call: SyncCall) -> int:
        """One attempt, for the command line: the backend's 2xx status. Raises SourceUnavailable that says what to do."""
        if not self.on:
            raise SourceUnavailable(_NAME, "there is no backend to tell: set sync.url and sync.secret")
        http = self._client()
        try:
            answer = await self._attempt(http, call)
        finally:
            await http.close()
        self._count(call.event, "delivered" if answer.delivered else "failed_attempt")
        if not answer.delivered:
            raise SourceUnavailable(_NAME, f"{answer.words}; {_advice(answer.status)}")
        return answer.status

    def _take(self, entry: Entry) -> None:
        if entry.name in self._names():
            return
        self._spool.keep(entry)
        self._queue(entry.call.server).append(entry)
        _log.info("sync: %s of %s queued (%s)", entry.call.event, entry.call.server, entry.call.idempotency_key)
        self._wake(entry.call.server)

    def _names(self) -> set[str]:
        return {entry.name for queue in self._waiting.values() for entry in queue}

    def _queue(self, server: str) -> deque[Entry]:
        return self._waiting.setdefault(server, deque())

    def _wake(self, server: str) -> None:
        worker = self._workers.get(server)
        if self._http is not None and (worker is None or worker.done()):
            self._workers[server] = asyncio.create_task(self._work(self._http, self._queue(server)), name=f"sync {server}")

    async def _work(self, http: Backend, queue: deque[Entry]) -> None:
        while queue:
            await self._deliver(http, queue[0])
            self._spool.forget(queue.popleft())

    async def _deliver(self, http: Backend, entry: Entry) -> None:
        for attempt in itertools.count():
            answer = await self._attempt(http, entry.call)
            if self._settled(entry, answer):
                return
            if attempt == 0:
                _log.warning("sync: %s of %s not delivered yet: %s", entry.call.event, entry.call.server, answer.words)
            await self._sleep(self._wait_s(attempt, answer))

    def _settled(self, entry: Entry, answer: _Answer) -> bool:
        call, old_s = entry.call, (self._clock() - entry.queued_ms) / 1000
        if answer.delivered:
            _log.info("sync: %s of %s delivered (%s)", call.event, call.server, call.idempotency_key)
            self._count(call.event, "delivered")
            return True
        self._count(call.event, "failed_attempt")
        if answer.status in _HOPELESS:
            _log.error("sync: %s of %s dropped: %s; %s", call.event, call.server, answer.words, _advice(answer.status))
        elif old_s >= self._settings.give_up_s:
            _log.error("sync: %s of %s given up after %.0fs: %s", call.event, call.server, old_s, answer.words)
        else:
            return False
        self._count(call.event, "dropped")
        return True

    def _wait_s(self, attempt: int, answer: _Answer) -> float:
        """Full jitter, see `policies.retry`; the backend's own wish where that is longer."""
        most_s = self._settings.most_retry_s
        bound_s = min(most_s, self._settings.first_retry_s * 2 ** min(attempt, _MOST_DOUBLINGS))
        return max(random.uniform(0, bound_s), min(answer.retry_after_s, most_s))  # noqa: S311  jitter is no secret

    def _client(self) -> Backend:
        from app.sync.http import Backend  # it takes time to import, and most bridges have no backend to tell

        return Backend(self._settings.url or "", self._settings.timeout_s)

    async def _attempt(self, http: Backend, call: SyncCall) -> _Answer:
        secret = self._settings.secret.get_secret_value() if self._settings.secret else ""
        status, words, retry_after = await http.post(*signed(call, secret, self._clock()))
        return _Answer(status, words, _seconds(retry_after))


def _seconds(retry_after: str) -> float:
    """The header's seconds; 0 for a date, which the back-off is good enough for."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0


def _advice(status: int) -> str:
    """What a person does about a call that the backend did not take."""
    if status == 0:
        return "is the backend running, and does sync.url lead to it?"
    if status in {401, 403}:
        return "is sync.secret the backend's, and are both clocks right?"
    if status in {404, 405, 410} or 300 <= status < 400:
        return "does sync.url name the backend's endpoint for these calls?"
    if status in _HOPELESS:
        return "do the backend and the bridge agree on the call's fields? See the backend's log"
    return "try again later; see the backend's log"
