"""`/json` and below: the JSON plugin (simpod-json-datasource) in all its versions, and SimpleJSON. Panel data and annotations.

Discovery (metrics, variables, ad-hoc filters) is in `grafana_json_discovery`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.bridge import Bridge
from app.catalog import Metric
from app.contracts import grammar
from app.contracts.deps import JSON, body_object, json_array, json_response, reject_when_all_failed, serving, unless_left
from app.contracts.grafana_json_rendering import Target, render
from app.contracts.hot import QUESTION
from app.contracts.rendering import event_rows
from app.contracts.telling import result_headers
from app.errors import BadQuery, BridgeError, LimitExceeded
from app.model import Matcher, Notice, Query, Result

router = APIRouter(prefix="/json")

_HOUR_MS = 3_600_000
PAYLOAD_KEYS = ("by", "where", "step", "format", "instant")
FORMATS = ("datapoints", "frame", "table")
_TYPES = {"timeserie": "datapoints", "timeseries": "datapoints", "table": "table"}


@router.api_route("", methods=["GET", "HEAD"])
async def test_connection() -> Response:
    """What "Save & test" asks for."""
    return json_response({"message": "the bridge is here"})


@router.post("/query")
async def query(request: Request) -> Response:
    """Panel data and native annotations: one element per series, every element with its target's refId."""
    given = serving(request)
    body = await body_object(request)
    inband = _asks_inband(request)
    targets = parse(given.bridge, body)
    results = await unless_left(request, answer(given.bridge, targets, given.budget_s))
    flat = [result for found in results for result in found]
    if not inband:
        reject_when_all_failed(flat)
    several = len({result.query.metric for result in flat}) > 1
    elements = (
        element
        for target, found in zip(targets, results, strict=True)
        for element in render(given.bridge, target, found, several)
    )
    response = await json_array(elements, result_headers(flat))
    if QUESTION in request.scope and given.ready is not None and all(target.format != "frame" for target in targets):
        given.ready.keep(request.scope[QUESTION].shape, flat, JSON, bytes(response.body))
    return response


def _asks_inband(request: Request) -> bool:
    """Plugins 0.4 to 0.6.1 show nothing of an error status; their data source can ask for notices instead."""
    return "inband" in (request.query_params.get("errors"), request.headers.get("x-bridge-errors"))


@router.post("/annotations")
async def legacy_annotations(request: Request) -> Response:
    """Annotations of plugin 0.2 and SimpleJSON: a list of events."""
    given = serving(request)
    body = await body_object(request)
    annotation = _object(body.get("annotation"), "annotation")
    name = annotation.get("query") or annotation.get("name")
    now_ms = given.bridge.clock()
    from_ms, to_ms = _range(body, now_ms)
    event = given.bridge.catalogue.event(str(name), "annotation.query")
    result = await unless_left(request, given.bridge.events(event.name, from_ms, to_ms, (), given.budget_s))
    reject_when_all_failed([result])
    rows = [
        {**row, "tags": (row["tags"] or "").split(",") if row["tags"] else [], "annotation": annotation}
        for row in event_rows(result)
    ]
    return json_response(rows, headers=result_headers([result]))


async def answer(bridge: Bridge, targets: Sequence[Target], budget_s: float) -> list[list[Result]]:
    """The results of each target, all asked at the same time. Raises LimitExceeded for too many metrics in all."""
    queries = [query for target in targets for query in target.queries]
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
    """The body of `/query` to targets; hidden ones are left out. Raises BadQuery or LimitExceeded for what concerns them all."""
    targets = body.get("targets")
    if not isinstance(targets, list):
        raise BadQuery(f"targets: a {type(targets).__name__} is not allowed; allowed: a list of targets")
    if len(targets) > bridge.limits.max_targets:
        raise LimitExceeded(f"targets: {len(targets)} in one request; at most {bridge.limits.max_targets} are allowed")
    shared = _Shared.of(bridge, body)
    return [shared.target(_object(raw, f"targets[{place}]"), place) for place, raw in enumerate(targets) if not _hidden(raw)]


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
    variables: Mapping[str, Any]

    @classmethod
    def of(cls, bridge: Bridge, body: Mapping[str, Any]) -> _Shared:
        from_ms, to_ms = _range(body, bridge.clock())
        most = bridge.limits.max_points
        points = grammar.whole_number(body.get("maxDataPoints"), "maxDataPoints", 1, 1_000_000, most)
        interval = grammar.whole_number(body.get("intervalMs"), "intervalMs", 0, 10**12, 0)
        ad_hoc = (*grammar.filters(body.get("filters"), "filters"), *grammar.filters(body.get("adhocFilters"), "adhocFilters"))
        variables = body.get("scopedVars")
        return cls(
            bridge,
            from_ms,
            to_ms,
            min(points, most),
            max(interval, 1000) if interval else None,
            tuple(dict.fromkeys(ad_hoc)),
            variables if isinstance(variables, dict) else {},
        )

    def target(self, raw: Mapping[str, Any], place: int) -> Target:
        """One target; what is wrong with it stays with it."""
        ref_id = raw.get("refId")
        ref_id = ref_id if isinstance(ref_id, str) and ref_id else chr(ord("A") + place % 26)
        try:
            return self._parsed(raw, ref_id)
        except BridgeError as failure:
            return Target(ref_id, str(raw.get("target"))[:100], error=failure)

    def _parsed(self, raw: Mapping[str, Any], ref_id: str) -> Target:
        text = raw.get("target")
        if not isinstance(text, str) or not text.strip():
            raise BadQuery(f"target: {str(text)[:60]!r} is not allowed; allowed: a metric's name")
        names = grammar.words([self._filled(text)])
        payload = payload_of(raw)
        if len(names) == 1 and names[0] in self.bridge.catalogue.events:
            event = Query(
                names[0], self.from_ms, self.to_ms, ref_id, where=grammar.filters(payload.get("where"), "payload.where")
            )
            return Target(ref_id, names[0], format="table", event=event)
        metrics = [self.bridge.catalogue.metric(name, "target") for name in names]
        wanted = grammar.choice(payload.get("format"), "payload.format", FORMATS, _TYPES.get(str(raw.get("type")), "datapoints"))
        queries, remarks = [], list[Notice]()
        for metric in metrics:
            found, remark = self._query(metric, payload, ref_id)
            queries.append(found)
            remarks += remark
        return Target(ref_id, text, tuple(queries), wanted, remarks=tuple(dict.fromkeys(remarks)))

    def _query(self, metric: Metric, payload: Mapping[str, Any], ref_id: str) -> tuple[Query, list[Notice]]:
        refuse_unknown_keys(payload, metric)
        apply = tuple(matcher for matcher in self.ad_hoc if matcher.label in metric.entry.labels)
        remarks = [
            Notice("info", f"the filter on {matcher.label} does not apply to {metric.name}")
            for matcher in self.ad_hoc
            if matcher.label not in metric.entry.labels
        ]
        own = [*grammar.filters(payload.get("where"), "payload.where"), *self._label_filters(payload, metric)]
        by = payload.get("by")
        step_ms = grammar.step_ms(payload.get("step"), "payload.step")
        # A sampled quantity is asked finer than the panel's interval and thinned, so that its extremes survive.
        default_ms = None if metric.sampled else self._interval_ms(metric)
        query = Query(
            metric.name,
            self.from_ms,
            self.to_ms,
            ref_id,
            step_ms=step_ms or default_ms,
            max_points=self.max_points,
            by=tuple(grammar.words(by if isinstance(by, list) else [by])),
            where=tuple(dict.fromkeys((*apply, *own))),
            instant=grammar.flag(payload.get("instant"), "payload.instant"),
        )
        return query, remarks

    def _interval_ms(self, metric: Metric) -> int | None:
        """The panel's interval as far as the metric can follow it. The panel's width asked for it, not a person: no remark."""
        finest_ms = metric.entry.resolution_s * 1000
        return None if self.interval_ms is None else -(-self.interval_ms // finest_ms) * finest_ms

    def _label_filters(self, payload: Mapping[str, Any], metric: Metric) -> list[Matcher]:
        found = []
        for label in metric.entry.labels:
            if label in payload and label not in PAYLOAD_KEYS:
                value = payload[label]
                matcher = grammar.equal(label, [self._filled(one) for one in (value if isinstance(value, list) else [value])])
                found += [matcher] if matcher else []
        return found

    def _filled(self, text: Any) -> Any:
        """A variable that the plugin left in the text, from `scopedVars`."""
        if not isinstance(text, str) or not text.startswith("$"):
            return text
        name = text.strip("${}").split(":")[0]
        scoped = self.variables.get(name)
        value = scoped.get("value") if isinstance(scoped, dict) else None
        if isinstance(value, list):
            return orjson.dumps(value).decode()
        return text if value is None else str(value)


def payload_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """A target's payload however its plugin version sends it (`data` in 0.2). Raises BadQuery for what is no object."""
    value = raw["payload"] if raw.get("payload") not in (None, "") else raw.get("data")
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise BadQuery(f"payload: {value[:60]!r} is not JSON; allowed: an object with {', '.join(PAYLOAD_KEYS)}") from None
    if value is None or value == "" or value == []:
        return {}
    if not isinstance(value, dict):
        raise BadQuery(f"payload: a {type(value).__name__} is not allowed; allowed: an object with {', '.join(PAYLOAD_KEYS)}")
    return value


def refuse_unknown_keys(payload: Mapping[str, Any], metric: Metric) -> None:
    """Raise BadQuery for a payload key that nobody reads."""
    allowed = (*PAYLOAD_KEYS, *metric.entry.labels)
    for key in payload:
        if key not in allowed:
            raise BadQuery(f"payload: {key[:60]!r} is not known to {metric.name}; allowed: {', '.join(allowed)}")


def _range(body: Mapping[str, Any], now_ms: int) -> tuple[int, int]:
    span = _object(body.get("range"), "range")
    to_ms = grammar.instant_ms(span.get("to"), "range.to", now_ms, now_ms)
    return grammar.instant_ms(span.get("from"), "range.from", now_ms, to_ms - _HOUR_MS), to_ms


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadQuery(f"{field}: a {type(value).__name__} is not allowed; allowed: an object")
    return value
