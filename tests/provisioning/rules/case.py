"""What each alert and each recorded series is to do, as data: samples in, what fires or is recorded out.

A series is in promtool's notation, a sample every 15 s: `0+15x40` starts at 0 and grows by 15 forty times (1/s), `1x40` is 1
and forty times more of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Series = Mapping[str, str]


@dataclass(frozen=True)
class Fires:
    """With these series the alert fires at `at` with these labels and this summary, not yet at `before` (None: at once); with
    `quiet`, never."""

    alert: str
    series: Series
    quiet: Series
    before: str | None
    at: str
    labels: Mapping[str, str]
    summary: str
    #: where it has placeholders; else it is taken as it stands in the rule
    description: str | None = None
    #: how often promtool is to evaluate: seldom where `at` is a day away
    every: str = "15s"


@dataclass(frozen=True)
class Records:
    """With these series the expression (a recorded name) has this value and these labels after ten minutes."""

    name: str
    series: Series
    labels: str
    value: float


def bridge(name: str, **labels: str) -> str:
    """A series as one replica shows it."""
    inside = ",".join(f'{label}="{value}"' for label, value in {"job": "bridge", "instance": "b1", **labels}.items())
    return f"{name}{{{inside}}}"
