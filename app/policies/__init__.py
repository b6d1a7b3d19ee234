"""The policies around a source, and the one place where they are stacked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.model import Clock, Fetch
from app.policies.breaker import Breaker
from app.policies.cache import Cached, Reaches, unpublished
from app.policies.delta import Delta
from app.policies.limit import Limited, Places
from app.policies.observe import Observed
from app.policies.retry import Retried, RetryBudget
from app.policies.shared import Shared, Shelf
from app.policies.store import Answers
from app.policies.timeout import Deadline
from app.telemetry import Telemetry

__all__ = ["Common", "Guard", "Places", "Policy", "Reaches", "guard", "unpublished"]


class Policy(BaseModel):
    """The numbers of one source's policies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt_timeout_s: float = Field(4.2, gt=0, le=60)
    total_timeout_s: float = Field(4.5, gt=0, le=60)
    attempts: int = Field(2, ge=1, le=3, description="askings in all for one answer; only where the failure allows another")
    concurrent: int = Field(5, ge=1, le=100, description="askings at the same time; the size of the source's pool")
    waiting: int = Field(40, ge=0, le=10_000, description="askings that may wait for a place; more are refused at once")
    fresh_s: float = Field(10.0, ge=0, le=3600, description="how long an answer may be served again; 0 asks every time")
    patience_s: float = Field(1.0, ge=0, le=60, description="wait for a newer answer before a soft-stale one is served, marked")
    soft_s: float = Field(60.0, ge=0, le=3600, description="up to which age an answer is soft-stale")
    stale_s: float = Field(900.0, ge=0, le=86_400, description="up to which age an answer may stand in, marked; 0 never")
    volatile_s: float = Field(60.0, ge=0, le=86_400, description="how long after its end a bucket may still change")
    settled_s: float = Field(
        1200.0, ge=0, le=86_400, description="how long the buckets before that are taken over from an earlier answer; 0 never"
    )
    cache_bytes: int = Field(16 << 20, ge=0, description="bytes of answers kept")
    cache_entries: int = Field(2000, ge=0)
    failures: int = Field(3, ge=1, le=100, description="failures in a row after which the source is asked no more")
    look_s: float = Field(1.0, gt=0, le=600, description="how often a source is pinged while all is well, used or not")
    probe_s: float = Field(5.0, gt=0, le=600, description="how often a source that is asked no more is tried")
    denied_s: float = Field(60.0, gt=0, le=3600, description="the same where the credentials were refused")

    @model_validator(mode="after")
    def _ladder(self) -> Policy:
        if self.attempt_timeout_s > self.total_timeout_s:
            raise ValueError("attempt_timeout_s must not be above total_timeout_s")
        return self


Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Common:
    """What the policies of all sources share."""

    telemetry: Telemetry
    clock: Clock
    sleep: Sleep
    #: the places of all askings of the process
    everyone: Places
    #: where replicas share answers
    shelf: Shelf | None = None


@dataclass(frozen=True, slots=True)
class Guard:
    """A source with its policies around it: how to ask it, and the parts that the operators look at."""

    fetch: Fetch
    cache: Cached
    delta: Delta
    breaker: Breaker
    #: tells differently configured sources apart
    fingerprint: str

    async def close(self) -> None:
        """End what goes on with nobody waiting for it."""
        await self.cache.close()
        await self.delta.close()


def guard(
    name: str, fetch: Fetch, policy: Policy, common: Common, fingerprint: str = "", reaches_ms: Reaches = unpublished
) -> Guard:
    """The source's fetch with its policies around it; the order is the design's (a test pins it).

    `reaches_ms` tells up to when the data reach that the source publishes from time to time.
    """
    telemetry, clock = common.telemetry, common.clock
    stopped = telemetry.stopped.labels(name).inc
    fetch = Deadline(
        name, fetch, policy.attempt_timeout_s, "attempt", stopped
    )  # innermost: bounds what one connection is held for
    fetch = Limited(
        name, fetch, policy.concurrent, policy.waiting, common.everyone
    )  # inside the retry: a back-off holds no place
    fetch = Retried(fetch, policy.attempts, common.sleep, RetryBudget())
    fetch = Deadline(name, fetch, policy.total_timeout_s, "total")  # waiting and retrying included
    fetch = breaker = Breaker(name, fetch, policy, telemetry)  # outside the limit: a cancelled asking is no failure
    if common.shelf is not None:
        fetch = Shared(name, fetch, policy, common.shelf, fingerprint, telemetry, clock)  # what others got is no matter of ours
    answers = Answers(policy.cache_bytes, policy.cache_entries)
    fetch = delta = Delta(name, fetch, answers, policy, telemetry, clock)  # what is kept need not be asked for again
    cache = Cached(name, fetch, policy, telemetry, clock, reaches_ms=reaches_ms, answers=answers)  # outside everything that fails
    return Guard(
        Observed(name, cache, telemetry, clock), cache, delta, breaker, fingerprint
    )  # outermost: what the caller really got
