"""Clocks, instants and ages. Times are epoch milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime

#: A smaller number is an instant in seconds, a greater one in milliseconds: the limit is the year 5138 or 1973.
SECONDS_BELOW = 100_000_000_000


def wall_ms() -> int:
    """The clock of this host, epoch ms."""
    return time.time_ns() // 1_000_000


def skew_s(store_ms: float, before_ms: int) -> float:
    """How far the clock of a store is ahead of ours, in seconds. It was read between `before_ms` and now."""
    return (store_ms - (before_ms + wall_ms()) / 2) / 1000


def age_text(age_ms: float) -> str:
    """An age as text: 90s, 45min, 3h, 5d."""
    age_s = max(age_ms, 0) / 1000
    for below_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if age_s < below_s:
            return f"{age_s // unit_s:.0f}{unit}"
    return f"{age_s // 86_400:.0f}d"


def instant_text(time_ms: int) -> str:
    """An instant as text: UTC, whole seconds."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
