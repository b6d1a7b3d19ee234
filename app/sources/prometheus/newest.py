"""Whether a store is honest about the newest values of a range.

VictoriaMetrics repeats an older value under each newer time of a range whose step is below a minute: for half a minute, unless
`-search.latencyOffset` or the parameter `latency_offset` (from 1.85.2 on) says otherwise. The expression `time()` shows it,
because its value is known for every instant.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.model import Labels, TimeRange, Times, Values

SeriesPoints = tuple[Labels, Times, Values]

#: Ranges with a smaller step may end in repeated values.
REPEATING_STEP_MS = 60_000
#: How far back the look reaches: further than anybody would set the offset.
_LOOK_S = 120
#: So much is the difference of two clocks.
_TOLERANCE_S = 2


def newest_span(now_ms: int) -> TimeRange:
    """The range to ask `time()` for: each second up to now."""
    to_ms = now_ms // 1000 * 1000
    return TimeRange(to_ms - _LOOK_S * 1000, to_ms, 1000)


def repeated_s(series: Sequence[SeriesPoints], span: TimeRange) -> int:
    """For how many seconds before the end of the range `time()` stands still; 0 where it does not."""
    newest = max((values[-1] for _, _, values in series if len(values)), default=span.from_ms / 1000)
    behind_s = round(span.to_ms / 1000 - newest)
    return behind_s if behind_s > _TOLERANCE_S else 0


def repeats_text(repeats_s: int) -> str:
    """The remark on such a store."""
    return f"repeats an older value in the newest {repeats_s}s; set -search.latencyOffset=1s at VictoriaMetrics"
