"""`docs/metrics.md`: every metric, event and label of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from app.catalog import Catalogue, Metric
from app.catalog.entries import MetricEntry
from manual.markdown import WARNING, code, code_list, table_lines

#: Grafana's unit ids in words
UNITS = {
    "Bps": "bytes per second",
    "bytes": "bytes",
    "cpm": "per minute",
    "cps": "per second",
    "currencyUSD": "money in deposit currency",
    "ms": "milliseconds",
    "opm": "orders per minute",
    "percent": "percent",
    "s": "seconds",
    "short": "a plain number",
}
#: how several series become one
AGGREGATES = {
    "avg": "average",
    "count": "count",
    "max": "largest",
    "min": "smallest",
    "quantile": "quantile over all of them",
    "ratio": "ratio of the sums",
    "sum": "sum",
}
#: what one bucket shows
OVER_TIME = {
    "avg": "average in the bucket",
    "last": "last value in the bucket",
    "max": "largest in the bucket",
    "quantile": "quantile over the bucket",
    "rate": "rate over the bucket",
    "ratio": "ratio over the bucket",
    "sum": "total of the bucket",
}
_TITLES = {
    "account": "Accounts",
    "backend_sync": "Backend sync",
    "instance": "MT5 instances",
    "performance": "Performance",
    "system_health": "System health",
    "trade_execution": "Trade execution",
}
_HEAD = """\
# Metrics

Every metric of the catalogue that comes with the bridge (`provisioning/catalog/`). A running bridge lists its metrics at
`/v1/metrics`, and `bridge metrics` prints them. Each name below works in `metric=` of every route and in Grafana's query
builder.

How to read the columns:

- **labels**: what you can keep with `by` and filter with `where`. All other labels are aggregated.
- **sources**: the store of the history, the store of the live edge, and the stores that are asked when these are down.
- **several series become one by**: what happens when you do not keep a label. A ratio or a quantile is computed over all
  rows, never from figures that are aggregated already.
- **a bucket shows**: how the values within one step become one point.
- **step**: the step is a multiple of this. A finer step is raised, and the answer says so.
- **gauge**: the name of the present value at `/metrics`, for Prometheus. A gauge that ends in `_ratio` is a share (0.5),
  where the metric itself is in percent (50).

Positive slippage costs the account money, everywhere.
"""


def metrics_page(catalogue: Catalogue) -> str:
    """The page as Markdown."""
    lines = [WARNING.format(source="a file in `provisioning/catalog/`"), _HEAD]
    groups = dict.fromkeys(metric.group for metric in catalogue.metrics.values())
    for group in groups:
        lines += _group_lines(group, [metric for metric in catalogue.metrics.values() if metric.group == group])
    return "\n".join([*lines, *_event_lines(catalogue), *_label_lines(catalogue)])


def _group_lines(group: str, metrics: list[Metric]) -> Iterable[str]:
    yield f"## {_TITLES.get(group, group)}\n"
    yield from table_lines(
        ("metric", "what it means", "unit", "labels", "sources"),
        (
            (code(one.name), meaning(one), unit_text(one), code_list(one.entry.labels) or "none", sources_text(one))
            for one in metrics
        ),
    )
    yield ""
    yield from table_lines(
        ("metric", "several series become one by", "a bucket shows", "step", "other names", "gauge"),
        (_detail_cells(one) for one in metrics),
    )
    yield ""


def _detail_cells(metric: Metric) -> tuple[str, ...]:
    entry = metric.entry
    return (
        code(metric.name),
        AGGREGATES[entry.aggregate],
        OVER_TIME[entry.over_time],
        f"{entry.resolution_s} s",
        code_list(entry.aliases) or "none",
        code(entry.export.name) if entry.export is not None and metric.live is not None else "none",
    )


def meaning(metric: Metric) -> str:
    """The title, the description that the catalogue has, and the metric's own cache times."""
    return f"**{metric.entry.title}.** {metric.entry.description}{cache_text(metric.entry)}"


def cache_text(entry: MetricEntry) -> str:
    """The cache times that replace those of the sources; empty if there are none."""
    own = entry.cache.model_dump(exclude_none=True) if entry.cache is not None else {}
    return f" Cache times of its own: {', '.join(f'{code(name)} {seconds:g} s' for name, seconds in own.items())}." if own else ""


def unit_text(metric: Metric) -> str:
    """The unit in words, and Grafana's id of it."""
    unit = metric.entry.unit
    return f"{UNITS[unit]} ({code(unit)})" if unit in UNITS else code(unit)


def sources_text(metric: Metric) -> str:
    """Which store answers for what."""
    parts = [("history", metric.history), ("live", metric.live)]
    found = [f"{part} {code(read.source)}" for part, read in parts if read is not None]
    fallbacks = code_list(read.source for read in metric.fallback)
    return "; ".join([*found, f"fallback {fallbacks}"] if fallbacks else found)


def _event_lines(catalogue: Catalogue) -> Iterable[str]:
    yield "## Events\n"
    yield "For annotations: `/v1/events?name=...`, or the name as an annotation's query in the JSON plugin.\n"
    yield from table_lines(
        ("event", "what it means", "labels", "source"),
        (
            (code(name), f"**{one.entry.title}.** {one.entry.description}", code_list(one.entry.labels), code(one.read.source))
            for name, one in catalogue.events.items()
        ),
    )
    yield ""


def _label_lines(catalogue: Catalogue) -> Iterable[str]:
    yield "## Labels\n"
    yield "`/v1/values?label=...` lists the values of a label.\n"
    yield from table_lines(
        ("label", "what it is", "its values"),
        (
            (
                code(name),
                one.title,
                code_list(one.values)
                or f"those that {code(one.metric or '')} has in the asked time range, and in the last day of it",
            )
            for name, one in catalogue.labels.items()
        ),
    )
    yield ""
