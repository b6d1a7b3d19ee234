"""The parameters that the `/v1` routes share, from a query string, a form or a JSON body alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from app.bridge import Bridge
from app.catalog import Catalogue
from app.contracts import grammar
from app.contracts.deps import body_object, serving
from app.errors import BadQuery, BridgeError
from app.model import Matcher, Query

Params = Mapping[str, Sequence[Any]]

_HOUR_MS = 3_600_000
_QUERY = ("metric", "from", "to", "step", "by", "where", "instant", "maxDataPoints", "refId", "timeout")


async def params_of(request: Request) -> dict[str, list[Any]]:
    """Every parameter with its values: the query string's and, for POST, the body's after them."""
    found: dict[str, list[Any]] = {}
    for name, value in request.query_params.multi_items():
        found.setdefault(name, []).append(value)
    if request.method == "POST":
        for name, value in (await body_object(request)).items():
            found.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return found


def one(params: Params, name: str) -> Any:
    """The value of a parameter that is given once (the last one wins), None when it is absent."""
    values = params.get(name, ())
    return values[-1] if values else None


def budget_s(request: Request, params: Params) -> float:
    """The time for the answer: the caller may ask for less than the bridge's own limit. Raises BadQuery."""
    most_s, asked = serving(request).budget_s, one(params, "timeout")
    if grammar.unset(asked):
        return most_s
    try:
        wanted_s = float(str(asked).removesuffix("s"))
    except ValueError:
        wanted_s = 0.0
    if not 0 < wanted_s <= 3600:
        raise BadQuery(
            f"timeout: {str(asked)[:60]!r} is not allowed; allowed: seconds above 0 (the bridge's own limit is {most_s:g})"
        )
    return min(wanted_s, most_s)


@dataclass(frozen=True, slots=True)
class Window:
    """The asked time, epoch ms."""

    from_ms: int
    to_ms: int


def window(params: Params, now_ms: int) -> Window:
    """`from` and `to`, by default the last hour. Raises BadQuery."""
    to_ms = grammar.instant_ms(one(params, "to"), "to", now_ms, now_ms)
    return Window(grammar.instant_ms(one(params, "from"), "from", now_ms, to_ms - _HOUR_MS), to_ms)


def queries(bridge: Bridge, params: Params, more: Sequence[str] = (), strict: bool = False) -> list[Query]:
    """One Query per metric. `more` are the route's own parameters. Raises BadQuery or UnknownName, naming the parameter."""
    metrics = grammar.words(params.get("metric", ()))
    if not metrics:
        raise BadQuery("metric: is missing; allowed: one or several names of /v1/metrics")
    labels = _labels(bridge.catalogue, metrics)
    refuse_unknown(params, (*_QUERY, *more), labels)
    asked, limits = window(params, bridge.clock()), bridge.limits
    shared = Query(
        "",
        asked.from_ms,
        asked.to_ms,
        ref_id=str(one(params, "refId") or "A"),
        step_ms=grammar.step_ms(one(params, "step")),
        max_points=grammar.whole_number(one(params, "maxDataPoints"), "maxDataPoints", 1, 1_000_000, limits.max_points),
        by=tuple(grammar.words(params.get("by", ()))),
        where=matchers(params, labels),
        instant=grammar.flag(one(params, "instant"), "instant"),
        strict=strict,
    )
    shared = replace(shared, max_points=min(shared.max_points, limits.max_points))
    return [replace(shared, metric=metric) for metric in metrics]


def matchers(params: Params, labels: Iterable[str]) -> tuple[Matcher, ...]:
    """`where`, and a label's own parameter (`account=A1,A2`, `var-account=A1`) as a filter. Raises BadQuery."""
    given = [found for value in params.get("where", ()) for found in grammar.filters(value)]
    for label in labels:
        values = [*params.get(label, ()), *params.get(f"var-{label}", ())]
        found = grammar.equal(label, values) if values else None
        given += [found] if found else []
    return tuple(dict.fromkeys(given))


def refuse_unknown(params: Params, known: Sequence[str], labels: Iterable[str]) -> None:
    """Raise BadQuery for a parameter that nobody reads: a typo that is ignored gives a wrong number."""
    allowed = [*known, *labels]
    for name in params:
        if name in allowed or name.startswith(("_", "var-")):
            continue
        near = difflib.get_close_matches(name, allowed, n=2, cutoff=0.6)
        hint = f"nearest: {', '.join(near)}" if near else f"allowed: {', '.join(allowed)}"
        raise BadQuery(f"parameter {name[:60]!r} is not known; {hint}")


def _labels(catalogue: Catalogue, metrics: Iterable[str]) -> list[str]:
    """The labels of the metrics that there are; one that is not known is the bridge's to refuse."""
    found: dict[str, None] = {}
    for name in metrics:
        try:
            found.update(dict.fromkeys(catalogue.metric(name).entry.labels))
        except BridgeError:
            continue
    return list(found)
