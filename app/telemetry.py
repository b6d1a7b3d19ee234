"""All metrics about the bridge itself, in one list; what is measured of a source and of a request; and the logging set-up."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.errors import BridgeError, SourceCrashed
from app.model import Clock, Fetch, Frame, Statement

_log = logging.getLogger(__name__)

#: the bounds of every histogram of durations
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUNDS = (*SECONDS, float("inf"))


class Telemetry:
    """The bridge's own metrics, on a registry of their own, so that two bridges can run in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        # Memory, processor time, open files and start time, on Linux only.
        ProcessCollector(registry=registry)
        self.build_info = Gauge("bridge_build_info", "The running version", ("version",), registry=registry)
        self.requests = RequestMetrics()
        registry.register(self.requests)
        self.queries = Counter("bridge_queries", "Queries (targets) by outcome", ("status",), registry=registry)
        self.inflight = Gauge("bridge_inflight", "Queries being answered", registry=registry)
        self.source_up = Gauge(
            "bridge_source_up", "1 if the last fetch from the source succeeded", ("source",), registry=registry
        )
        self.source_seconds = Histogram(
            "bridge_source_request_seconds", "Duration of one fetch", ("source",), registry=registry, buckets=SECONDS
        )
        self.source_errors = Counter("bridge_source_errors", "Fetches that failed", ("source", "kind"), registry=registry)
        self.cancelled = Counter("bridge_source_cancelled", "Fetches cancelled by their caller", ("source",), registry=registry)
        self.cache_hits = Counter(
            "bridge_cache_hits", "Answers that needed no fetch of their own", ("source", "how"), registry=registry
        )
        self.cache_misses = Counter("bridge_cache_misses", "Answers that had to be fetched", ("source",), registry=registry)
        self.spared = Counter(
            "bridge_spared_askings",
            "Fetches of the newest buckets only; the rest came from the cache",
            ("source",),
            registry=registry,
        )
        self.compared = Counter(
            "bridge_self_checks",
            "Incremental answers that were compared with a whole one",
            ("source", "outcome"),
            registry=registry,
        )
        self.cache_evictions = Counter("bridge_cache_evictions", "Answers dropped to make room", ("source",), registry=registry)
        self.stale = Counter("bridge_stale_responses", "Older answers served, marked as stale", ("source",), registry=registry)
        self.oldest_served = Gauge(
            "bridge_oldest_served_seconds",
            "Age of the oldest answer served in this minute or the one before",
            ("source",),
            registry=registry,
        )
        self.breaker_state = Gauge(
            "bridge_breaker_state", "The circuit of the source: 0 closed, 1 half open, 2 open", ("source",), registry=registry
        )
        self.reconnects = Counter(
            "bridge_source_reconnects", "Connection pools rebuilt after an outage", ("source",), registry=registry
        )
        self.stopped = Counter("bridge_cancelled_at_source", "Queries cancelled at the source", ("source",), registry=registry)
        self.shed = Counter("bridge_shed", "Requests refused because too many were running", ("lane",), registry=registry)
        self.heavy = Counter("bridge_heavy_requests", "Heavy requests by how they were let in", ("outcome",), registry=registry)
        self.heavy_waiting = Gauge("bridge_heavy_waiting", "Heavy requests that wait to be let in", registry=registry)
        self.heavy_bytes = Gauge("bridge_heavy_bytes", "What the heavy requests under way cost together", registry=registry)
        self.unsent_bytes = Gauge(
            "bridge_unsent_bytes", "Answers that are written but not read yet; equal ones count once", registry=registry
        )
        self.deaf_readers = Counter(
            "bridge_deaf_readers", "Connections closed because their reader did not read its answer", registry=registry
        )
        self.unauthenticated = Counter(
            "bridge_unauthenticated", "Requests refused because they had no valid key", registry=registry
        )
        self.sync_calls = Counter("bridge_sync_calls", "Backend sync calls by outcome", ("event", "outcome"), registry=registry)
        self.coarser = Counter(
            "bridge_coarser_answers",
            "Answers with a coarser step, because the asked one was too heavy for the store",
            registry=registry,
        )
        self.cache_bytes = Gauge("bridge_cache_bytes", "Size of the cached columns", ("source",), registry=registry)
        self.loop_lag = Gauge("bridge_event_loop_lag_seconds", "How late the event loop runs its timers", registry=registry)
        self.clock_skew = Gauge(
            "bridge_clock_skew_seconds", "How far a store's clock is ahead of the bridge's", ("source",), registry=registry
        )
        self.snapshot_age = Gauge("bridge_snapshot_age_seconds", "Age of the snapshot in use", ("source",), registry=registry)
        self.snapshots = Gauge("bridge_snapshots", "Snapshots in the writer's folder", ("source",), registry=registry)
        self.snapshot_bytes = Gauge("bridge_snapshots_bytes", "Size of these snapshots", ("source",), registry=registry)
        self.certificate_end = Gauge(
            "bridge_certificate_end_timestamp_seconds",
            "When the certificate of a watched endpoint ends; NaN before it was seen",
            ("endpoint",),
            registry=registry,
        )
        self.key_end = Gauge(
            "bridge_key_end_timestamp_seconds", "When a key ends; keys without an end have none", ("key",), registry=registry
        )
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
            "Time since a backup was last restored to a test place and verified; infinite if never or if that failed",
            ("kind",),
            registry=registry,
        )
        self._oldest: dict[str, _Oldest] = {}
        #: called before each scrape; each adds what was counted outside these counters, whose locks would cost too much
        self.before_scrape: list[Callable[[], None]] = []

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        for add in self.before_scrape:
            add()
        return generate_latest(self.registry)

    def families(self) -> list[Metric]:
        """All metrics as they are now."""
        for add in self.before_scrape:
            add()
        return list(self.registry.collect())

    def stale_served(self, source: str, age_ms: int) -> None:
        """An older answer was served."""
        self.stale.labels(source).inc()
        if source not in self._oldest:
            oldest = self._oldest[source] = _Oldest()
            self.oldest_served.labels(source).set_function(oldest.age_s)
        self._oldest[source].note(age_ms / 1000)


class TeamTelemetry:
    """What the supervisor of several workers measures, its own process included."""

    def __init__(self, workers: int) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        Gauge("bridge_workers", "Worker processes that there should be", registry=registry).set(workers)
        self.up = Gauge("bridge_workers_up", "Worker processes that serve", registry=registry)
        self.replaced = Counter("bridge_workers_replaced", "Worker processes that ended or hung", ("why",), registry=registry)
        for why in ("ended", "hung"):
            self.replaced.labels(why)


def text_of(families: Iterable[Metric]) -> bytes:
    """Finished metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Finished(families))
    return generate_latest(registry)


class _Finished(Collector):
    """Finished metrics, in the form that the client library's text writer takes."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        return self._families


@dataclass(slots=True)
class _Times:
    """One route's durations: how many up to each bound, and their sum."""

    buckets: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    sum_s: float = 0.0
    created_s: float = field(default_factory=time.time)


class RequestMetrics(Collector):
    """The requests by route and status, and their durations by route.

    Only the event loop's thread writes here, so plain numbers are enough. The locks of prometheus-client's own counters would
    cost a cached response a tenth of its time.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._created_s: dict[tuple[str, str], float] = {}
        self._times: dict[str, _Times] = {}

    def count(self, route: str, status: str, number: int = 1) -> None:
        """Add requests; adding 0 creates the series."""
        key = (route, status)
        try:
            self._counts[key] += number
        except KeyError:
            self._counts[key], self._created_s[key] = number, time.time()

    def observe(self, route: str, seconds: float) -> None:
        """Add one duration."""
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = _Times()
        times.buckets[bisect_left(_BOUNDS, seconds)] += 1
        times.sum_s += seconds

    def record(self, route: str, status: str, seconds: float) -> None:
        """Add one answered request and its duration."""
        key, times = (route, status), self._times.get(route)
        if times is None or key not in self._counts:
            self.count(route, status)
            self.observe(route, seconds)
            return
        # The usual case, written out: in a cached response each call costs.
        self._counts[key] += 1
        times.buckets[bisect_left(_BOUNDS, seconds)] += 1
        times.sum_s += seconds

    def collect(self) -> Iterator[Metric]:
        """Both metrics, for a scrape."""
        requests = CounterMetricFamily("bridge_http_requests", "Requests answered", labels=("route", "status"))
        for key, number in self._counts.items():
            requests.add_metric(key, number, created=self._created_s[key])
        yield requests
        seconds = HistogramMetricFamily("bridge_http_request_seconds", "Time to answer a request", labels=("route",))
        for route, times in self._times.items():
            up_to = zip(map(str, _BOUNDS[:-1]), accumulate(times.buckets), strict=False)
            seconds.add_metric((route,), [*up_to, ("+Inf", sum(times.buckets))], times.sum_s)
            seconds.add_sample("bridge_http_request_seconds_created", {"route": route}, times.created_s)
        yield seconds


class Observed:
    """The outermost policy: metrics and log lines of what the callers of a source really get.

    A bug in a source becomes SourceCrashed and a log line, so that other sources still answer.
    """

    def __init__(self, source: str, fetch: Fetch, telemetry: Telemetry, clock: Clock) -> None:
        self._source = source
        self._fetch = fetch
        self._telemetry = telemetry
        self._clock = clock

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        begun_s = time.perf_counter()
        try:
            frame = await self._fetch(statement)
        except asyncio.CancelledError:
            self._telemetry.cancelled.labels(self._source).inc()
            raise
        except BridgeError:
            raise
        except Exception as bug:
            _log.exception("%s crashed while reading %s", self._source, statement.metric)
            crash = SourceCrashed(self._source, f"internal error ({type(bug).__name__}); see the bridge's log")
            self._telemetry.source_errors.labels(self._source, crash.kind).inc()
            raise crash from bug
        finally:
            self._telemetry.source_seconds.labels(self._source).observe(time.perf_counter() - begun_s)
        if frame.provenance.stale is not None:
            self._telemetry.stale_served(self._source, self._clock() - frame.provenance.asked_ms)
        return frame


class _Oldest:
    """The greatest age in this minute and the one before."""

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
    """One JSON object a line: time, level, logger, message, the worker (of several), and the exception if there is one."""

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(level: str, style: str, handler: logging.Handler | None = None, worker: int | None = None) -> None:
    """Log to `handler`, by default stderr. `style` is json (one object a line) or text. Each line names the worker, if given."""
    handler = handler or logging.StreamHandler(sys.stderr)
    name = "%(name)s" if worker is None else f"worker {worker} %(name)s"
    text = logging.Formatter(f"%(asctime)s %(levelname)-7s {name}: %(message)s", "%H:%M:%S")
    handler.setFormatter(_JsonLines(worker) if style == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # httpx logs each request's URL, which may carry a caller's filter values.
    logging.getLogger("httpx").setLevel(logging.WARNING)
