"""What a question costs: the bytes that its answer reads and writes, learnt from the answers to questions like it.

Questions are alike if they differ in nothing but the position of their window: all refreshes of a panel. The first one of its
kind is estimated, from how many series its metric usually has by these labels and how many points the panel asks for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from app.catalog import Catalogue
from app.model import Query, Result
from app.query.sizes import remember

#: a point in the memory (time and value), and as text with its share of keys and labels
_READ_BYTES = 16
_WRITTEN_BYTES = 25
#: the series of a metric about which nothing is known, for each label that it keeps
_SERIES_OF_A_LABEL = 25
_MOST_POINTS = 11_000
#: kinds of questions that are remembered
_MOST_KINDS = 4000
#: weight of the newest answer, where it cost less than those before
_NEWEST = 0.3


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer costs."""

    #: read and written
    bytes: int
    #: the time that it takes beside others; None where nobody knows yet
    seconds: float | None = None


class CostBook:
    """The costs of questions by their kind, the least recently asked ones forgotten first."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: OrderedDict[Hashable, Cost] = OrderedDict()
        self._requests: OrderedDict[Hashable, Cost] = OrderedDict()
        #: the series of a metric by labels, the most that were seen without a filter
        self._series: OrderedDict[tuple[str, tuple[str, ...]], int] = OrderedDict()

    def expect(self, queries: Sequence[Query]) -> Cost:
        """What all the questions together will cost."""
        costs = [self._known.get(_kind_of(query)) or Cost(self._estimate(query)) for query in queries]
        seconds = [cost.seconds for cost in costs if cost.seconds is not None]
        return Cost(sum(cost.bytes for cost in costs), max(seconds) if costs and len(seconds) == len(costs) else None)

    def note_request(self, kind: Hashable, queries: Sequence[Query]) -> None:
        """What a request of that kind asks for: `find_request` then tells its cost before it is parsed."""
        remember(self._requests, kind, self.expect(queries), _MOST_KINDS)

    def find_request(self, kind: Hashable) -> Cost | None:
        """What a request of that kind will cost; None where that is not known."""
        return self._requests.get(kind)

    def learn(self, results: Sequence[Result], written_bytes: int, seconds: float) -> None:
        """Note what the questions of one request have cost: the bytes of its body, and how long it took once it was let in."""
        shown = sum(len(result.frame) for result in results)
        for result in results:
            if result.error is not None:
                continue
            query, rows = result.query, len(result.frame)
            read = max(rows, sum(report.rows for report in result.asked))
            share = rows / shown if shown else 1 / len(results)
            self._note(_kind_of(query), Cost(read * _READ_BYTES + round(written_bytes * share), seconds))
            if not query.where:
                series = max(len(result.frame.series), result.ranked.total)
                remember(self._series, (query.metric, query.by), series, _MOST_KINDS)

    def _note(self, kind: Hashable, found: Cost) -> None:
        known = self._known.get(kind)
        if known is not None and known.seconds is not None and found.seconds is not None:
            # A cost that has risen counts at once, one that has fallen little by little.
            found = Cost(max(found.bytes, round(_mixed(known.bytes, found.bytes))), _mixed(known.seconds, found.seconds))
        remember(self._known, kind, found, _MOST_KINDS)

    def _estimate(self, query: Query) -> int:
        return self._expected_series(query) * self._expected_points(query) * (_READ_BYTES + _WRITTEN_BYTES)

    def _expected_series(self, query: Query) -> int:
        known = self._series.get((query.metric, query.by))
        series = known or max((most for (_, by), most in self._series.items() if by == query.by), default=0)
        series = series or _SERIES_OF_A_LABEL ** min(len(query.by), 2)
        named = [len(matcher.values) for matcher in query.where if matcher.operator in ("=", "=|") and matcher.label in query.by]
        return min([series, *named])

    def _expected_points(self, query: Query) -> int:
        if query.instant or query.exact:
            return 1
        metric = self._catalogue.metrics.get(self._catalogue.aliases.get(query.metric, query.metric))
        step_ms = max(query.step_ms or 0, metric.entry.resolution_s * 1000 if metric is not None else 1000)
        points = -(-(query.to_ms - query.from_ms) // step_ms)
        return max(min(points, _MOST_POINTS if query.strict else query.max_points), 1)


def _kind_of(query: Query) -> Hashable:
    """The question without the position of its window; lengths that differ by less than a tenth are one."""
    length = round(math.log2(max(query.to_ms - query.from_ms, 1)) * 8)
    return (
        query.metric,
        length,
        query.step_ms,
        query.max_points,
        query.by,
        query.where,
        query.instant,
        query.exact,
        query.strict,
        query.ranking,
    )


def _mixed(before: float, newest: float) -> float:
    return before + (newest - before) * _NEWEST
