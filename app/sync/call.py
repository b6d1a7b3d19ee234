"""One call to the backend, and its signature."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import asdict, dataclass
from typing import Literal

import orjson


@dataclass(frozen=True, slots=True)
class SyncCall:
    """What happened to a Redis server, and the window that the backend may have to refill.

    `server` is host:port, or what `RedisConnect.server` says of Sentinels and a cluster; `sources` are the bridge's names for
    it. The window is in epoch milliseconds; `to_ms` is None while the outage lasts. None in the other fields means not known.
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
        """32 hex digits. Every replica of the bridge that sees the same occurrence makes the same ones."""
        return hashlib.sha256(orjson.dumps([self.event, self.server, *self._identifying_facts])).hexdigest()[:32]

    @property
    def _identifying_facts(self) -> tuple[str | int | None, ...]:
        if self.event == "manual":
            return (self.from_ms, self.to_ms)
        restarted = None not in (self.run_id_before, self.run_id_after) and self.run_id_before != self.run_id_after
        # Replicas notice an outage at slightly different instants, but see the same run ids.
        return (self.run_id_before, self.run_id_after if restarted else self.from_ms // 60_000)


def signature(secret: str, timestamp_s: int, body: bytes) -> str:
    """The `Bridge-Signature` of a body sent at `timestamp_s` (epoch seconds), by Stripe's scheme: it covers the time too."""
    return "v1=" + hmac.new(secret.encode(), f"{timestamp_s}.".encode() + body, hashlib.sha256).hexdigest()


def verify(secret: str, header_signature: str, timestamp_s: int, body: bytes, now_s: int, tolerance_s: int = 300) -> bool:
    """Whether a receiver may trust a call: it is signed with the secret, and its age is within the tolerance (seconds)."""
    genuine = hmac.compare_digest(signature(secret, timestamp_s, body).encode(), header_signature.encode("utf-8", "replace"))
    return genuine and abs(now_s - timestamp_s) <= tolerance_s


def signed_request(call: SyncCall, secret: str, sent_ms: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of one attempt. Each attempt needs new ones, since receivers refuse old timestamps."""
    key = call.idempotency_key
    body = orjson.dumps({**asdict(call), "idempotency_key": key, "sent_ms": sent_ms})
    headers = {
        "Content-Type": "application/json",
        "Bridge-Signature": signature(secret, sent_ms // 1000, body),
        "Bridge-Timestamp": str(sent_ms // 1000),
        "Idempotency-Key": key,
    }
    return body, headers
