"""The policies around a source, and the one place where they are stacked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.model import Clock, Fetch
from app.policies.cache import Cached
from app.policies.limit import Limited
from app.policies.observe import Observed
from app.policies.retry import Retried
from app.policies.timeout import Deadline
from app.telemetry import Telemetry

__all__ = ["Policy", "guard"]


class Policy(BaseModel):
    """The numbers of one source's policies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt_timeout_s: float = Field(4.2, gt=0, le=60)
    total_timeout_s: float = Field(4.5, gt=0, le=60)
    attempts: int = Field(2, ge=1, le=3, description="askings in all for one answer; only where the failure allows another")
    concurrent: int = Field(5, ge=1, le=100, description="askings at the same time; the size of the source's pool")
    waiting: int = Field(40, ge=0, le=10_000, description="askings that may wait for a place; more are refused at once")
    fresh_s: float = Field(10.0, ge=0, le=3600, description="how long an answer may be served again; 0 asks every time")
    cache_bytes: int = Field(64 << 20, ge=0, description="bytes of answers kept")
    cache_entries: int = Field(2000, ge=0)

    @model_validator(mode="after")
    def _ladder(self) -> Policy:
        if self.attempt_timeout_s > self.total_timeout_s:
            raise ValueError("attempt_timeout_s must not be above total_timeout_s")
        return self


Sleep = Callable[[float], Awaitable[None]]


def guard(name: str, fetch: Fetch, policy: Policy, telemetry: Telemetry, clock: Clock, sleep: Sleep) -> Fetch:
    """The source's fetch with its policies around it; the order is the design's (a test pins it)."""
    fetch = Deadline(name, fetch, policy.attempt_timeout_s, "attempt")  # innermost: bounds what one connection is held for
    fetch = Limited(name, fetch, policy.concurrent, policy.waiting)  # inside the retry: a back-off holds no place
    fetch = Retried(fetch, policy.attempts, sleep)
    fetch = Deadline(name, fetch, policy.total_timeout_s, "total")  # waiting and retrying included
    fetch = Cached(name, fetch, policy, telemetry, clock)  # outside everything that fails
    return Observed(name, fetch, telemetry)  # outermost: counts what the caller really got
