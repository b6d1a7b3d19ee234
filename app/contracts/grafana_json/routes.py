"""`/json` and below: the JSON plugin (simpod-json-datasource) in all its versions, and SimpleJSON. Panel data and annotations.

Discovery (metrics, variables, ad-hoc filters) is in `discovery`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.catalog import Metric
from app.catalog.entries import unknown_name_error
from app.contracts import values as grammar
from app.contracts.budget import Asked, Work, answer_in_time, writing_ms
from app.contracts.filters import Reading, Variables, equality_filter, filters
from app.contracts.grafana_json.rendering import FORMATS, JOINED_FORMATS, LEGENDS, Target, annotation_objects, render_panel
from app.contracts.ranking import parse_ranking, queries_of_now
from app.contracts.request import (
    JSON,
    body_bytes,
    body_object,
    json_array,
    json_of,
    json_response,
    parse_body,
    reject_when_all_failed,
    serving,
    time_left_s,
    unless_left,
)
from app.contracts.request_key import cuts_members, panel_key, request_key
from app.contracts.values import window_ms
from app.errors import BadQuery, BridgeError, LimitExceeded
from app.model import UNRANKED, Lane, Matcher, Notice, Query, Result
from app.query.bridge import Bridge
from app.query.events import MOST_EVENTS
from app.responses.cache import RequestKey
from app.responses.headers import result_headers

router = APIRouter(prefix="/json")

_ORDER_KEYS = frozenset(("sort", "top", "top_by"))
PAYLOAD_KEYS = ("by", "where", "step", "format", "instant", "sort", "top", "top_by", "least", "marks", "within", "legend")
#: Events only: more than this are shown in groups.
MOST_KEY = "most"
_PAYLOAD = f"an object with {', '.join(PAYLOAD_KEYS)}"
_LONGEST_ID = 200
_MOST_LABELS = 64
#: what a joined table takes for each of its series
_JOINED_SERIES_MS = 0.005
_TYPES = {"timeserie": "datapoints", "timeseries": "datapoints", "table": "table"}


@router.api_route("", methods=["GET", "HEAD"])
async def test_connection() -> Response:
    """The request of "Save & test"."""
    return json_response({"message": "the bridge is here"})


@router.post("/query")
async def query(request: Request) -> Response:
    """Panel data and native annotations: one element per series, each element has the refId of its target."""
    given = serving(request)
    text = await body_bytes(request)
    body = parse_body(request, text)
    targets = parse(given.bridge, body)
    queries = [query for target in targets for query in target.queries]
    key = None
    if not any(target.has_ages or target.is_narrowed for target in targets) and cuts_members(text, body):
        key = request_key(request.scope, lambda: panel_key(text, given.bridge.clock()))
    asked = Asked(queries, time_left_s(request), key)
    return await answer_in_time(request, asked, partial(_panel_response, request, targets, key))


async def _panel_response(request: Request, targets: Sequence[Target], key: RequestKey | None, work: Work) -> Response:
    given = serving(request)
    results = await answer(given.bridge, targets, work.left_s, work.lane)
    flat = [result for found in results for result in found]
    work.note(flat)
    # A line that tells what has failed is an answer, also where everything has.
    if not _asks_inband(request) and any(target.format != "summary" for target in targets):
        reject_when_all_failed(flat)
    answered = list(zip(targets, results, strict=True))
    # The one element of a joined table has no slices.
    joined = sum(len(result.frame.series) for target, found in answered if target.format in JOINED_FORMATS for result in found)
    expected_ms = joined * _JOINED_SERIES_MS + writing_ms(flat)
    response = await json_array(render_panel(given.bridge, answered), result_headers(flat), expected_ms)
    if key is not None and given.responses is not None:
        given.responses.keep(key.shape, flat, JSON, bytes(response.body))
    return response


def _asks_inband(request: Request) -> bool:
    """Whether errors come as notices. Plugins 0.4 to 0.6.1 show no text of an error status, so they can ask for that."""
    return "inband" in (request.query_params.get("errors"), request.headers.get("x-bridge-errors"))


@router.post("/annotations")
async def legacy_annotations(request: Request) -> Response:
    """Annotations of plugin 0.2 and SimpleJSON: a list of events."""
    given = serving(request)
    body = await body_object(request)
    annotation = object_in(body.get("annotation"), "annotation")
    name = annotation.get("query") or annotation.get("name")
    event = given.bridge.catalogue.event(str(name), "annotation.query")
    shared = _Shared.of(given.bridge, body)
    where, remarks = shared.parse_where(event.name, event.entry.labels, {})
    result = await unless_left(
        request, given.bridge.events(event.name, shared.from_ms, shared.to_ms, where, time_left_s(request))
    )
    reject_when_all_failed([result])
    return json_response(annotation_objects(result, annotation, remarks), headers=result_headers([result]))


async def answer(bridge: Bridge, targets: Sequence[Target], budget_s: float, lane: Lane = "interactive") -> list[list[Result]]:
    """The results of each target, all fetched at the same time. Raises LimitExceeded for too many metrics in total."""
    queries = [replace(query, lane=lane) for target in targets for query in target.queries]
    events = [target.event for target in targets if target.event is not None]
    happening = (bridge.events(one.metric, one.from_ms, one.to_ms, one.where, budget_s, one.ref_id) for one in events)
    found, happened = await asyncio.gather(bridge.run(queries, budget_s), asyncio.gather(*happening))
    answers, occurred = iter(found), iter(happened)
    return [_results(target, answers, occurred) for target in targets]


def _results(target: Target, answers: Iterator[Result], occurred: Iterator[Result]) -> list[Result]:
    if target.error is not None:
        return [Result(Query(target.name, 0, 1, target.ref_id), error=target.error, status="error")]
    return [next(occurred)] if target.event is not None else [next(answers) for _ in target.queries]


def parse(bridge: Bridge, body: Mapping[str, Any]) -> list[Target]:
    """The targets in the body of `/query`, without hidden ones. Raises BadQuery or LimitExceeded for errors of the whole body."""
    targets = body.get("targets")
    if not isinstance(targets, list):
        raise BadQuery(f"targets: a {type(targets).__name__} is not allowed; allowed: a list of targets")
    if len(targets) > bridge.limits.max_targets:
        raise LimitExceeded(f"targets: {len(targets)} in one request; at most {bridge.limits.max_targets} are allowed")
    shared = _Shared.of(bridge, body)
    return [shared.target(object_in(raw, f"targets[{place}]"), place) for place, raw in enumerate(targets) if not _hidden(raw)]


def _hidden(raw: Any) -> bool:
    return isinstance(raw, dict) and raw.get("hide") is True


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all targets of one body have in common."""

    bridge: Bridge
    from_ms: int
    to_ms: int
    max_points: int
    interval_ms: int | None
    ad_hoc: tuple[Matcher, ...]
    reading: Reading

    @classmethod
    def of(cls, bridge: Bridge, body: Mapping[str, Any]) -> _Shared:
        from_ms, to_ms = asked_range(body, bridge.clock())
        most = bridge.limits.max_points
        points = grammar.clamped_number(body.get("maxDataPoints"), "maxDataPoints", 1, most, most)
        interval = grammar.clamped_number(body.get("intervalMs"), "intervalMs", 0, 10**12, 0)
        reading = Reading("filters", bridge.limits, filling=Variables(body.get("scopedVars")))
        older = filters(body.get("adhocFilters"), replace(reading, field="adhocFilters"))
        ad_hoc = tuple(dict.fromkeys((*filters(body.get("filters"), reading), *older)))
        return cls(bridge, from_ms, to_ms, points, max(interval, 1000) if interval else None, ad_hoc, reading)

    def target(self, raw: Mapping[str, Any], place: int) -> Target:
        """One target. An error in it is kept in it and does not affect the others."""
        ref_id = raw.get("refId")
        ref_id = ref_id if isinstance(ref_id, str) and ref_id else chr(ord("A") + place % 26)
        if len(ref_id) > _LONGEST_ID:
            # The refId is repeated with each series.
            raise LimitExceeded(f"targets[{place}].refId: {len(ref_id)} characters; at most {_LONGEST_ID} are allowed")
        try:
            return self._parsed(raw, ref_id)
        except BridgeError as failure:
            return Target(ref_id, str(raw.get("target"))[:100], format=_joined_form(raw), error=failure)

    def _parsed(self, raw: Mapping[str, Any], ref_id: str) -> Target:
        text = raw.get("target")
        if not isinstance(text, str) or not text.strip():
            raise BadQuery(f"target: {grammar.shown_value(text)} is not allowed; allowed: a metric's name")
        names = self._names(text)
        payload = payload_of(raw)
        if len(names) == 1 and names[0] in self.bridge.catalogue.events:
            return self._event(names[0], payload, ref_id)
        metrics = [self.bridge.catalogue.metric(name, "target") for name in names]
        wanted = grammar.choice(payload.get("format"), "payload.format", FORMATS, _TYPES.get(str(raw.get("type")), "datapoints"))
        legend = grammar.choice(payload.get("legend"), "payload.legend", LEGENDS, LEGENDS[0])
        queries, remarks = [], list[Notice]()
        for metric in metrics:
            found, remark = self._query(metric, payload, ref_id)
            queries.append(found)
            remarks += remark
        marks = _wants_marks(payload, wanted)
        ranking = UNRANKED
        if wanted in JOINED_FORMATS:
            queries, ranking = queries_of_now(queries, "payload.format", wanted)
        return Target(
            ref_id,
            text,
            tuple(queries),
            wanted,
            legend,
            is_narrowed=any(query.from_ms != self.from_ms for query in queries),
            remarks=tuple(dict.fromkeys(remarks)),
            marks=marks,
            ranking=ranking,
        )

    def _names(self, text: str) -> list[str]:
        """The names of metrics or of an event in a target, with variables filled in."""
        known = self.reading.filling(text)
        return grammar.words(known if isinstance(known, list) else [known or text], "targets", self.bridge.limits.max_targets)

    def _event(self, name: str, payload: Mapping[str, Any], ref_id: str) -> Target:
        event = self.bridge.catalogue.events[name]
        refuse_unknown_keys(payload, name, event.entry.labels, (*PAYLOAD_KEYS, MOST_KEY))
        most = grammar.whole_number(payload.get(MOST_KEY), f"payload.{MOST_KEY}", 0, MOST_EVENTS, 0)
        where, remarks = self.parse_where(name, event.entry.labels, payload)
        for matcher in where:
            if matcher.label not in event.entry.labels:
                raise unknown_name_error(f"payload.where: event {name}: label", matcher.label, event.entry.labels)
        query = Query(name, self._begin_ms(payload), self.to_ms, ref_id, where=where)
        return Target(ref_id, name, format="table", event=query, most=most or None, remarks=tuple(remarks))

    def _query(self, metric: Metric, payload: Mapping[str, Any], ref_id: str) -> tuple[Query, list[Notice]]:
        refuse_unknown_keys(payload, metric.name, metric.entry.labels)
        where, remarks = self.parse_where(metric.name, metric.entry.labels, payload)
        by = payload.get("by")
        step_ms = grammar.step_ms(payload.get("step"), "payload.step")
        # A sampled metric is fetched finer than the panel's interval and then thinned, so its extremes stay.
        default_ms = None if metric.sampled else self._interval_ms(metric)
        query = Query(
            metric.name,
            self._begin_ms(payload),
            self.to_ms,
            ref_id,
            step_ms=step_ms or default_ms,
            exact=payload.get("step") == grammar.RANGE,
            max_points=self.max_points,
            by=tuple(grammar.words(by if isinstance(by, list) else [by], "payload.by", _MOST_LABELS)),
            where=where,
            instant=grammar.flag(payload.get("instant"), "payload.instant"),
            ranking=UNRANKED if _ORDER_KEYS.isdisjoint(payload) else parse_ranking(payload.get, "payload."),
            least=grammar.whole_number(payload.get("least"), "payload.least", 0, 10**9, 0),
        )
        return query, remarks

    def _begin_ms(self, payload: Mapping[str, Any]) -> int:
        """Where the target's window begins: where the panel's does, or later if only its newest part is asked for (`within`)."""
        length_ms = grammar.duration_ms(payload.get("within"), "payload.within")
        return self.from_ms if length_ms is None else max(self.from_ms, self.to_ms - length_ms)

    def _interval_ms(self, metric: Metric) -> int | None:
        """The panel's interval, raised to the metric's resolution. There is no remark on that: no person chose the interval."""
        finest_ms = metric.entry.resolution_s * 1000
        return None if self.interval_ms is None else -(-self.interval_ms // finest_ms) * finest_ms

    def parse_where(
        self, name: str, labels: Sequence[str], payload: Mapping[str, Any]
    ) -> tuple[tuple[Matcher, ...], list[Notice]]:
        """The target's filters and the ad-hoc filters whose label it has. A remark names each other ad-hoc filter."""
        apply = [matcher for matcher in self.ad_hoc if matcher.label in labels]
        others = dict.fromkeys(matcher.label for matcher in self.ad_hoc if matcher.label not in labels)
        remarks = [Notice("info", f"the filter on {label} does not apply to {name}") for label in others]
        own = [*filters(payload.get("where"), replace(self.reading, field="payload.where"))]
        for label in labels:
            if label in payload and label not in PAYLOAD_KEYS:
                value = payload[label]
                matcher = equality_filter(
                    label, value if isinstance(value, list) else [value], replace(self.reading, field=f"payload.{label}")
                )
                own += [matcher] if matcher else []
        return tuple(dict.fromkeys((*apply, *own))), remarks


def _joined_form(raw: Mapping[str, Any]) -> str:
    """The form of a target that could not be read, where it is a part of a table of several targets."""
    with suppress(BridgeError):
        wanted = payload_of(raw).get("format")
        return wanted if wanted in JOINED_FORMATS else FORMATS[0]
    return FORMATS[0]


def _wants_marks(payload: Mapping[str, Any], form: str) -> bool:
    marks = grammar.flag(payload.get("marks"), "payload.marks")
    if marks and form == "datapoints":
        raise BadQuery("payload.marks: datapoints have no place for them; allowed: beside format table or frame")
    return marks


def payload_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload of a target: `payload`, `data` in plugin 0.2, or both together after an upgrade.

    Raises BadQuery if one of them is no object or if they contradict each other.
    """
    newer, older = _object_of(raw.get("payload"), "payload"), _object_of(raw.get("data"), "data")
    for key in newer.keys() & older.keys():
        if newer[key] != older[key]:
            raise BadQuery(
                f"payload: {key[:60]!r} differs from the one in `data` (plugin 0.2); allowed: equal values, or only `payload`"
            )
    return {**older, **newer}


def _object_of(value: Any, field: str) -> Mapping[str, Any]:
    if isinstance(value, str) and value.strip():
        value = json_of(value, field, _PAYLOAD)
    if value in (None, "", []) or (isinstance(value, str) and not value.strip()):
        return {}
    if not isinstance(value, dict):
        raise BadQuery(f"{field}: a {type(value).__name__} is not allowed; allowed: {_PAYLOAD}")
    return value


def refuse_unknown_keys(payload: Mapping[str, Any], name: str, labels: Sequence[str], keys: Sequence[str] = PAYLOAD_KEYS) -> None:
    """Raise BadQuery for an unknown payload key."""
    allowed = (*keys, *labels)
    for key in payload:
        if key not in allowed:
            raise BadQuery(f"payload: {key[:60]!r} is not known to {name}; allowed: {', '.join(allowed)}")


def asked_range(body: Mapping[str, Any], now_ms: int) -> tuple[int, int]:
    """The `range` of a body, epoch ms, by default the last hour. Raises BadQuery."""
    span = object_in(body.get("range"), "range")
    return window_ms(span.get("from"), span.get("to"), now_ms, "range.")


def object_in(value: Any, field: str) -> Mapping[str, Any]:
    """The JSON object in a field, empty if there is none. Raises BadQuery naming the field."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadQuery(f"{field}: a {type(value).__name__} is not allowed; allowed: an object")
    return value
