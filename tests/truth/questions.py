"""Questions as nobody wrote them down: metric, step, window, labels, points, form and clock are drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from app.catalog import Catalogue, Metric

HOUR_S = 3600
#: from a second to a week; odd ones divide nothing
_STEPS_S = (1, 7, 10, 30, 60, 97, 300, 900, 1801, 3600, 3607, 4 * 3600, 7 * 3600, 86_400, 2 * 86_400, 7 * 86_400)
_LENGTHS_S = (60, 600, 3600, 5 * 3600, 6 * 3600 + 1, 20 * 3600, 86_400)
#: how long after the stores' last row the bridge's clock stands; what is sampled is of no use for longer than a minute
_LATER_S = (0, 1, 7, 31, 89, 200)
_SAMPLED_LATER_S = (0, 1, 7, 31)
_POINTS = (5, 10, 40, 300, 1000)


@dataclass(frozen=True)
class Question:
    """What is asked; `by` are the labels kept, `only` a label whose every value is asked for alone."""

    metric: str
    from_ms: int
    now_ms: int
    step_s: int
    by: tuple[str, ...]
    points: int
    only: str | None = None

    def params(self, **more: str) -> dict[str, str]:
        """The parameters of `/v1/rows`."""
        asked = {"metric": self.metric, "from": str(self.from_ms), "to": str(self.now_ms), "step": f"{self.step_s}s"}
        return {**asked, "by": ",".join(self.by), "maxDataPoints": str(self.points), **more}

    def with_by(self, *by: str) -> Question:
        """The same by other labels."""
        return replace(self, by=by)


def draw(chance: random.Random, catalogue: Catalogue, ends_ms: int) -> Question:
    """One question about a world that ends then."""
    metric = chance.choice(list(catalogue.metrics.values()))
    labels = metric.entry.labels
    by = tuple(sorted(chance.sample(labels, chance.randint(0, len(labels)))))
    length_s = chance.choice(_LENGTHS_S)
    # Half of the windows begin where people let them begin: at a full second, an hour, the day.
    from_ms = ends_ms - length_s * 1000 - chance.choice((0, 0, 1, 999, 12_345))
    from_ms = chance.choice((from_ms, from_ms // 1000 * 1000, from_ms // (HOUR_S * 1000) * HOUR_S * 1000))
    now_ms = ends_ms + chance.choice(_LATER_S if counts_events(metric) else _SAMPLED_LATER_S) * 1000
    step_s = _possible_step_s(chance.choice(_STEPS_S), (now_ms - from_ms) // 1000, metric)
    only = chance.choice(labels) if labels and chance.random() < 0.3 else None
    return Question(metric.name, from_ms, now_ms, step_s, by, chance.choice(_POINTS), only)


def counts_events(metric: Metric) -> bool:
    """Whether a bucket's figure is of all that happened in it: such a figure does not change when nothing happens any more."""
    return not metric.sampled and metric.history is not None and metric.history.source == "clickhouse"


def _possible_step_s(step_s: int, length_s: int, metric: Metric) -> int:
    """A step of which there are not too many, and which the metric's rows can follow."""
    while length_s / step_s > 600:
        step_s *= 3
    resolution_s = metric.entry.resolution_s
    return -(-step_s // resolution_s) * resolution_s
