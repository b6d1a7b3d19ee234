"""The JSON plugin's discovery: metrics and their options, variables, ad-hoc filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.catalog import Metric
from app.contracts import values
from app.contracts.filters import Reading, as_filter_value, filters
from app.contracts.grafana_json.rendering import FORMATS, LEGENDS
from app.contracts.grafana_json.routes import asked_range
from app.contracts.request import Serving, body_object, json_of, json_response, serving, time_left_s, unless_left
from app.model import TOP_BY, Matcher
from app.query.bridge import Bridge

router = APIRouter(prefix="/json")


@router.post("/metrics")
async def list_metrics(request: Request) -> Response:
    """The metrics with the options that the query builder offers for each."""
    await body_object(request)
    catalogue = serving(request).bridge.catalogue
    listed = [_query_options(metric) for metric in catalogue.metrics.values()]
    listed += [{"value": name, "label": event.entry.title, "payloads": []} for name, event in catalogue.events.items()]
    return json_response(listed)


def _query_options(metric: Metric) -> dict[str, Any]:
    """The options of one metric. A choice of several has no values here: the editor shows and keeps several chosen values only
    where it asks for them (`/metric-payload-options`)."""
    labels = metric.entry.labels
    payloads: list[dict[str, Any]] = [{"name": "by", "label": "Keep labels", "type": "multi-select"}] if labels else []
    payloads += [{"name": label, "label": f"Only {label}", "type": "multi-select"} for label in labels]
    payloads += [
        {"name": "where", "label": "Filter", "type": "input", "placeholder": "label=value"},
        {"name": "step", "label": "Step", "type": "input", "placeholder": "auto"},
        _select("format", "Format", {one: one for one in FORMATS}),
        _select("instant", "Newest value only", {"true": "yes", "false": "no"}),
        _select("sort", "Order of the series", _SORT_WORDS),
        {"name": "top", "label": "Only the first", "type": "input", "placeholder": "all"},
        _select("top_by", "Order by the value that is", {one: one for one in TOP_BY}),
        {"name": "within", "label": "Only the newest part", "type": "input", "placeholder": "5m"},
        _select("legend", "Name by", {one: one for one in LEGENDS}),
    ]
    return {"value": metric.name, "label": metric.entry.title, "payloads": payloads}


def _select(name: str, label: str, options: Mapping[str, str]) -> dict[str, Any]:
    """An option of which one value is chosen."""
    return {
        "name": name,
        "label": label,
        "type": "select",
        "options": [{"label": shown, "value": value} for value, shown in options.items()],
    }


_SORT_WORDS = {"-value": "highest first", "value": "lowest first", "label": "by label"}


@router.post("/metric-payload-options")
async def payload_options(request: Request) -> Response:
    """The values that an option may have; none for an unknown option."""
    given = serving(request)
    body = await body_object(request)
    name = body.get("name")
    if name == "by":
        known = given.bridge.catalogue.metrics.get(_as_name(body.get("metric")))
        found = list(known.entry.labels) if known else []
    else:
        found = await _label_values(request, given, name, body)
    return json_response([{"label": value, "value": as_filter_value(value)} for value in found])


@router.post("/search")
async def search_names(request: Request) -> Response:
    """Metric names that contain the text, or the values of the label of that name (variables of plugin 0.2 and 0.3)."""
    given = serving(request)
    body = await body_object(request)
    text = body.get("target")
    wanted = text.strip().lower() if isinstance(text, str) and not values.unset(text) else ""
    if wanted in given.bridge.catalogue.labels:
        return json_response([as_filter_value(value) for value in await _label_values(request, given, wanted, body)])
    return json_response([name for name in _all_names(given.bridge) if wanted in name.lower()])


def _all_names(bridge: Bridge) -> list[str]:
    catalogue = bridge.catalogue
    return [*catalogue.metrics, *catalogue.aliases, *catalogue.events]


@router.post("/variable")
async def variable_options(request: Request) -> Response:
    """A variable's options as rows of `__text` and `__value`.

    The query is a label's name (or `label_values(account)`), `metrics` for the metric names, or JSON: `{"label": "account",
    "where": {"broker": "alpha"}}`. An unknown label has no options.
    """
    given = serving(request)
    body = await body_object(request)
    label, where = wanted_values(body.get("payload"))
    if label in ("", "metrics"):
        found = list(given.bridge.catalogue.metrics)
    else:
        narrowed = filters(where, Reading("payload.where", given.bridge.limits))
        found = await _label_values(request, given, label, body, narrowed)
    return json_response([{"__text": value, "__value": as_filter_value(value)} for value in found])


def wanted_values(payload: Any) -> tuple[str, Any]:
    """The label and the filters that a variable's payload names."""
    if isinstance(payload, str):
        payload = (
            json_of(payload, "payload", "a label's name, or an object with label and where")
            if payload.lstrip()[:1] in ("{", '"')
            else {"target": payload}
        )
    if not isinstance(payload, Mapping):
        return (payload if isinstance(payload, str) else "(none)", None)
    text = payload.get("label", payload.get("target"))
    names = values.words([text]) if isinstance(text, str) else []
    name = names[0] if names else ""
    return name.removeprefix("label_values").strip("()"), payload.get("where")


@router.post("/tag-keys")
async def tag_keys(request: Request) -> Response:
    """The labels that ad-hoc filters can use."""
    await body_object(request)
    return json_response([{"text": name, "type": "string"} for name in serving(request).bridge.catalogue.labels])


@router.post("/tag-values")
async def tag_values(request: Request) -> Response:
    """The values of one label, narrowed by the other filters; none for an unknown label."""
    given = serving(request)
    body = await body_object(request)
    others = filters(body.get("filters"), Reading("filters", given.bridge.limits))
    known = tuple(matcher for matcher in others if matcher.label in given.bridge.catalogue.labels)
    found = await _label_values(request, given, body.get("key"), body, known)
    return json_response(
        [{"text": value} | ({} if as_filter_value(value) == value else {"value": as_filter_value(value)}) for value in found]
    )


async def _label_values(
    request: Request, given: Serving, label: Any, body: Mapping[str, Any], where: tuple[Matcher, ...] = ()
) -> list[str]:
    """The values of a label in the body's range (`timeRange` in ad-hoc filters)."""
    if _as_name(label) not in given.bridge.catalogue.labels:
        return []
    from_ms, to_ms = asked_range({"range": body.get("range") or body.get("timeRange")}, given.bridge.clock())
    found, _ = await unless_left(request, given.bridge.values(label, where, time_left_s(request), from_ms, to_ms))
    return found


def _as_name(value: Any) -> str:
    return value if isinstance(value, str) else ""
