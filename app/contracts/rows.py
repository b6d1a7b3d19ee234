"""`/v1/rows` and `/alert/v1/rows`: rows for Infinity, curl, anything."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.bridge import Bridge
from app.contracts import grammar
from app.contracts.asking import Params, budget_s, one, params_of, queries
from app.contracts.deps import JSON, reject_when_all_failed, result_headers, serving, unless_left
from app.contracts.rendering import facts
from app.contracts.table import Table, arrow_stream, csv_text, json_rows, long_table, ndjson, wide_table
from app.errors import BadQuery
from app.model import Query, Result

router = APIRouter()

_METHODS = ["GET", "HEAD", "POST"]
_OWN = ("shape", "format", "limit", "cursor", "marks")
_TYPES = {
    "json": JSON,
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
}
_ENCODERS = {"csv": csv_text, "ndjson": ndjson, "arrow": arrow_stream}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller wants: the queries, and which rows in which form."""

    queries: list[Query]
    shape: str
    format: str
    offset: int
    limit: int
    #: whether each row says its status and age
    marks: bool = False


@router.api_route("/v1/rows", methods=_METHODS)
async def rows(request: Request) -> Response:
    """Rows; whatever is missing is said in `meta` and in the headers."""
    return await _answer(request, strict=False)


@router.api_route("/alert/v1/rows", methods=_METHODS)
async def alert_rows(request: Request) -> Response:
    """Rows for alert rules: never stale, partial or thinned. What cannot be answered so is an error."""
    return await _answer(request, strict=True)


async def _answer(request: Request, strict: bool) -> Response:
    given = serving(request)
    params = await params_of(request)
    asked = parse(given.bridge, params, request.headers.get("accept", ""), given.max_rows, strict)
    results = await unless_left(request, given.bridge.run(asked.queries, budget_s(request, params)))
    failures = [result.error for result in results if result.error is not None]
    if strict and failures:
        raise failures[0]
    reject_when_all_failed(results)
    body = render(given.bridge, asked, results)
    headers = {"Cache-Control": "no-store", **result_headers(results)}
    return Response(body, headers=headers, media_type=_TYPES[asked.format])


def parse(bridge: Bridge, params: Params, accept: str, max_rows: int, strict: bool) -> Asked:
    """Parameters to what is asked. Raises BadQuery or UnknownName."""
    asked = queries(bridge, params, _OWN, strict)
    offset = 0
    if not grammar.unset(one(params, "cursor")):
        from_ms, to_ms, offset = read_cursor(str(one(params, "cursor")))
        asked = [replace(query, from_ms=from_ms, to_ms=to_ms) for query in asked]
    marks = grammar.flag(one(params, "marks"), "marks")
    if marks and one(params, "shape") == "wide":
        raise BadQuery("marks: not with shape=wide, whose rows hold several answers; allowed: shape=long")
    return Asked(
        asked,
        grammar.choice(one(params, "shape"), "shape", ("long", "wide"), "long"),
        grammar.choice(one(params, "format"), "format", tuple(_TYPES), _accepted(accept)),
        offset,
        grammar.whole_number(one(params, "limit"), "limit", 1, max_rows, max_rows),
        marks,
    )


def _accepted(accept: str) -> str:
    """The format that the Accept header names first; JSON for anything else, XML among it."""
    kinds = {kind.split(";")[0]: name for name, kind in _TYPES.items()}
    return kinds.get(accept.split(",")[0].split(";")[0].strip().lower(), "json")


def write_cursor(query: Query, offset: int) -> str:
    """Where the next page begins, and the window that all pages are cut from."""
    return base64.urlsafe_b64encode(orjson.dumps([query.from_ms, query.to_ms, offset])).decode().rstrip("=")


def read_cursor(text: str) -> tuple[int, int, int]:
    """The window and the first row of the page. Raises BadQuery."""
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        from_ms, to_ms, offset = (int(part) for part in found)
    except (ValueError, TypeError, binascii.Error):
        raise BadQuery(f"cursor: {text[:60]!r} is not one of ours; allowed: the next_cursor of the page before") from None
    if offset < 0:
        raise BadQuery(f"cursor: {text[:60]!r} is not one of ours; allowed: the next_cursor of the page before")
    return from_ms, to_ms, offset


def render(bridge: Bridge, asked: Asked, results: Sequence[Result]) -> bytes:
    """The body."""
    table = wide_table(results) if asked.shape == "wide" else long_table(results, asked.queries[0].by, asked.marks)
    page = table.page(asked.offset, asked.limit)
    if asked.format != "json":
        return _ENCODERS[asked.format](page)
    more = asked.offset + asked.limit < len(table)
    cursor = write_cursor(asked.queries[0], asked.offset + asked.limit) if more else ""
    return b'{"rows":%b,"meta":%b,"next_cursor":%b}' % (
        json_rows(page),
        orjson.dumps(_meta(bridge, asked, results, table)),
        orjson.dumps(cursor),
    )


def _meta(bridge: Bridge, asked: Asked, results: Sequence[Result], table: Table) -> dict[str, object]:
    query = asked.queries[0]
    return {
        "partial": any(result.status != "fresh" for result in results),
        "from": query.from_ms,
        "to": query.to_ms,
        "total_rows": len(table),
        "metrics": {result.query.metric: facts(bridge.catalogue, result) for result in results},
    }
