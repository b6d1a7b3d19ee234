"""The numbers of one source's policies, as the configuration gives them (`policy:`)."""

from __future__ import annotations

from pydantic import Field, model_validator

from app.documents.schema import Strict


class Policy(Strict):
    """The numbers of one source's policies."""

    attempt_timeout_s: float = Field(4.2, gt=0, le=60, description="time limit of one fetch")
    total_timeout_s: float = Field(4.5, gt=0, le=60, description="time limit of all attempts together, waits included")
    attempts: int = Field(2, ge=1, le=3, description="attempts for one answer; another one only if the failure may be temporary")
    concurrent: int = Field(5, ge=1, le=100, description="fetches at the same time")
    waiting: int = Field(40, ge=0, le=10_000, description="fetches that may wait for one of these; more are refused at once")
    fresh_s: float = Field(
        10.0, ge=0, le=3600, description="TTL of the cache: an answer up to this age is served again; 0 asks every time"
    )
    patience_s: float = Field(1.0, ge=0, le=60, description="wait for a newer answer before a soft-stale one is served, marked")
    soft_s: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="an answer is soft-stale up to this age: it is served, marked, while a newer one is fetched",
    )
    stale_s: float = Field(
        900.0, ge=0, le=86_400, description="when fetching fails, a cached answer up to this age stands in, marked; 0 never"
    )
    volatile_s: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="how long after its end a bucket may still change; newer buckets are fetched again each time",
    )
    settled_s: float = Field(
        1200.0,
        ge=0,
        le=86_400,
        description="how long older buckets are reused from the cache; then the whole range is fetched; 0 never",
    )
    cache_bytes: int = Field(64 << 20, ge=0, description="memory for cached answers of this source; one has at most half of it")
    cache_entries: int = Field(2000, ge=0, description="cached answers of this source")
    failures: int = Field(
        3,
        ge=1,
        le=100,
        description="failures in a row that open the circuit (half of 20 fetches within 10 s do, too): then only probes are sent",
    )
    look_s: float = Field(1.0, gt=0, le=600, description="time between two pings while all is well")
    probe_s: float = Field(5.0, gt=0, le=600, description="time between two probes while the circuit is open")
    denied_s: float = Field(60.0, gt=0, le=3600, description="time between two probes after the store refused the credentials")

    @model_validator(mode="after")
    def _check_ladder(self) -> Policy:
        if self.attempt_timeout_s > self.total_timeout_s:
            raise ValueError("attempt_timeout_s must not be above total_timeout_s")
        return self
