"""The words of panels: titles, short headers of columns, and descriptions with sources, limits and what does not narrow them."""

from __future__ import annotations

from collections.abc import Sequence

from app.catalog import Catalogue, Metric
from dashboards import limits
from dashboards.limits import BAD, GOOD, NOTE, WARN

_LEVELS = {NOTE: "note", WARN: "warning", BAD: "bad"}
#: What the unit of a limit is called in a sentence.
_UNITS = {"percent": " %", "s": " s", "ms": " ms"}


def short_title(title: str) -> str:
    """The title without the remark in brackets, which the description repeats."""
    return title.split(" (")[0]


def panel_title(catalogue: Catalogue, metric: str, by: Sequence[str]) -> str:
    """`Open trades by broker`."""
    labels = " and ".join(catalogue.label(label).title.lower() for label in by)
    title = short_title(catalogue.metric(metric).entry.title)
    return f"{title} by {labels}" if labels and " by " not in title else title


def description(catalogue: Catalogue, metrics: Sequence[str], note: str, unheard: Sequence[str]) -> str:
    """What the panel shows, its limits and its sources, and which lists of the dashboard do not narrow it."""
    scope = unheard_text(catalogue, unheard)
    if len(metrics) == 1:
        metric = catalogue.metric(metrics[0])
        parts = (metric.entry.description, note, limits_text(metric), _sources_text(metric), scope)
        return " ".join(part for part in parts if part)
    lines = [
        " ".join(filter(None, (f"- **{one.entry.short_title}**:", one.entry.description, limits_text(one), _sources_text(one))))
        for one in map(catalogue.metric, metrics)
    ]
    return "\n".join([*([note, ""] if note else []), *lines, *(["", scope] if scope else [])])


def unheard_text(catalogue: Catalogue, labels: Sequence[str], more: Sequence[str] = ()) -> str:
    """That lists at the top of the dashboard do not narrow a panel; `more` are lists that are not of a label."""
    names = [*(catalogue.label(label).title for label in labels), *more]
    if not names:
        return ""
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"Not narrowed by the {'list' if len(names) == 1 else 'lists'} {listed}."


def limits_text(metric: Metric) -> str:
    """The limits that colour the figure, so that nobody has to tell colours apart: `Limits: warning from 10, bad from 30.`"""
    steps, unit = limits.LIMITS.get(metric.name, limits.NONE), _UNITS.get(metric.entry.unit, "")
    if len(steps) < 2:
        return ""
    if steps[0][1] == GOOD:
        parts = [f"{_LEVELS[color]} from {value:g}{unit}" for value, color in steps[1:]]
    else:
        ends = [value for value, _ in steps[1:]]
        parts = [f"{_LEVELS[color]} below {_rounded(end)}{unit}" for (_, color), end in zip(steps, ends, strict=False)]
    return f"Limits: {', '.join(parts)}."


def _rounded(limit: float | None) -> str:
    """A limit as a sentence says it: 0.01 is there only to have 0 on the bad side."""
    return f"{limit if limit is None or limit >= 1 else 0:g}"


def _sources_text(metric: Metric) -> str:
    parts = [f"live {metric.live.source}"] if metric.live else []
    parts += [f"history {metric.history.source}"] if metric.history else []
    fallbacks = ", then ".join(read.source for read in metric.fallback)
    return f"Source: {', '.join(parts)}{f'; when that is down {fallbacks}, marked' if fallbacks else ''}."
