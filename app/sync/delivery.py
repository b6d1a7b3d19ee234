"""Delivers calls to the backend: each server's calls in order, with retries."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.cooperative import Background
from app.errors import SourceUnavailable
from app.jitter import JITTER
from app.model import Clock
from app.sync.call import SyncCall, signed_request
from app.sync.http import BackendClient
from app.sync.settings import SyncSettings
from app.sync.spool import QueuedCall, Spool

_log = logging.getLogger(__package__)

_NAME = "sync"
#: Retrying does not help with these.
_HOPELESS = frozenset({400, 401, 403, 404, 405, 410, 413, 422})
#: After a day of attempts 2**n would not fit into a float.
_MOST_DOUBLINGS = 30

#: Counts one outcome of a call: (event, "delivered" | "failed_attempt" | "dropped").
Count = Callable[[str, str], None]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The outcome of one attempt. `status` is 0 without a response."""

    status: int
    words: str
    retry_after_s: float = 0.0

    @property
    def delivered(self) -> bool:
        return 200 <= self.status < 300


class BackendSync:
    """Queues calls and delivers each server's calls in order, until the backend accepts them.

    It belongs to one event loop: call `tell` there. Calls before `start` or after `stop` are queued only.
    """

    def __init__(self, settings: SyncSettings, count: Count, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._settings = settings
        self._count = count
        self._clock = clock
        self._sleep = sleep
        self._spool = Spool(settings.spool)
        self._waiting: dict[str, deque[QueuedCall]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._background = Background()
        self._http: BackendClient | None = None

    @property
    def on(self) -> bool:
        """Whether a backend is configured."""
        return self._settings.url is not None

    @property
    def pending(self) -> int:
        """The number of undelivered calls."""
        return sum(map(len, self._waiting.values()))

    async def start(self) -> None:
        """Read the spool and begin to deliver."""
        if not self.on or self._http is not None:
            return
        self._http = self._make_client()
        known = self._queued_names()
        for queued in reversed([queued for queued in self._spool.read_calls() if queued.file_name not in known]):
            self._queue_of(queued.call.server).appendleft(queued)
        for server in self._waiting:
            self._wake_worker(server)

    async def stop(self) -> None:
        """Stop delivering. Undelivered calls stay in the spool."""
        await self._background.close()
        self._workers.clear()
        if self._http is not None:
            await self._http.close()
            self._http = None
        if self.pending and self._settings.spool is None:
            _log.warning("sync: %d calls are not delivered, and there is no spool to keep them", self.pending)

    def tell(self, call: SyncCall) -> None:
        """Queue a call and return at once. Never raises. Does nothing if sync is off or the same call is queued already."""
        if not self.on:
            return
        try:
            self._enqueue(QueuedCall(call=call, queued_ms=self._clock()))
        except Exception:  # a fault here must not end the caller's watch of Redis
            _log.exception("sync: %s of %s could not be queued", call.event, call.server)

    async def deliver_now(self, call: SyncCall) -> int:
        """Make one attempt, for the command line. Returns the 2xx status, or raises SourceUnavailable with advice."""
        if not self.on:
            raise SourceUnavailable(_NAME, "there is no backend to tell: set sync.url and sync.secret")
        http = self._make_client()
        try:
            answer = await self._attempt_call(http, call)
        finally:
            await http.close()
        self._count(call.event, "delivered" if answer.delivered else "failed_attempt")
        if not answer.delivered:
            raise SourceUnavailable(_NAME, f"{answer.words}; {_advice_for(answer.status)}")
        return answer.status

    def _enqueue(self, queued: QueuedCall) -> None:
        if queued.file_name in self._queued_names():
            return
        self._spool.keep(queued)
        self._queue_of(queued.call.server).append(queued)
        _log.info("sync: %s of %s queued (%s)", queued.call.event, queued.call.server, queued.call.idempotency_key)
        self._wake_worker(queued.call.server)

    def _queued_names(self) -> set[str]:
        return {queued.file_name for queue in self._waiting.values() for queued in queue}

    def _queue_of(self, server: str) -> deque[QueuedCall]:
        return self._waiting.setdefault(server, deque())

    def _wake_worker(self, server: str) -> None:
        worker = self._workers.get(server)
        if self._http is not None and (worker is None or worker.done()):
            self._workers[server] = self._background.start(
                self._deliver_all(self._http, self._queue_of(server)), f"sync {server}"
            )

    async def _deliver_all(self, http: BackendClient, queue: deque[QueuedCall]) -> None:
        while queue:
            await self._deliver_call(http, queue[0])
            self._spool.forget(queue.popleft())

    async def _deliver_call(self, http: BackendClient, queued: QueuedCall) -> None:
        for attempt in itertools.count():
            answer = await self._attempt_call(http, queued.call)
            if self._is_finished(queued, answer):
                return
            if attempt == 0:
                _log.warning("sync: %s of %s not delivered yet: %s", queued.call.event, queued.call.server, answer.words)
            await self._sleep(self._wait_s(attempt, answer))

    def _is_finished(self, queued: QueuedCall, answer: _Attempt) -> bool:
        call, old_s = queued.call, (self._clock() - queued.queued_ms) / 1000
        if answer.delivered:
            _log.info("sync: %s of %s delivered (%s)", call.event, call.server, call.idempotency_key)
            self._count(call.event, "delivered")
            return True
        self._count(call.event, "failed_attempt")
        if answer.status in _HOPELESS:
            _log.error("sync: %s of %s dropped: %s; %s", call.event, call.server, answer.words, _advice_for(answer.status))
        elif old_s >= self._settings.give_up_s:
            _log.error("sync: %s of %s given up after %.0fs: %s", call.event, call.server, old_s, answer.words)
        else:
            return False
        self._count(call.event, "dropped")
        return True

    def _wait_s(self, attempt: int, answer: _Attempt) -> float:
        """Full jitter, see `policies.attempts`; at least the backend's Retry-After."""
        most_s = self._settings.most_retry_s
        bound_s = min(most_s, self._settings.first_retry_s * 2 ** min(attempt, _MOST_DOUBLINGS))
        return max(JITTER.uniform(0, bound_s), min(answer.retry_after_s, most_s))

    def _make_client(self) -> BackendClient:
        return BackendClient(self._settings.url or "", self._settings.timeout_s)

    async def _attempt_call(self, http: BackendClient, call: SyncCall) -> _Attempt:
        secret = self._settings.secret.get_secret_value() if self._settings.secret else ""
        status, words, retry_after = await http.post(*signed_request(call, secret, self._clock()))
        return _Attempt(status, words, _seconds_of(retry_after))


def _seconds_of(retry_after: str) -> float:
    """The header's seconds; 0 for a date, where the normal back-off is good enough."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0


def _advice_for(status: int) -> str:
    """What a person should check when the backend did not accept a call."""
    if status == 0:
        return "is the backend running, and does sync.url lead to it?"
    if status in {401, 403}:
        return "is sync.secret the backend's, and are both clocks right?"
    if status in {404, 405, 410} or 300 <= status < 400:
        return "does sync.url name the backend's endpoint for these calls?"
    if status in _HOPELESS:
        return "do the backend and the bridge agree on the call's fields? See the backend's log"
    return "try again later; see the backend's log"
