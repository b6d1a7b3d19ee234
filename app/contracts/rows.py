"""`/v1/rows` and `/alert/v1/rows`: rows for Infinity, curl, anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.catalog import parameters
from app.contracts import values as grammar
from app.contracts.budget import Asked, Work, answer_in_time
from app.contracts.cursors import read_cursor, request_fingerprint
from app.contracts.paging import Page, PageRequest, mark_as_cut, page_of, page_request, render_page
from app.contracts.params import Params, budget_s, one, params_of, queries
from app.contracts.ranking import queries_of_now
from app.contracts.request import Serving, reject_when_all_failed, serving
from app.contracts.request_key import request_key, rows_key
from app.cooperative import run_apart
from app.errors import BadQuery
from app.model import UNRANKED, Query, Ranking, Result
from app.query.bridge import Bridge
from app.responses.cache import BodySuffix, RequestKey
from app.responses.encoding import TYPES
from app.responses.headers import result_headers
from app.responses.pivot import pivot_table
from app.responses.series import metric_facts
from app.responses.summary import summary_table
from app.responses.table import Table, long_table, wide_table

router = APIRouter()

_METHODS = ["GET", "HEAD", "POST"]
#: what arranging takes for each row, and for each series whose age is shown
_ROW_MS = 0.0002
_SERIES_OF_NOW_MS = 0.005
#: the shapes that are of newest values
_SHAPES_OF_NOW = ("pivot", "summary")


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """What the caller wants: the queries, and which rows in which form."""

    queries: list[Query]
    shape: str
    wanted: PageRequest
    #: whether each row says its status, age and reason
    marks: bool = False
    #: the order of a pivot's rows; in other shapes each query has its own
    ranking: Ranking = UNRANKED
    #: whether an alert rule asks
    is_strict: bool = False

    @property
    def has_ages(self) -> bool:
        """Whether ages are among the rows, so that each response differs."""
        return self.marks or self.shape in _SHAPES_OF_NOW

    def arranging_ms(self, results: Sequence[Result]) -> float:
        """About how long it will take to arrange the rows of these results."""
        series_ms = _SERIES_OF_NOW_MS if self.has_ages else 0.0
        return sum(len(result.frame.series) * series_ms + len(result.frame) * _ROW_MS for result in results)

    def arrange(self, results: Sequence[Result]) -> tuple[Table, Sequence[Result]]:
        """All rows of the results, and the results with remarks on the arrangement."""
        by = self.queries[0].by
        if self.is_strict and not any(len(result.frame) for result in results) and self.shape != "summary":
            # A row of nulls would be an instance of an alert rule. Nothing is known, so it gets nothing.
            return long_table(results, by), results
        if self.shape == "pivot":
            return pivot_table(results, by, self.ranking)
        if self.shape == "summary":
            return summary_table(results), results
        return wide_table(results) if self.shape == "wide" else long_table(results, by, self.marks), results


@router.api_route("/v1/rows", methods=_METHODS)
async def rows(request: Request) -> Response:
    """Rows; `meta` and the headers say what is missing."""
    return await _answer_rows(request, strict=False)


@router.api_route("/alert/v1/rows", methods=_METHODS)
async def alert_rows(request: Request) -> Response:
    """Rows for alert rules: never stale, partial, thinned or cut. If that is impossible, an error."""
    return await _answer_rows(request, strict=True)


async def _answer_rows(request: Request, strict: bool) -> Response:
    given = serving(request)
    params = await params_of(request)
    asked = parse(given.bridge, params, request.headers.get("accept", ""), given.max_rows, strict)
    # Rows with ages differ in the next response.
    key = None if request.method != "GET" or strict or asked.has_ages else _key_of(request, given)
    wanted = Asked(asked.queries, budget_s(request, params), key, strict)
    return await answer_in_time(request, wanted, partial(_rows_response, request, asked, key))


def _key_of(request: Request, given: Serving) -> RequestKey | None:
    accept = request.headers.get("accept", "").encode("latin-1")
    return request_key(request.scope, lambda: rows_key(request.scope["query_string"], accept, given.bridge.clock()))


async def _rows_response(request: Request, asked: RowsRequest, key: RequestKey | None, work: Work) -> Response:
    given, strict = serving(request), asked.is_strict
    results: Sequence[Result] = await work.run(given.bridge, asked.queries)
    failures = [result.error for result in results if result.error is not None]
    if strict and failures:
        raise failures[0]
    if asked.shape != "summary":
        reject_when_all_failed(results)
    arranging_ms = asked.arranging_ms(results)
    table, results = await run_apart(partial(asked.arrange, results), arranging_ms)
    page = page_of(table, asked.wanted, asked.queries[0], strict)
    if page.cut_by_us:
        table, results = await run_apart(partial(asked.arrange, mark_as_cut(results, page)), arranging_ms)
    await asyncio.sleep(0)
    prefix, headers = await render_page(request, table, page, asked.wanted, results)
    suffix = _json_suffix(given.bridge, page) if asked.wanted.format == "json" else _no_suffix
    await asyncio.sleep(0)  # copying many megabytes takes time, too
    body = prefix + suffix(asked.queries[0].from_ms, asked.queries[0].to_ms, results)
    await asyncio.sleep(0)
    content_type = TYPES[asked.wanted.format]
    # A cursor's page depends on more than the key.
    if key is not None and given.responses is not None and page.is_whole:
        given.responses.keep(key.shape, results, content_type, prefix, suffix, headers)
    return Response(body, headers={"Cache-Control": "no-store", **result_headers(results), **headers}, media_type=content_type)


def parse(bridge: Bridge, params: Params, accept: str, max_rows: int, strict: bool) -> RowsRequest:
    """Parameters to a request. Raises BadQuery or UnknownName."""
    asked = queries(bridge, params, parameters.ROWS, strict)
    marks = grammar.flag(one(params, "marks"), "marks")
    if marks and one(params, "shape") == "wide":
        raise BadQuery("marks: not with shape=wide, whose rows hold several answers; allowed: shape=long")
    shape = grammar.choice(one(params, "shape"), "shape", ("long", "wide", *_SHAPES_OF_NOW), "long")
    ranking = UNRANKED
    if shape in _SHAPES_OF_NOW:
        asked, ranking = queries_of_now(asked, "shape", shape)
    mark = request_fingerprint(shape, marks, ranking, *[replace(query, from_ms=0, to_ms=0, ref_id="") for query in asked])
    found = page_request(params, accept, max_rows, mark)
    if not grammar.unset(one(params, "cursor")):
        cursor = read_cursor(str(one(params, "cursor")), mark)
        if strict:
            raise BadQuery("cursor: an alert rule gets all rows or an error; allowed: no cursor, or next_cursor at /v1/rows")
        asked = [replace(query, from_ms=cursor.from_ms, to_ms=cursor.to_ms) for query in asked]
        found = replace(found, after=cursor.after)
    return RowsRequest(asked, shape, found, marks, ranking, strict)


def _json_suffix(bridge: Bridge, page: Page) -> BodySuffix:
    """What follows the rows: the window as it was asked for, and the facts with their ages."""

    def render_suffix(from_ms: int, to_ms: int, results: Sequence[Result]) -> bytes:
        meta = {
            "partial": any(result.status != "fresh" for result in results),
            "from": from_ms,
            "to": to_ms,
            "total_rows": page.total_rows,
            "metrics": {result.query.metric: metric_facts(bridge.catalogue, result) for result in results},
        }
        return b',"meta":%b,"next_cursor":%b}' % (orjson.dumps(meta), orjson.dumps(page.next_cursor))

    return render_suffix


def _no_suffix(*_: object) -> bytes:
    return b""
