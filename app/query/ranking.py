"""Which series of an answer are shown, and in which order (`sort`, `top`, `top_by`). Pure functions over a frame.

The figures that are compared come from the values before thinning. All series are compared, so the sources are asked as if
nobody had asked for an order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from app.model import Frame, Labels, Notice, Ranked, Ranking, TopBy, Values
from app.series import arrange_series

#: how an order is called where it cuts: before and after the number of series
_CUT_WORDS = {"-value": ("the top", ""), "value": ("the lowest", ""), "label": ("the first", " in the order of their labels")}


def rank_series(shown: Frame, whole: Frame, ranking: Ranking) -> tuple[Frame, Ranked]:
    """The shown series in the asked order, cut to the first `top`, and how they were ordered.

    `whole` has every value of the window. The last value is that of `shown`, so that a table of last values is in their order.
    """
    order = ranking.order
    keys = np.zeros(len(shown.series))
    if order in ("value", "-value"):
        figures = series_figures(shown if ranking.top_by == "last" else whole, ranking.top_by)
        keys = sort_keys(np.array([figures.get(labels, np.nan) for labels in shown.series]), descending=order == "-value")
    # Stable: series are sorted by their labels, so equal ones stay in that order.
    places = np.argsort(keys, kind="stable")[: ranking.top]
    return arrange_series(shown, places), Ranked(keys[places], len(shown.series))


def sort_keys(figures: Values, descending: bool) -> Values:
    """Keys whose ascending order is the asked one: what has no value is last in either direction."""
    signed = -figures if descending else figures
    return np.where(np.isnan(signed), np.inf, signed)


def series_figures(frame: Frame, top_by: TopBy) -> Mapping[Labels, float]:
    """The figure of each series: its last value that is not null, the highest, the lowest, or the sum. NaN where all are null."""
    return dict(zip(frame.series, _figures_of(frame, top_by).tolist(), strict=True))


def _figures_of(frame: Frame, top_by: TopBy) -> Values:
    if not frame.series:
        return np.empty(0)
    begins, value = np.array(frame.offsets[:-1]), frame.value
    known = ~np.isnan(value)
    if top_by == "max":
        highest: Values = np.fmax.reduceat(value, begins)
        return highest
    if top_by == "min":
        lowest: Values = np.fmin.reduceat(value, begins)
        return lowest
    if top_by == "sum":
        return np.where(np.logical_or.reduceat(known, begins), np.add.reduceat(np.where(known, value, 0), begins), np.nan)
    last = np.maximum.reduceat(np.where(known, np.arange(len(value)), -1), begins)
    return np.where(last >= begins, value[last], np.nan)


def ranking_remarks(name: str, ranking: Ranking, ranked: Ranked, is_partial: bool) -> tuple[Notice, ...]:
    """What `top` has left out, and that the order of an answer that lacks a part may be wrong."""
    shown, found = len(ranked.keys), list[Notice]()
    if shown < ranked.total:
        found.append(Notice("info", f"{name}: {cut_text(ranking, shown, ranked.total, 'series')}"))
    if is_partial and ranked.total > 1 and ranking.order != "label":
        found.append(Notice("warning", f"{name}: a part of the data is missing, so the order of the series may be wrong"))
    return tuple(found)


def cut_text(ranking: Ranking, shown: int, total: int, what: str) -> str:
    """`the top 20 of 1000 series by the last value; 980 are not shown`."""
    before, after = _CUT_WORDS[ranking.order or "label"]
    figures = {"last": "last value", "max": "highest value", "min": "lowest value", "sum": "sum of their values"}
    by = after or f" by the {figures[ranking.top_by]}"
    left = total - shown
    return f"{before} {shown} of {total} {what}{by}; {left} {'is' if left == 1 else 'are'} not shown"
