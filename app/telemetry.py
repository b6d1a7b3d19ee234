"""Every metric of the bridge's own, in one list, and the log set-up."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

#: the bounds of what is counted by how long it took
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Telemetry:
    """The bridge's own metrics, on a registry of their own so that two bridges live in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        # Memory, processor time, open files, start; where the system tells them (Linux).
        ProcessCollector(registry=registry)
        self.build_info = Gauge("bridge_build_info", "The running version", ("version",), registry=registry)
        self.http_requests = Counter("bridge_http_requests", "Requests answered", ("route", "status"), registry=registry)
        self.http_seconds = Histogram(
            "bridge_http_request_seconds", "Time to answer a request", ("route",), registry=registry, buckets=SECONDS
        )
        self.queries = Counter("bridge_queries", "Queries (targets) by outcome", ("status",), registry=registry)
        self.inflight = Gauge("bridge_inflight", "Queries being answered", registry=registry)
        self.source_up = Gauge("bridge_source_up", "1 if the source's last answer was one", ("source",), registry=registry)
        self.source_seconds = Histogram(
            "bridge_source_request_seconds", "Time of one asking", ("source",), registry=registry, buckets=SECONDS
        )
        self.source_errors = Counter("bridge_source_errors", "Askings that failed", ("source", "kind"), registry=registry)
        self.cancelled = Counter("bridge_source_cancelled", "Askings given up by their caller", ("source",), registry=registry)
        self.cache_hits = Counter(
            "bridge_cache_hits", "Answers without an asking of their own", ("source", "how"), registry=registry
        )
        self.cache_misses = Counter("bridge_cache_misses", "Answers that had to be asked for", ("source",), registry=registry)
        self.spared = Counter(
            "bridge_spared_askings", "Askings for the newest buckets only, the rest being at hand", ("source",), registry=registry
        )
        self.compared = Counter(
            "bridge_self_checks",
            "Answers put together that were compared with the source's",
            ("source", "outcome"),
            registry=registry,
        )
        self.cache_evictions = Counter("bridge_cache_evictions", "Answers dropped for room", ("source",), registry=registry)
        self.stale = Counter("bridge_stale_responses", "Older answers served, marked", ("source",), registry=registry)
        self.oldest_served = Gauge(
            "bridge_oldest_served_seconds",
            "Age of the oldest answer served in the last minute or two",
            ("source",),
            registry=registry,
        )
        self.breaker_state = Gauge(
            "bridge_breaker_state", "The source's circuit: 0 closed, 1 half open, 2 open", ("source",), registry=registry
        )
        self.reconnects = Counter(
            "bridge_source_reconnects", "Connection pools rebuilt after an outage", ("source",), registry=registry
        )
        self.stopped = Counter("bridge_cancelled_at_source", "Askings stopped at the source", ("source",), registry=registry)
        self.shed = Counter("bridge_shed", "Requests refused because too many were under way", ("lane",), registry=registry)
        self.unauthenticated = Counter("bridge_unauthenticated", "Requests refused for want of a key", registry=registry)
        self.sync_calls = Counter("bridge_sync_calls", "Backend sync calls by outcome", ("event", "outcome"), registry=registry)
        self.coarser = Counter(
            "bridge_coarser_answers", "Answers with a coarser step than asked, for want of time", registry=registry
        )
        self.cache_bytes = Gauge("bridge_cache_bytes", "Size of the cached columns", ("source",), registry=registry)
        self.loop_lag = Gauge("bridge_event_loop_lag_seconds", "How late the event loop runs its timers", registry=registry)
        self.clock_skew = Gauge(
            "bridge_clock_skew_seconds", "How far a store's clock is ahead of the bridge's", ("source",), registry=registry
        )
        self.snapshot_age = Gauge("bridge_snapshot_age_seconds", "Age of the snapshot in use", ("source",), registry=registry)
        self.backup_age = Gauge(
            "bridge_backup_age_seconds", "Age of the newest backup; infinite when there is none", ("kind",), registry=registry
        )
        self.backup_size = Gauge("bridge_backup_size_bytes", "Size of the newest backup's files", ("kind",), registry=registry)
        self.backup_last_ok = Gauge(
            "bridge_backup_last_ok",
            "1 if the last backup succeeded, 0 if it failed, NaN before the first",
            ("kind",),
            registry=registry,
        )
        self.backup_verified_age = Gauge(
            "bridge_backup_verified_age_seconds",
            "Time since a backup was restored aside and found good; infinite when that failed or never was",
            ("kind",),
            registry=registry,
        )
        self._oldest: dict[str, _Oldest] = {}
        #: what is counted apart, where a counter's lock would cost too much, and is added before anybody looks
        self.settlers: list[Callable[[], None]] = []

    def exposition(self) -> bytes:
        """All of it, as Prometheus reads it."""
        for settle in self.settlers:
            settle()
        return generate_latest(self.registry)

    def stale_served(self, source: str, age_ms: int) -> None:
        """An older answer was served."""
        self.stale.labels(source).inc()
        if source not in self._oldest:
            oldest = self._oldest[source] = _Oldest()
            self.oldest_served.labels(source).set_function(oldest.age_s)
        self._oldest[source].note(age_ms / 1000)


class _Oldest:
    """The greatest age of this minute and the one before."""

    def __init__(self) -> None:
        self._minute = 0
        self._ages_s = (0.0, 0.0)

    def note(self, age_s: float) -> None:
        self._turn()
        self._ages_s = (max(self._ages_s[0], age_s), self._ages_s[1])

    def age_s(self) -> float:
        self._turn()
        return max(self._ages_s)

    def _turn(self) -> None:
        minute = int(time.monotonic() // 60)
        passed, self._minute = minute - self._minute, minute
        if passed:
            self._ages_s = (0.0, self._ages_s[0] if passed == 1 else 0.0)


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(level: str, style: str, handler: logging.Handler | None = None) -> None:
    """Logs to `handler`, else to stderr: `style` json (one object a line) or text."""
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if style == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # httpx logs each request's URL, which may carry a caller's filter values.
    logging.getLogger("httpx").setLevel(logging.WARNING)
