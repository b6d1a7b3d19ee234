"""The JSON plugin's discovery: metrics and their options, variables, ad-hoc filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.bridge import Bridge
from app.catalog import Metric
from app.contracts import grammar
from app.contracts.deps import Serving, body_object, json_response, serving, unless_left

router = APIRouter(prefix="/json")

_FORMATS = ("datapoints", "frame", "table")
_MOST = 2000


@router.post("/metrics")
async def metrics(request: Request) -> Response:
    """The metrics with the options that the query builder offers for each."""
    await body_object(request)
    catalogue = serving(request).bridge.catalogue
    listed = [_option(metric) for metric in catalogue.metrics.values()]
    listed += [{"value": name, "label": event.entry.title, "payloads": []} for name, event in catalogue.events.items()]
    return json_response(listed[:_MOST])


def _option(metric: Metric) -> dict[str, Any]:
    labels = [{"label": label, "value": label} for label in metric.entry.labels]
    payloads: list[dict[str, Any]] = (
        [{"name": "by", "label": "Keep labels", "type": "multi-select", "options": labels}] if labels else []
    )
    payloads += [{"name": label, "label": f"Only {label}", "type": "multi-select"} for label in metric.entry.labels]
    payloads += [
        {"name": "where", "label": "Filter", "type": "input", "placeholder": "label=value"},
        {"name": "step", "label": "Step", "type": "input", "placeholder": "auto"},
        {"name": "format", "label": "Format", "type": "select", "options": [{"label": one, "value": one} for one in _FORMATS]},
    ]
    return {"value": metric.name, "label": metric.entry.title, "payloads": payloads}


@router.post("/metric-payload-options")
async def payload_options(request: Request) -> Response:
    """The values that an option may have; an option that nobody knows has none."""
    given = serving(request)
    body = await body_object(request)
    name = body.get("name")
    if name == "by":
        known = given.bridge.catalogue.metrics.get(str(body.get("metric")))
        found = list(known.entry.labels) if known else []
    else:
        found = await _values(request, given, str(name), ())
    return json_response([{"label": value, "value": value} for value in found])


@router.post("/search")
async def search(request: Request) -> Response:
    """Metric names that contain the text; the values of a label when the text is its name (variables of plugin 0.2 and 0.3)."""
    given = serving(request)
    text = (await body_object(request)).get("target")
    wanted = text.strip().lower() if isinstance(text, str) and not grammar.unset(text) else ""
    if wanted in given.bridge.catalogue.labels:
        return json_response(await _values(request, given, wanted, ()))
    return json_response([name for name in _names(given.bridge) if wanted in name.lower()][:_MOST])


def _names(bridge: Bridge) -> list[str]:
    catalogue = bridge.catalogue
    return [*catalogue.metrics, *catalogue.aliases, *catalogue.events]


@router.post("/variable")
async def variable(request: Request) -> Response:
    """A variable's options as rows of `__text` and `__value`.

    The query is a label's name (or `label_values(account)`), `metrics` for the metric names, or JSON: `{"label": "account",
    "where": {"broker": "alpha"}}`. What nobody knows has no options.
    """
    given = serving(request)
    payload = (await body_object(request)).get("payload")
    label, where = wanted_values(payload)
    if label in ("", "metrics"):
        found = list(given.bridge.catalogue.metrics)
    else:
        found = await _values(request, given, label, grammar.filters(where, "payload.where"))
    return json_response([{"__text": value, "__value": value} for value in found])


def wanted_values(payload: Any) -> tuple[str, Any]:
    """The label and the filters that a variable's payload names."""
    if isinstance(payload, str):
        try:
            payload = orjson.loads(payload)
        except orjson.JSONDecodeError:
            payload = {"target": payload}
    if not isinstance(payload, Mapping):
        return (payload if isinstance(payload, str) else str(payload), None)
    text = payload.get("label", payload.get("target"))
    names = grammar.words([text]) if isinstance(text, str) else []
    name = names[0] if names else ""
    return name.removeprefix("label_values").strip("()"), payload.get("where")


@router.post("/tag-keys")
async def tag_keys(request: Request) -> Response:
    """The labels that ad-hoc filters can use."""
    await body_object(request)
    return json_response([{"text": name, "type": "string"} for name in serving(request).bridge.catalogue.labels])


@router.post("/tag-values")
async def tag_values(request: Request) -> Response:
    """The values of one label, narrowed by the other filters; a label that nobody knows has none."""
    given = serving(request)
    body = await body_object(request)
    found = await _values(request, given, str(body.get("key")), grammar.filters(body.get("filters"), "filters"))
    return json_response([{"text": value} for value in found])


async def _values(request: Request, given: Serving, label: str, where: Any) -> list[str]:
    if label not in given.bridge.catalogue.labels:
        return []
    found, _ = await unless_left(request, given.bridge.values(label, where, given.budget_s))
    return found[:_MOST]
