"""`/v1/metrics`, `/v1/values`, `/v1/events`: what can be asked for, the values of a label, what happened."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.catalog import Metric
from app.contracts import grammar
from app.contracts.asking import budget_s, matchers, one, params_of, refuse_unknown, window
from app.contracts.deps import json_response, reject_when_all_failed, serving, unless_left
from app.contracts.rendering import all_notices, event_rows, notice_objects
from app.contracts.telling import result_headers
from app.errors import BadQuery

router = APIRouter()

_METHODS = ["GET", "HEAD", "POST"]


@router.api_route("/v1/metrics", methods=_METHODS)
async def metrics(request: Request) -> Response:
    """The catalogue."""
    catalogue = serving(request).bridge.catalogue
    return json_response(
        {
            "metrics": [describe(metric) for metric in catalogue.metrics.values()],
            "events": [
                {"name": name, "title": event.entry.title, "description": event.entry.description, "labels": event.entry.labels}
                for name, event in catalogue.events.items()
            ],
            "labels": [{"name": name, "title": label.title} for name, label in catalogue.labels.items()],
        }
    )


def describe(metric: Metric) -> dict[str, Any]:
    """A metric as the catalogue route shows it."""
    entry = metric.entry
    return {
        "name": metric.name,
        "group": metric.group,
        **{key: getattr(entry, key) for key in ("title", "description", "unit", "labels", "aggregate", "over_time", "aliases")},
        "resolution_s": entry.resolution_s,
        "sources": {
            "history": metric.history.source if metric.history else None,
            "live": metric.live.source if metric.live else None,
            "fallback": [read.source for read in metric.fallback],
        },
    }


@router.api_route("/v1/values", methods=_METHODS)
async def values(request: Request) -> Response:
    """A label's values as `[{"__text", "__value"}]`: a variable in both plugins. Never empty: Infinity refuses an empty list."""
    bridge = serving(request).bridge
    params = await params_of(request)
    refuse_unknown(params, ("label", "where", "timeout", "refId"), bridge.catalogue.labels)
    label = one(params, "label")
    if grammar.unset(label):
        raise BadQuery(f"label: is missing; allowed: {', '.join(bridge.catalogue.labels)}")
    where = matchers(params, bridge.catalogue.labels)
    found, result = await unless_left(request, bridge.values(str(label), where, budget_s(request, params)))
    rows = [{"__text": value, "__value": value} for value in found] or [{"__text": "(none)", "__value": ""}]
    return json_response(rows, headers=result_headers([result]) if result else None)


@router.api_route("/v1/events", methods=_METHODS)
async def events(request: Request) -> Response:
    """Events (annotations) of one kind: time, timeEnd, title, text, tags, id."""
    bridge = serving(request).bridge
    params = await params_of(request)
    refuse_unknown(params, ("name", "from", "to", "where", "timeout", "refId"), bridge.catalogue.labels)
    name = one(params, "name")
    if grammar.unset(name):
        raise BadQuery(f"name: is missing; allowed: {', '.join(bridge.catalogue.events)}")
    event = bridge.catalogue.event(str(name), "name")
    where = matchers(params, event.entry.labels)
    for matcher in where:
        if matcher.label not in event.entry.labels:
            raise BadQuery(f"where: event {event.name} has no label {matcher.label!r}; allowed: {', '.join(event.entry.labels)}")
    asked = window(params, bridge.clock())
    work = bridge.events(
        event.name, asked.from_ms, asked.to_ms, where, budget_s(request, params), str(one(params, "refId") or "A")
    )
    result = await unless_left(request, work)
    reject_when_all_failed([result])
    meta = {"partial": result.status != "fresh", "notices": notice_objects(all_notices(result))}
    return json_response({"rows": event_rows(result), "meta": meta, "next_cursor": ""}, headers=result_headers([result]))
