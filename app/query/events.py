"""The events of a window: which of them are shown, and the remark on those left out. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from app.clock import instant_text
from app.model import Flags, Frame, Indices, Notice, Values

#: events in one answer; a read brings at most one more, the newest ones
MOST_EVENTS = 1000


class Shown(NamedTuple):
    """Events by time. They are complete from `from_ms` on, which is later than the window's start where some are left out."""

    frame: Frame
    from_ms: int
    notices: tuple[Notice, ...] = ()


def shown_events(found: Frame, name: str, from_ms: int, to_ms: int, reaching: bool) -> Shown:
    """The events that began in [from_ms, to_ms) and, with `reaching`, those that began before and lasted into it. Where there are
    too many, the newest."""
    inside = (found.time >= from_ms) & (found.time < to_ms)
    if reaching:
        inside |= (found.time < from_ms) & (ends_ms(found) > from_ms)
    # A read that brings more than fit may be truncated itself: some events of its first instant may be missing.
    sure_ms = 0 if len(found) <= MOST_EVENTS else int(found.time[0]) + 1
    places = np.flatnonzero(inside & (found.time >= sure_ms))
    if len(places) <= MOST_EVENTS and ((sure_ms <= from_ms and not reaching) or not sure_ms):
        return Shown(found if inside.all() else found.at(places), from_ms)
    kept = found.at(_newest_rows(found, places if len(places) else np.flatnonzero(inside)))
    since_ms = max(int(kept.time[0]) if len(kept) else sure_ms, from_ms)
    return Shown(
        kept, since_ms, (Notice("warning", f"{name}: more than {MOST_EVENTS} in this range; {_left_out(since_ms, from_ms)}"),)
    )


def _left_out(since_ms: int, from_ms: int) -> str:
    if since_ms == from_ms:
        return "some that began before it are left out"
    return f"only the newest are shown, from {instant_text(since_ms)} on"


def _newest_rows(found: Frame, places: Indices) -> Indices:
    """The last rows. All events of one instant are shown or none, so that the next page can begin before it; at least one is
    shown."""
    newest = places[-MOST_EVENTS:]
    if len(newest) == len(places):
        return newest
    later: Flags = found.time[newest] > found.time[places[-MOST_EVENTS - 1]]
    return newest[later] if later.any() else newest


def ends_ms(frame: Frame) -> Values:
    """When each event ended, epoch ms; NaN where the end is missing or cannot be read."""
    return np.array([_number_or_nan(end) for end in frame.text.get("time_end") or (None,) * len(frame)], dtype=np.float64)


def _number_or_nan(text: str | None) -> float:
    try:
        found = float(text or "nan")
    except ValueError:
        return np.nan
    return found if np.isfinite(found) else np.nan
