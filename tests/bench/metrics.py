"""Sums over a bridge's own metrics page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tests.bench.hits import get


def total(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    samples = re.findall(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", page, re.MULTILINE)
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(value) for given, value in samples if all(pair in given.split(",") for pair in wanted))


@dataclass(frozen=True, slots=True)
class Counts:
    """What bridges have counted so far: answers from what was at hand, askings (of the newest part only among them), those that
    another replica had done, processor seconds."""

    hits: float
    asked: float
    spared: float
    replica: float
    cpu_s: float

    @classmethod
    def of(cls, ports: Sequence[int], **labels: str) -> Self:
        """The sum over bridges."""
        pages = [get(port, "/metrics").decode() for port in ports]

        def all_of(name: str, **more: str) -> float:
            return sum(total(page, name, **labels, **more) for page in pages)

        replica = all_of("bridge_cache_hits_total", how="replica")
        return cls(
            all_of("bridge_cache_hits_total") - replica,
            all_of("bridge_cache_misses_total"),
            all_of("bridge_spared_askings_total"),
            replica,
            sum(total(page, "process_cpu_seconds_total") for page in pages),
        )

    def since(self, before: Counts) -> Counts:
        """What was counted in between."""
        return Counts(
            self.hits - before.hits,
            self.asked - before.asked,
            self.spared - before.spared,
            self.replica - before.replica,
            self.cpu_s - before.cpu_s,
        )
