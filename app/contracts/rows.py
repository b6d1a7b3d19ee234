"""`/v1/rows` and `/alert/v1/rows`: rows for Infinity, curl, anything."""

from __future__ import annotations

import asyncio
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
from app.contracts.deps import JSON, reject_when_all_failed, serving, unless_left
from app.contracts.hot import QUESTION
from app.contracts.ready import Tail
from app.contracts.rendering import facts
from app.contracts.table import Table, arrow_stream, csv_text, json_rows, long_table, ndjson, wide_table
from app.contracts.telling import result_headers
from app.errors import BadQuery
from app.model import Query, Result
from app.turns import gently

router = APIRouter()

_METHODS = ["GET", "HEAD", "POST"]
_OWN = ("shape", "format", "limit", "cursor", "marks")
_TYPES = {
    "json": JSON,
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
}
_ENCODERS = {"json": json_rows, "csv": csv_text, "ndjson": ndjson, "arrow": arrow_stream}


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

    def more(self, table: Table) -> bool:
        """Whether there is a further page."""
        return self.offset + self.limit < len(table)

    def repeats(self, table: Table) -> bool:
        """Whether the rows of this answer say nothing of ages, and are all there are for the window."""
        return not self.marks and not self.offset and not self.more(table)


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
    table = _table(asked, results)
    await asyncio.sleep(0)
    start, tail = await _first(asked, table), _tail(given.bridge, asked, table)
    await asyncio.sleep(0)  # copying many megabytes is work, too
    body = start + tail(asked.queries[0].from_ms, asked.queries[0].to_ms, results)
    await asyncio.sleep(0)
    if QUESTION in request.scope and given.ready is not None and asked.repeats(table):
        given.ready.keep(request.scope[QUESTION].shape, results, _TYPES[asked.format], start, tail)
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


def write_cursor(from_ms: int, to_ms: int, offset: int) -> str:
    """Where the next page begins, and the window that all pages are cut from."""
    return base64.urlsafe_b64encode(orjson.dumps([from_ms, to_ms, offset])).decode().rstrip("=")


def read_cursor(text: str) -> tuple[int, int, int]:
    """The window and the first row of the page. Raises BadQuery."""
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        from_ms, to_ms, offset = (int(part) for part in found)
    except (ValueError, TypeError, binascii.Error):
        raise BadQuery(f"cursor: {text[:60]!r} is not one of ours; allowed: the next_cursor of the page before") from None
    if offset < 0 or not 0 <= from_ms <= to_ms <= grammar.MOST_MS:
        raise BadQuery(f"cursor: {text[:60]!r} is not one of ours; allowed: the next_cursor of the page before")
    return from_ms, to_ms, offset


def _table(asked: Asked, results: Sequence[Result]) -> Table:
    return wide_table(results) if asked.shape == "wide" else long_table(results, asked.queries[0].by, asked.marks)


async def _first(asked: Asked, table: Table) -> bytes:
    """The rows, which are the same for all who ask for the same buckets."""
    before = [b'{"rows":'] if asked.format == "json" else []
    return b"".join([*before, *await gently(_ENCODERS[asked.format](table.page(asked.offset, asked.limit)))])


def _tail(bridge: Bridge, asked: Asked, table: Table) -> Tail:
    """What follows the rows: the window as it was asked for, and the facts with their ages."""
    total_rows, after = len(table), asked.offset + asked.limit if asked.more(table) else 0

    def written(from_ms: int, to_ms: int, results: Sequence[Result]) -> bytes:
        meta = {
            "partial": any(result.status != "fresh" for result in results),
            "from": from_ms,
            "to": to_ms,
            "total_rows": total_rows,
            "metrics": {result.query.metric: facts(bridge.catalogue, result) for result in results},
        }
        cursor = write_cursor(from_ms, to_ms, after) if after else ""
        return b',"meta":%b,"next_cursor":%b}' % (orjson.dumps(meta), orjson.dumps(cursor))

    return written if asked.format == "json" else _nothing


def _nothing(*_: object) -> bytes:
    return b""
