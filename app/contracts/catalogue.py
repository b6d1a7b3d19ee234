"""`/v1/metrics`, `/v1/values`, `/v1/events`: the catalogue, the values of a label, events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.catalog import Metric, parameters
from app.contracts import values
from app.contracts.cursors import Cursor, read_cursor, request_fingerprint, write_cursor
from app.contracts.filters import as_filter_value
from app.contracts.paging import Page, PageRequest, page_of, page_request, render_page
from app.contracts.params import Params, budget_s, one, params_of, parse_matchers, ref_id_of, refuse_unknown, window_of
from app.contracts.request import json_response, reject_when_all_failed, serving, unless_left
from app.errors import BadQuery
from app.model import Query, Result
from app.query.bridge import Bridge
from app.query.events import MOST_EVENTS
from app.responses.encoding import TYPES
from app.responses.headers import result_headers
from app.responses.series import all_notices, json_text, notice_objects
from app.responses.table import BEGINNING, event_table

router = APIRouter()

_METHODS = ["GET", "HEAD", "POST"]


@router.api_route("/v1/metrics", methods=_METHODS)
async def list_metrics(request: Request) -> Response:
    """The catalogue."""
    catalogue = serving(request).bridge.catalogue
    return json_response(
        {
            "metrics": [describe_metric(metric) for metric in catalogue.metrics.values()],
            "events": [
                {"name": name, "title": event.entry.title, "description": event.entry.description, "labels": event.entry.labels}
                for name, event in catalogue.events.items()
            ],
            "labels": [{"name": name, "title": label.title} for name, label in catalogue.labels.items()],
        }
    )


def describe_metric(metric: Metric) -> dict[str, Any]:
    """A metric as the catalogue route shows it."""
    entry = metric.entry
    described = {
        key: getattr(entry, key) for key in ("title", "description", "unit", "labels", "aggregate", "over_time", "aliases")
    }
    if entry.export is not None and entry.export.scale != 1:
        # The two figures differ in scale, so each description names the other.
        described["description"] += f" In /metrics it is {entry.export.name}: {metric.export_text()}."
    return {
        "name": metric.name,
        "group": metric.group,
        **described,
        "resolution_s": entry.resolution_s,
        "sources": {
            "history": metric.history.source if metric.history else None,
            "live": metric.live.source if metric.live else None,
            "fallback": [read.source for read in metric.fallback],
        },
    }


@router.api_route("/v1/values", methods=_METHODS)
async def list_values(request: Request) -> Response:
    """The values of a label as `[{"__text", "__value"}]`, for variables of both plugins. Never empty: Infinity refuses that."""
    bridge = serving(request).bridge
    params = await params_of(request)
    refuse_unknown(params, parameters.VALUES, bridge.catalogue.labels)
    label = one(params, "label")
    if values.unset(label):
        raise BadQuery(f"label: is missing; allowed: {', '.join(bridge.catalogue.labels)}")
    where = parse_matchers(bridge, params, bridge.catalogue.labels)
    asked = window_of(params, bridge.clock())
    work = bridge.values(str(label), where, budget_s(request, params), asked.from_ms, asked.to_ms)
    found, result = await unless_left(request, work)
    rows = [{"__text": value, "__value": as_filter_value(value)} for value in found] or [{"__text": "(none)", "__value": ""}]
    return json_response(rows, headers=result_headers([result]) if result else None)


@dataclass(frozen=True, slots=True)
class _EventsRequest:
    """The query for events, and which rows in which form."""

    query: Query
    reaching: bool
    wanted: PageRequest


@router.api_route("/v1/events", methods=_METHODS)
async def list_events(request: Request) -> Response:
    """Events (annotations) of one kind, with time, timeEnd, title, text, tags and id."""
    bridge = serving(request).bridge
    params = await params_of(request)
    asked = parse_events(bridge, params, request.headers.get("accept", ""))
    query, wanted = asked.query, asked.wanted
    work = bridge.events(
        query.metric, query.from_ms, query.to_ms, query.where, budget_s(request, params), query.ref_id, asked.reaching
    )
    result = await unless_left(request, work)
    reject_when_all_failed([result])
    table = event_table(result)
    page = _with_earlier(page_of(table, wanted, query), result, wanted)
    start, headers = await render_page(request, table, page, wanted, [result])
    tail = _event_tail(result, page) if wanted.format == "json" else b""
    headers = {"Cache-Control": "no-store", **result_headers([result]), **headers}
    return Response(start + tail, headers=headers, media_type=TYPES[wanted.format])


def parse_events(bridge: Bridge, params: Params, accept: str) -> _EventsRequest:
    """Parse the parameters. Raises BadQuery or UnknownName."""
    name = one(params, "name")
    if values.unset(name):
        refuse_unknown(params, parameters.EVENTS, bridge.catalogue.labels)
        raise BadQuery(f"name: is missing; allowed: {', '.join(bridge.catalogue.events)}")
    event = bridge.catalogue.event(str(name), "name")
    refuse_unknown(params, parameters.EVENTS, event.entry.labels)
    where = parse_matchers(bridge, params, event.entry.labels)
    for matcher in where:
        if matcher.label not in event.entry.labels:
            raise BadQuery(f"where: event {event.name} has no label {matcher.label!r}; allowed: {', '.join(event.entry.labels)}")
    reaching = values.flag(one(params, "reaching"), "reaching", True)
    mark = request_fingerprint(event.name, where, reaching)
    found, span = page_request(params, accept, MOST_EVENTS, mark), window_of(params, bridge.clock())
    query = Query(event.name, span.from_ms, span.to_ms, ref_id_of(params), where=where)
    if not values.unset(one(params, "cursor")):
        cursor = read_cursor(str(one(params, "cursor")), mark)
        query = replace(query, from_ms=cursor.from_ms, to_ms=cursor.to_ms)
        found = replace(found, after=cursor.after)
    return _EventsRequest(query, reaching, found)


def _with_earlier(page: Page, result: Result, wanted: PageRequest) -> Page:
    """The page, with a cursor to earlier events if it is the last page and the result has only the newest events."""
    from_ms, shown_from_ms = result.query.from_ms, result.range.from_ms
    if shown_from_ms <= from_ms:
        return page
    if page.next_cursor:
        return replace(page, total_rows=None)
    return replace(page, total_rows=None, next_cursor=write_cursor(wanted.mark, Cursor(from_ms, shown_from_ms, BEGINNING)))


def _event_tail(result: Result, page: Page) -> bytes:
    meta = {
        "partial": result.status != "fresh",
        "from": result.query.from_ms,
        "to": result.query.to_ms,
        "notices": notice_objects(all_notices(result)),
    }
    return b',"meta":%b,"next_cursor":%b}' % (json_text(meta), json_text(page.next_cursor))
