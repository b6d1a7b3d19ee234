"""The policies around a source, and the one place where they are stacked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.model import Clock, Fetch
from app.policies.attempts import Deadline, Limited, PrioritySemaphore, Retried, RetryBudget
from app.policies.breaker import Breaker
from app.policies.cache.answers import AnswerCache
from app.policies.cache.cached import Cached, PublishedUntil, always_current
from app.policies.cache.incremental import Incremental
from app.policies.cache.replicas import Shared, SharedCache
from app.policies.checked import Checked
from app.policies.settings import Policy
from app.telemetry import Observed, Telemetry

__all__ = ["Guard", "Policy", "PolicyDeps", "PrioritySemaphore", "PublishedUntil", "always_current", "guard"]


Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class PolicyDeps:
    """What the policies of all sources share."""

    telemetry: Telemetry
    clock: Clock
    sleep: Sleep
    #: the slots of all fetches of the process
    global_slots: PrioritySemaphore
    #: the cache that all replicas share
    shared_cache: SharedCache | None = None


@dataclass(frozen=True, slots=True)
class Guard:
    """A source with its policies around it: its fetch, and the parts that operators look at."""

    fetch: Fetch
    cache: Cached
    incremental: Incremental
    breaker: Breaker
    #: tells differently configured sources apart
    fingerprint: str

    async def close(self) -> None:
        """End the background work."""
        await self.cache.close()
        await self.incremental.close()


def guard(
    name: str,
    fetch: Fetch,
    policy: Policy,
    deps: PolicyDeps,
    fingerprint: str = "",
    published_until: PublishedUntil = always_current,
) -> Guard:
    """The source's fetch with its policies around it, the innermost first. A test pins the order.

    `published_until` tells up to when the data of a source reaches that publishes from time to time.
    """
    telemetry, clock = deps.telemetry, deps.clock
    stopped = telemetry.stopped.labels(name).inc
    # Innermost: no other policy sees an answer that does not fit its question.
    fetch = Checked(name, fetch)
    # Limits how long one connection is held.
    fetch = Deadline(name, fetch, policy.attempt_timeout_s, "attempt", stopped)
    # Inside the retry: a back-off holds no slot.
    fetch = Limited(name, fetch, policy.concurrent, policy.waiting, deps.global_slots)
    fetch = Retried(fetch, policy.attempts, deps.sleep, RetryBudget())
    # Waiting and retrying included.
    fetch = Deadline(name, fetch, policy.total_timeout_s, "total")
    # Outside the limits: a cancelled fetch is no failure of the source.
    fetch = breaker = Breaker(name, fetch, policy, telemetry)
    # Outside the breaker: what another replica fetched says nothing about our source.
    if deps.shared_cache is not None:
        fetch = Shared(name, fetch, policy, deps.shared_cache, fingerprint, telemetry, clock)
    # Inside the cache: it reuses the buckets of cached answers.
    answers = AnswerCache(policy.cache_bytes, policy.cache_entries)
    fetch = incremental = Incremental(name, fetch, answers, policy, telemetry, clock)
    # Outside everything that fails: an older answer stands in for any failure.
    cache = Cached(name, fetch, policy, telemetry, clock, published_until=published_until, answers=answers)
    # Outermost: it counts what the caller really gets.
    return Guard(Observed(name, cache, telemetry, clock), cache, incremental, breaker, fingerprint)
