"""The name of a figure, which says the state of its answer: a tile shows it below the figure."""

from __future__ import annotations

import numpy as np

from app.clock import age_text
from app.model import Labels, Result, Times, Values


def tile_name(result: Result, labels: Labels, times: Times, values: Values) -> str:
    """The label values of a series, and the state of its newest figure if that is not fresh; `fresh` if there are no labels."""
    known, state = " ".join(value or "(none)" for _, value in labels), _state_text(result, times, values)
    return known if known and state == "fresh" else ", ".join(filter(None, (known, state)))


def _state_text(result: Result, times: Times, values: Values) -> str:
    """The state in a few words: `fresh`, `stale, 5min old: rts`, `partial: clickhouse`, `no data`.

    The sources named are those that failed, or whose older answer is shown. A quantity that always has a value is stale, too, if
    its newest one is not of now: then nobody has written a newer one.
    """
    if result.status == "fresh":
        known = times[~np.isnan(values)]
        if not len(times) or not len(known):
            return "no data"
        is_old = result.sampled and int(known[-1]) < result.present.since_ms
        return f"stale, {age_text(result.present.at_ms - int(known[-1]))} old" if is_old else "fresh"
    behind = dict.fromkeys(asked.source for asked in result.asked if asked.error is not None or asked.stale is not None)
    is_old = any(asked.stale is not None for asked in result.asked) or result.status == "stale"
    age = f", {age_text(result.age_s * 1000)} old" if is_old and result.error is None else ""
    return f"{result.status}{age}" + (f": {', '.join(behind)}" if behind else "")
