"""Parses the parameters of the `/v1` routes, from a query string, a form or a JSON body alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from app.catalog import parameters
from app.contracts import values as grammar
from app.contracts.filters import Reading, equality_filter, filters
from app.contracts.ranking import parse_ranking
from app.contracts.request import body_object, pairs_of, serving, time_left_s
from app.contracts.values import window_ms
from app.documents.nearest import nearest_names
from app.errors import BadQuery, LimitExceeded
from app.model import Matcher, Query
from app.query.bridge import Bridge

Params = Mapping[str, Sequence[Any]]

#: The most labels that one answer keeps, and the most parameters of one request.
_MOST_LABELS = 64
_MOST_PARAMETERS = 200
_LONGEST_ID = 200
_MOST_ANSWERS = 1_000_000_000


async def params_of(request: Request) -> dict[str, list[Any]]:
    """Every parameter with its values: from the query string and, for POST, then from the body."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs_of(request.scope["query_string"]):
        found.setdefault(name, []).append(value)
    if request.method == "POST":
        for name, value in (await body_object(request)).items():
            found.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return found


def one(params: Params, name: str) -> Any:
    """The value of a parameter (the last one wins); None if it is absent."""
    values = params.get(name, ())
    return values[-1] if values else None


def budget_s(request: Request, params: Params) -> float:
    """What is left of the time for the answer: the limit of the bridge, or less if the caller asks for less. Raises BadQuery."""
    most_s, asked = serving(request).budget_s, one(params, "timeout")
    if grammar.unset(asked):
        return time_left_s(request)
    try:
        wanted_s = float(str(asked)[:60].removesuffix("s")) if isinstance(asked, str | int | float) else 0.0
    except ValueError:
        wanted_s = 0.0
    if not 0 < wanted_s <= 3600:
        raise BadQuery(
            f"timeout: {grammar.shown_value(asked)} is not allowed; allowed: seconds above 0 "
            f"(the bridge's own limit is {most_s:g})"
        )
    return time_left_s(request, min(wanted_s, most_s))


@dataclass(frozen=True, slots=True)
class Window:
    """The requested window, epoch ms."""

    from_ms: int
    to_ms: int


def window_of(params: Params, now_ms: int) -> Window:
    """`from` and `to`, by default the last hour. Raises BadQuery."""
    return Window(*window_ms(one(params, "from"), one(params, "to"), now_ms))


def ref_id_of(params: Params) -> str:
    """The `refId` of the caller. Its length is limited, because each series repeats it. Raises LimitExceeded."""
    found = str(one(params, "refId") or "A")
    if len(found) > _LONGEST_ID:
        raise LimitExceeded(f"refId: {len(found)} characters; at most {_LONGEST_ID} are allowed")
    return found


def queries(bridge: Bridge, params: Params, more: Sequence[str] = (), strict: bool = False) -> list[Query]:
    """One Query per metric. `more` are further parameters of the route.

    Raises BadQuery, LimitExceeded or UnknownName, naming the parameter.
    """
    limits, catalogue = bridge.limits, bridge.catalogue
    metrics = grammar.words(params.get("metric", ()), "targets", limits.max_targets)
    labels = list(catalogue.labels_of(metrics))
    refuse_unknown(params, (*parameters.QUERY, *more), labels if metrics else catalogue.labels, strict)
    if not metrics:
        raise BadQuery("metric: is missing; allowed: one or several names of /v1/metrics")
    asked = window_of(params, bridge.clock())
    shared = Query(
        "",
        asked.from_ms,
        asked.to_ms,
        ref_id=ref_id_of(params),
        step_ms=grammar.step_ms(one(params, "step")),
        exact=one(params, "step") == grammar.RANGE,
        max_points=grammar.clamped_number(one(params, "maxDataPoints"), "maxDataPoints", 1, limits.max_points, limits.max_points),
        by=tuple(grammar.words(params.get("by", ()), "by", _MOST_LABELS)),
        where=parse_matchers(bridge, params, labels, strict),
        instant=grammar.flag(one(params, "instant"), "instant"),
        strict=strict,
        ranking=parse_ranking(lambda name: one(params, name), strict=strict),
        least=grammar.whole_number(one(params, "least"), "least", 0, _MOST_ANSWERS, 0),
    )
    return [replace(shared, metric=metric) for metric in metrics]


def parse_matchers(bridge: Bridge, params: Params, labels: Iterable[str], strict: bool = False) -> tuple[Matcher, ...]:
    """The filters in `where` and in parameters named after labels (`account=A1,A2`, `var-account=A1`).

    Raises BadQuery or LimitExceeded.
    """
    reading = Reading("where", bridge.limits, strict)
    where = params.get("where", ())
    if len(where) > bridge.limits.max_filters:
        raise LimitExceeded(f"where: {len(where)} filters; at most {bridge.limits.max_filters} are allowed")
    given = [found for value in where for found in filters(value, reading)]
    for label in labels:
        values = [*params.get(label, ()), *params.get(f"var-{label}", ())]
        found = equality_filter(label, values, replace(reading, field=label)) if values else None
        given += [found] if found else []
    return tuple(dict.fromkeys(given))


def refuse_unknown(params: Params, known: Sequence[str], labels: Iterable[str], strict: bool = False) -> None:
    """Raise BadQuery for an unknown parameter: an ignored typo would give a wrong number.

    A dashboard sends all its variables (`var-...`), also those that are not labels here. An alert rule has no variables.
    """
    if len(params) > _MOST_PARAMETERS:
        raise LimitExceeded(f"parameters: {len(params)} names; at most {_MOST_PARAMETERS} are allowed")
    allowed = dict.fromkeys((*known, *labels), "")
    for name in params:
        own = name.removeprefix("var-") if strict else name
        if own in allowed or name.startswith("_") or (name.startswith("var-") and not strict):
            continue
        near = nearest_names(own, allowed, cutoff=0.7)
        near.sort(key=lambda known: sorted(known) != sorted(own))  # swapped letters are the likeliest typo
        hint = f"nearest: {', '.join(near)}" if near else f"allowed: {', '.join(allowed)}"
        raise BadQuery(f"parameter {name[:60]!r} is not known; {hint}")
