"""Parses `sort`, `top` and `top_by`: which series an answer has, and in which order. One grammar for every contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from app.contracts import values
from app.errors import BadQuery
from app.model import SORT_ORDERS, TOP_BY, UNRANKED, Query, Ranking, SortOrder, TopBy

_MOST_SERIES = 1_000_000


def parse_ranking(given: Callable[[str], Any], prefix: str = "", strict: bool = False) -> Ranking:
    """The order that a request asks for. `given` has the value of a parameter; `prefix` goes before its name in errors.

    An alert rule (`strict`) may sort, but not cut: a series that leaves the top would count as resolved. Raises BadQuery.
    """
    sort = values.choice(given("sort"), f"{prefix}sort", SORT_ORDERS, "")
    top = given("top")
    if isinstance(top, str) and top.strip().startswith("$"):
        # Without a number every series would come.
        raise BadQuery(
            f"{prefix}top: {values.shown_value(top)} is a variable that was not filled in; "
            f"allowed: a whole number from 1 to {_MOST_SERIES}"
        )
    if values.unset(top):
        top = None
    elif strict:
        raise BadQuery(
            f"{prefix}top: an alert rule gets every series, since one that leaves the top would count as resolved; "
            "allowed: a filter, or a limit in the rule"
        )
    number = None if top is None else values.whole_number(top, f"{prefix}top", 1, _MOST_SERIES, 1)
    top_by = values.choice(given("top_by"), f"{prefix}top_by", TOP_BY, "")
    if top_by and ((not sort and number is None) or sort == "label"):
        raise BadQuery(f"{prefix}top_by: {top_by} compares values; allowed: beside sort=value, sort=-value, or top without sort")
    return Ranking(cast("SortOrder | None", sort or None), number, cast("TopBy", top_by or "last"))


def queries_of_now(asked: Sequence[Query], field: str, form: str) -> tuple[list[Query], Ranking]:
    """The queries of a table of newest values, and the order of its rows: its rows are ordered and cut, not each metric's series.

    Raises BadQuery for an order that needs more than the newest values.
    """
    ranking = next((query.ranking for query in asked if query.ranking.order is not None), UNRANKED)
    if ranking.top_by != "last":
        raise BadQuery(
            f"top_by: {ranking.top_by} does not go with {field}={form}, which compares the newest values; allowed: last"
        )
    return [replace(query, instant=True, ranking=UNRANKED) for query in asked], ranking
