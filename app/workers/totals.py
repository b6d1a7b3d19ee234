"""The metrics of all workers as those of one bridge. No counter goes back when a worker is replaced."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import Metric

#: What a gauge of all workers is. `max` where this table has none: the worst, or what the leader alone knows.
GAUGES: Mapping[str, str] = {
    "bridge_backup_age_seconds": "max",
    "bridge_backup_last_ok": "max",
    "bridge_backup_size_bytes": "max",
    "bridge_backup_verified_age_seconds": "max",
    "bridge_breaker_state": "max",
    "bridge_build_info": "max",
    "bridge_cache_bytes": "sum",
    "bridge_certificate_end_timestamp_seconds": "min",
    "bridge_clock_skew_seconds": "farthest",
    "bridge_event_loop_lag_seconds": "max",
    "bridge_heavy_bytes": "sum",
    "bridge_heavy_waiting": "sum",
    "bridge_inflight": "sum",
    "bridge_key_end_timestamp_seconds": "min",
    "bridge_oldest_served_seconds": "max",
    "bridge_snapshot_age_seconds": "max",
    "bridge_snapshots": "max",
    "bridge_snapshots_bytes": "max",
    "bridge_source_up": "min",
    "bridge_unsent_bytes": "sum",
    "bridge_workers": "max",
    "bridge_workers_up": "max",
    "process_max_fds": "min",
    "process_open_fds": "sum",
    "process_resident_memory_bytes": "sum",
    "process_start_time_seconds": "min",
    "process_virtual_memory_bytes": "sum",
}

_MERGES: Mapping[str, Callable[[float, float], float]] = {
    "sum": lambda one, other: one + other,
    "max": lambda one, other: other if math.isnan(one) else one if math.isnan(other) else max(one, other),
    "min": lambda one, other: other if math.isnan(one) else one if math.isnan(other) else min(one, other),
    "farthest": lambda one, other: max(one, other, key=abs),
}

#: A sample's name and labels.
_Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class _Sum:
    """One metric over several workers."""

    kind: str
    text: str
    samples: dict[_Key, float] = field(default_factory=dict)

    def add_samples(self, metric: Metric) -> None:
        for sample in metric.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            known = self.samples.get(key)
            self.samples[key] = sample.value if known is None else self._merge_of(metric, sample.name)(known, sample.value)

    def _merge_of(self, metric: Metric, sample: str) -> Callable[[float, float], float]:
        if metric.type == "gauge":
            return _MERGES[GAUGES.get(metric.name, "max")]
        return _MERGES["min" if sample.endswith("_created") else "sum"]


class Totals:
    """Adds up what workers have sent, and keeps what those that are gone had counted."""

    def __init__(self) -> None:
        self._gone: dict[str, _Sum] = {}

    def keep(self, families: Iterable[Metric]) -> None:
        """Keep the counters of a worker that is gone, as it sent them last. Its gauges are gone with it."""
        _add_all(self._gone, without_gauges(families))

    def merged(self, workers: Iterable[Iterable[Metric]]) -> list[Metric]:
        """The metrics of these workers and of those that are gone."""
        sums: dict[str, _Sum] = {}
        _add_all(sums, map(_metric_of, self._gone, self._gone.values()))
        for families in workers:
            _add_all(sums, families)
        return [_metric_of(name, found) for name, found in sums.items()]


def without_gauges(families: Iterable[Metric]) -> list[Metric]:
    """Of a worker that does not answer: what it had counted holds, what it was like does not."""
    return [metric for metric in families if metric.type != "gauge"]


def _add_all(sums: dict[str, _Sum], families: Iterable[Metric]) -> None:
    for metric in families:
        sums.setdefault(metric.name, _Sum(metric.type, metric.documentation)).add_samples(metric)


def _metric_of(name: str, found: _Sum) -> Metric:
    metric = Metric(name, found.text, found.kind)
    for (sample, labels), value in found.samples.items():
        metric.add_sample(sample, dict(labels), value)
    return metric
