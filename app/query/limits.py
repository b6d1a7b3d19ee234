"""The limits of one request, and the checks of a query against them and against its metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from app.catalog.entries import Metric
from app.errors import BadQuery, LimitExceeded
from app.filters import accepts
from app.model import Matcher, Query, is_text

DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one request."""

    max_range_s: int = 400 * DAY_S
    max_buckets: int = 11_000
    max_points: int = 1000
    max_targets: int = 50
    max_filters: int = 32
    max_filter_values: int = 20_000
    max_text: int = 1000
    most_series: int = 20_000
    most_cells: int = 2_000_000
    #: most rows of one statement, by source
    most_rows: Mapping[str, int] = field(default_factory=dict)


def check_labels(metric: Metric, query: Query, limits: Limits) -> None:
    """Raise UnknownName for a label that the metric does not have, and as `check_filters` does."""
    metric.require_labels(query.by, "by")
    metric.require_labels((matcher.label for matcher in query.where), "where")
    check_filters(query.where, limits)


def check_least(metric: Metric, query: Query) -> None:
    """Raise BadQuery for a least number of answers where the metric does not say how many there are."""
    if query.least and not metric.counts_answers:
        raise BadQuery(f"least: {metric.name} is no average or ratio of answers; allowed: without least")


def check_filters(where: Iterable[Matcher], limits: Limits) -> None:
    """Raise BadQuery or LimitExceeded for filters that are wrong in themselves: a bad expression, too many, too long, or a text
    that cannot be stored."""
    where = tuple(where)
    if len(where) > limits.max_filters:
        raise LimitExceeded(f"where: {len(where)} filters; at most {limits.max_filters} are allowed")
    for matcher in where:
        if len(matcher.values) > limits.max_filter_values:
            raise LimitExceeded(
                f"where: {matcher.label}: {len(matcher.values)} values; at most {limits.max_filter_values} are allowed"
            )
        if any(len(value) > limits.max_text for value in matcher.values):
            raise LimitExceeded(f"where: {matcher.label}: a value is over {limits.max_text} characters")
        if not all(map(is_text, matcher.values)):
            raise BadQuery(f"where: {matcher.label}: a value has a NUL or half a surrogate pair; allowed: text in UTF-8")
        accepts(matcher)


def check_range(query: Query, limits: Limits) -> None:
    """Raise BadQuery or LimitExceeded for a window or a number of points that is not allowed."""
    if query.from_ms >= query.to_ms:
        raise BadQuery(f"from: {query.from_ms} is not before to: {query.to_ms}; allowed: from < to")
    if query.from_ms < 0:
        raise BadQuery(f"from: {query.from_ms} is before 1970; allowed: epoch ms or s, ISO 8601, now-6h")
    if query.to_ms - query.from_ms > limits.max_range_s * 1000:
        days = limits.max_range_s / DAY_S
        raise LimitExceeded(
            f"from, to: the range is {(query.to_ms - query.from_ms) / 86_400_000:.1f} days; at most {days:g} days"
        )
    if query.max_points < 1:
        raise BadQuery(f"maxDataPoints: {query.max_points} is not allowed; allowed: 1 to {limits.max_points}")
