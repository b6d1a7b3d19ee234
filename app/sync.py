"""Telling the backend over HTTP that a Redis server failed or came back, so that it fills Redis again.

Signed, at least once, in order for each server; what is not delivered yet survives a restart in the spool.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import logging
import os
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from app.errors import SourceUnavailable
from app.model import Clock
from app.sources.base import Strict, first_line

if TYPE_CHECKING:
    from app.sync_http import Backend

_log = logging.getLogger(__name__)

_NAME = "sync"
_LEAST_SECRET = 16
#: what the backend will never take, however often it is asked
_HOPELESS = frozenset({400, 401, 403, 404, 405, 410, 413, 422})
#: 2**n grows beyond any float in a day of attempts
_MOST_DOUBLINGS = 30

#: Counts one outcome of a call: (event, "delivered" | "failed_attempt" | "dropped").
Count = Callable[[str, str], None]
Sleep = Callable[[float], Awaitable[None]]


class SyncSettings(Strict):
    """Where the backend is told, how it knows that it was us, and how long we try. Off without a `url`."""

    # The text of a refusal would carry the secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: str | None = None
    secret: SecretStr | None = Field(None, validate_default=True, description="signs the calls; shared with the backend")
    timeout_s: float = Field(5.0, gt=0, le=60, description="for one attempt, the connecting included")
    first_retry_s: float = Field(1.0, gt=0, description="bound of the first wait; doubles at each attempt")
    most_retry_s: float = Field(60.0, gt=0, description="bound of every wait")
    give_up_s: float = Field(86_400, gt=0, description="age at which a call that nobody took is dropped")
    spool: Path | None = Field(None, description="a folder, one bridge's own; undelivered calls survive a restart there")

    @field_validator("url")
    @classmethod
    def _http_only(cls, url: str | None) -> str | None:
        if url is not None and not _is_http(url):
            raise ValueError("must be http:// or https:// and a host, for example https://backend:8443/redis-events")
        return url

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None and info.data.get("url") is not None:
            raise ValueError(f"is required when url is set: at least {_LEAST_SECRET} characters, shared with the backend")
        if secret is not None and len(secret.get_secret_value()) < _LEAST_SECRET:
            raise ValueError(f"must have at least {_LEAST_SECRET} characters")
        return secret


def _is_http(url: str) -> bool:
    try:
        parsed = urlsplit(url)
        return parsed.scheme in {"http", "https"} and bool(parsed.hostname) and parsed.port != 0
    except ValueError:  # of a port, or of an address in brackets, that is none
        return False


@dataclass(frozen=True, slots=True)
class SyncCall:
    """One thing the backend is told: what happened to which Redis server, and the window it may have to fill again.

    `server` is host:port, `sources` the bridge's names for it. The window is epoch milliseconds; `to_ms` None while the outage
    lasts. None in the other fields means not known.
    """

    event: Literal["redis.down", "redis.up", "manual"]
    server: str
    sources: tuple[str, ...]
    from_ms: int
    to_ms: int | None
    memory_lost: bool | None
    run_id_before: str | None
    run_id_after: str | None
    keys_before: int | None
    keys_after: int | None

    @property
    def idempotency_key(self) -> str:
        """32 hex digits, the same from every replica of the bridge that sees the same occurrence."""
        return hashlib.sha256(orjson.dumps([self.event, self.server, *self._occurrence])).hexdigest()[:32]

    @property
    def _occurrence(self) -> tuple[str | int | None, ...]:
        if self.event == "manual":
            return (self.from_ms, self.to_ms)
        restarted = None not in (self.run_id_before, self.run_id_after) and self.run_id_before != self.run_id_after
        # Replicas notice an outage at slightly different instants, but agree on the run ids.
        return (self.run_id_before, self.run_id_after if restarted else self.from_ms // 60_000)


def signature(secret: str, timestamp_s: int, body: bytes) -> str:
    """The `Bridge-Signature` of a body sent at `timestamp_s` (epoch seconds): Stripe's scheme, which binds the time too."""
    return "v1=" + hmac.new(secret.encode(), f"{timestamp_s}.".encode() + body, hashlib.sha256).hexdigest()


def verify(secret: str, header_signature: str, timestamp_s: int, body: bytes, now_s: int, tolerance_s: int = 300) -> bool:
    """Whether a receiver may trust a call: signed with the secret, and not older (or newer) than the tolerance, in seconds."""
    genuine = hmac.compare_digest(signature(secret, timestamp_s, body).encode(), header_signature.encode("utf-8", "replace"))
    return genuine and abs(now_s - timestamp_s) <= tolerance_s


class _Entry(Strict):
    """A call that waits, as the spool keeps it."""

    call: SyncCall
    queued_ms: int

    @property
    def name(self) -> str:
        return f"{self.call.from_ms}-{self.call.event}-{self.call.idempotency_key}.json"

    @property
    def turn(self) -> tuple[int, int, str]:
        # "redis.down" sorts before the "redis.up" that ends the same outage.
        return self.queued_ms, self.call.from_ms, self.call.event


class _Spool:
    """One file for each call that waits. A disk that fails costs the survival of a restart, not the delivery."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def keep(self, entry: _Entry) -> None:
        if self._folder is None:
            return
        unfinished = self._folder / f"{entry.name}.{os.getpid()}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(entry.model_dump_json(), encoding="utf-8")
            os.replace(unfinished, self._folder / entry.name)
        except OSError as problem:
            _log.error("sync: %s is not in the spool and would not survive a restart: %s", entry.name, first_line(problem))

    def forget(self, entry: _Entry) -> None:
        if self._folder is None:
            return
        try:
            (self._folder / entry.name).unlink(missing_ok=True)
        except OSError as problem:
            _log.error("sync: %s stays in the spool and will be sent again: %s", entry.name, first_line(problem))

    def kept(self) -> list[_Entry]:
        """In the order in which they were queued."""
        if self._folder is None:
            return []
        read = [self._read(file) for file in self._folder.glob("*.json")]
        return sorted((entry for entry in read if entry is not None), key=lambda entry: entry.turn)

    def _read(self, file: Path) -> _Entry | None:
        try:
            entry = _Entry.model_validate_json(file.read_bytes())
            if file.name != entry.name:  # else it would never be forgotten
                os.replace(file, file.with_name(entry.name))
            return entry
        except (OSError, ValueError) as problem:
            with suppress(OSError):
                os.replace(file, file.with_suffix(".bad"))
            _log.error("sync: the spool's %s is damaged and put aside as .bad (%s)", file.name, type(problem).__name__)
            return None


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
        self._spool = _Spool(settings.spool)
        self._waiting: dict[str, deque[_Entry]] = {}
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
            self._take(_Entry(call=call, queued_ms=self._clock()))
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

    def _take(self, entry: _Entry) -> None:
        if entry.name in self._names():
            return
        self._spool.keep(entry)
        self._queue(entry.call.server).append(entry)
        _log.info("sync: %s of %s queued (%s)", entry.call.event, entry.call.server, entry.call.idempotency_key)
        self._wake(entry.call.server)

    def _names(self) -> set[str]:
        return {entry.name for queue in self._waiting.values() for entry in queue}

    def _queue(self, server: str) -> deque[_Entry]:
        return self._waiting.setdefault(server, deque())

    def _wake(self, server: str) -> None:
        worker = self._workers.get(server)
        if self._http is not None and (worker is None or worker.done()):
            self._workers[server] = asyncio.create_task(self._work(self._http, self._queue(server)), name=f"sync {server}")

    async def _work(self, http: Backend, queue: deque[_Entry]) -> None:
        while queue:
            await self._deliver(http, queue[0])
            self._spool.forget(queue.popleft())

    async def _deliver(self, http: Backend, entry: _Entry) -> None:
        for attempt in itertools.count():
            answer = await self._attempt(http, entry.call)
            if self._settled(entry, answer):
                return
            if attempt == 0:
                _log.warning("sync: %s of %s not delivered yet: %s", entry.call.event, entry.call.server, answer.words)
            await self._sleep(self._wait_s(attempt, answer))

    def _settled(self, entry: _Entry, answer: _Answer) -> bool:
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
        from app.sync_http import Backend  # it takes time to import, and most bridges have no backend to tell

        return Backend(self._settings.url or "", self._settings.timeout_s)

    async def _attempt(self, http: Backend, call: SyncCall) -> _Answer:
        status, words, retry_after = await http.post(*self._request(call))
        return _Answer(status, words, _seconds(retry_after))

    def _request(self, call: SyncCall) -> tuple[bytes, dict[str, str]]:
        """Body and headers, made for each attempt: a receiver refuses an old timestamp. Only the idempotency key stays."""
        key, sent_ms = call.idempotency_key, self._clock()
        body = orjson.dumps({**asdict(call), "idempotency_key": key, "sent_ms": sent_ms})
        secret = self._settings.secret.get_secret_value() if self._settings.secret else ""
        headers = {
            "Content-Type": "application/json",
            "Bridge-Signature": signature(secret, sent_ms // 1000, body),
            "Bridge-Timestamp": str(sent_ms // 1000),
            "Idempotency-Key": key,
        }
        return body, headers


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
