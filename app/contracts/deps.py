"""What all contracts share: the bridge, bodies of any kind, the all-failed rule, the headers, leaving callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.bridge import Bridge
from app.contracts.ready import Ready
from app.contracts.rendering import json_text
from app.errors import BadQuery, BodyTooLarge, BridgeError
from app.model import Result
from app.turns import gently

JSON = "application/json"

#: what goes along with a status
_TOLD = {429: {"Retry-After": "1"}, 503: {"Retry-After": "5"}, 408: {"Connection": "close"}, 431: {"Connection": "close"}}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Serving:
    """What the contracts are given: the bridge and the limits of one request."""

    bridge: Bridge
    budget_s: float = 4.8
    max_body_bytes: int = 4 << 20
    max_rows: int = 100_000
    ready: Ready | None = None


def serving(request: Request) -> Serving:
    """The Serving that `main` put on the application."""
    return cast("Serving", request.app.state.serving)


async def body_bytes(request: Request) -> bytes:
    """The whole body, without a byte-order mark. Raises BodyTooLarge as soon as it is over the limit."""
    most = serving(request).max_body_bytes
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise BodyTooLarge(f"body: over {most} bytes; at most {most} bytes are allowed")
        chunks.append(chunk)
    return b"".join(chunks).removeprefix(b"\xef\xbb\xbf").strip()


async def body_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object whatever its declared content type; an absent body is an empty object. Raises BadQuery."""
    raw = await body_bytes(request)
    if not raw:
        return {}
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/"):
        raise BadQuery("body: multipart/form-data is not accepted; use body type raw (JSON) or x-www-form-urlencoded")
    # What begins like JSON is JSON: curl's -d declares everything a form.
    if content_type.startswith("application/x-www-form-urlencoded") and raw[:1] not in b"{[":
        return _form(raw)
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        raise BadQuery(f"body: not JSON: {problem}") from problem
    if not isinstance(parsed, dict):
        raise BadQuery(f"body: a JSON {type(parsed).__name__} is not allowed; allowed: a JSON object")
    return parsed


def _form(raw: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000):
        fields.setdefault(name, []).append(value)
    return fields


async def unless_left(request: Request, work: Awaitable[_T]) -> _T:
    """The work's result; when the caller leaves before, the work is cancelled (down to the sources) and ClientDisconnect raised.

    The body must have been read: what comes next on the channel is then the caller's leaving.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        leaving.cancel()
        task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def reject_when_all_failed(results: Sequence[Result]) -> None:
    """Raise the first error when there is nothing at all to show."""
    if results and all(result.error is not None for result in results):
        raise cast("BridgeError", results[0].error)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; NaN and infinity become null."""
    return _json(json_text(content), status, headers)


async def json_array(elements: Iterable[bytes], headers: dict[str, str]) -> Response:
    """A JSON answer of many elements, each made in its turn, with others in between."""
    pieces = [b"["]
    for element in await gently(elements):
        pieces += (element, b",")
    pieces[-1] = b"]" if len(pieces) > 1 else b"[]"
    return _json(b"".join(pieces), 200, headers)


def _json(text: bytes, status: int, headers: dict[str, str] | None) -> Response:
    return Response(text, status, {"Cache-Control": "no-store", **(headers or {})}, media_type=JSON)


def error_response(failure: BridgeError, headers: dict[str, str] | None = None) -> Response:
    """The one shape of every error body; Grafana shows `message`, its connection test `error`."""
    content = {"message": failure.message, "error": {"code": failure.code, "message": failure.message}}
    return json_response(content, failure.status, {**_TOLD.get(failure.status, {}), **(headers or {})})
