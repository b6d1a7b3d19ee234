"""Tables for a terminal: each series with its newest value and a sparkline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from app.catalog import Metric
from app.clock import instant_text
from app.model import UNRANKED, Ranking, TopBy

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24
#: a narrower sparkline shows nothing
_LEAST_WIDTH = 6
_PADDING = 3
_WIDEST = 1000

#: a series' labels -> its points
_Series = dict[tuple[Any, ...], list[tuple[int, float | None]]]


def print_rows(answer: Mapping[str, Any], console: Console, ranking: Ranking = UNRANKED) -> None:
    """Print a `/v1/rows` response (long shape): a line for each series, in the asked order, and the notices below."""
    rows: list[dict[str, Any]] = answer["rows"]
    several = len({row["metric"] for row in rows}) > 1
    keys = [key for key in (rows[0] if rows else {}) if key not in ("time", "value") and (several or key != "metric")]
    _print_series(_in_order(_by_series(rows, keys), ranking), keys, console)
    for name, facts in answer.get("meta", {}).get("metrics", {}).items():
        console.print(
            f"{name}: {facts.get('title')} [{facts.get('unit')}], step {facts.get('step_ms', 0) / 1000:g}s", markup=False
        )
        for notice in facts.get("notices", ()):
            console.print(f"  {notice['severity']}: {notice['text']}", markup=False)


def _print_series(series: _Series, keys: Sequence[str], console: Console) -> None:
    """Print the table. The sparkline gets the remaining width. Names and figures are never cut, even if the table is too wide."""
    table = _series_table(series, keys, 0)
    needed = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    left = min(_WIDTH, console.width - needed - _PADDING)
    if left >= _LEAST_WIDTH and (console.encoding or "").lower().startswith("utf"):
        table = _series_table(series, keys, left)
    else:
        table.width = needed
    console.print(table, crop=False)


def _series_table(series: _Series, keys: Sequence[str], course: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for key in keys:
        table.add_column(key, no_wrap=True)
    for title in ("points", "lowest", "highest", "newest"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("at (UTC)", no_wrap=True)
    if course:
        table.add_column("course", no_wrap=True)
    for labels, points in series.items():
        table.add_row(*(cell or "" for cell in labels), *_summary_cells(points), *([sparkline(points, course)] if course else []))
    return table


def print_metrics(metrics: Iterable[Metric], console: Console) -> None:
    """Print the catalogue as a table."""
    names = (Column(name, no_wrap=True) for name in ("metric", "group", "unit"))
    table = Table(*names, "labels", "title", box=box.SIMPLE_HEAD)
    for metric in metrics:
        entry = metric.entry
        table.add_row(metric.name, metric.group, entry.unit, ", ".join(entry.labels), entry.title)
    console.print(table)


def sparkline(points: Sequence[tuple[int, float | None]], width: int) -> str:
    """A sparkline of at most `width` characters, with a blank for null."""
    values = [value for _, value in points]
    stride = max(1, math.ceil(len(values) / width))
    kept = values[::-1][::stride][::-1]
    known = [value for value in kept if value is not None]
    if not known:
        return ""
    low, spread = min(known), (max(known) - min(known)) or 1.0
    return "".join(" " if value is None else _BARS[round((value - low) / spread * (len(_BARS) - 1))] for value in kept)


def _by_series(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> _Series:
    series: _Series = {}
    for row in rows:
        series.setdefault(tuple(row[key] for key in keys), []).append((row["time"], row["value"]))
    return series


def _in_order(series: _Series, ranking: Ranking) -> _Series:
    """The series ordered as the bridge has ordered them: rows come by time, so that the rows alone do not tell."""
    if ranking.order not in ("value", "-value"):
        return series
    sign = -1 if ranking.order == "-value" else 1

    def sort_key(labels: tuple[Any, ...]) -> float:
        known = [value for _, value in series[labels] if value is not None]
        return sign * _FIGURES[ranking.top_by](known) if known else math.inf

    return {labels: series[labels] for labels in sorted(sorted(series, key=str), key=sort_key)}


_FIGURES: Mapping[TopBy, Callable[[Sequence[float]], float]] = {
    "last": lambda known: known[-1],
    "max": max,
    "min": min,
    "sum": sum,
}


def _summary_cells(points: Sequence[tuple[int, float | None]]) -> tuple[str, ...]:
    known = [value for _, value in points if value is not None]
    at_ms, newest = points[-1]
    figures = (min(known, default=None), max(known, default=None), newest)
    return (str(len(points)), *(_short_number(figure) for figure in figures), instant_text(at_ms)[11:19])


def _short_number(value: float | None) -> str:
    return "null" if value is None else f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
