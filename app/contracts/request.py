"""What all contracts share: the bridge, the decoding of requests, the all-failed rule, JSON responses, callers that leave.

Ambiguous input (a query string, a form, JSON) is refused, naming the field: a wrong encoding or a duplicate key could otherwise
turn the request into another one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.cooperative import run_in_slices
from app.errors import BadQuery, BodyTooLarge, BridgeError, LimitExceeded
from app.model import Result
from app.query.admission import CostAdmission
from app.query.bridge import Bridge
from app.query.costs import CostBook
from app.responses.cache import ResponseCache
from app.responses.series import json_text

JSON = "application/json"
#: where the server leaves the event loop's time of a request's arrival, in the ASGI scope
ARRIVED_S = "bridge.arrived_s"
_MOST_FIELDS = 25_000
_NUL = "\0"

#: headers that go along with a status
_STATUS_HEADERS = {
    429: {"Retry-After": "1"},
    503: {"Retry-After": "5"},
    408: {"Connection": "close"},
    431: {"Connection": "close"},
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Serving:
    """What the contracts work with: the bridge, the limits of one request, and the cache of finished responses."""

    bridge: Bridge
    budget_s: float = 4.8
    max_body_bytes: int = 4 << 20
    max_rows: int = 2_000_000
    responses: ResponseCache | None = None
    admission: CostAdmission | None = None
    costs: CostBook | None = None


def serving(request: Request) -> Serving:
    """The Serving of the application that got this request."""
    return cast("Serving", request.app.state.serving)


def time_left_s(request: Request, most_s: float | None = None) -> float:
    """What is left of the time for the answer, which counts from the request's arrival: the bridge's own limit, or less."""
    now_s = asyncio.get_running_loop().time()
    limit_s = serving(request).budget_s if most_s is None else most_s
    arrived_s: float = request.scope.get(ARRIVED_S, now_s)
    return max(limit_s - (now_s - arrived_s), 0.0)


async def body_bytes(request: Request) -> bytes:
    """The whole body, without a byte-order mark. Raises BodyTooLarge as soon as it is over the limit."""
    limit = serving(request).max_body_bytes
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(f"body: over {limit} bytes; at most {limit} bytes are allowed")
        chunks.append(chunk)
    return b"".join(chunks).removeprefix(b"\xef\xbb\xbf").strip()


async def body_object(request: Request) -> dict[str, Any]:
    """The body as an object; see `parse_body`."""
    return parse_body(request, await body_bytes(request))


def parse_body(request: Request, raw: bytes) -> dict[str, Any]:
    """A body as an object, whatever its declared content type; an absent body is an empty object. Raises BadQuery."""
    if not raw:
        return {}
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/"):
        raise BadQuery("body: multipart/form-data is not accepted; use body type raw (JSON) or x-www-form-urlencoded")
    # A body that begins like JSON is JSON: curl's -d declares everything a form.
    if content_type.startswith("application/x-www-form-urlencoded") and raw[:1] not in b"{[":
        return _form_fields(raw)
    return object_of(raw)


def _form_fields(raw: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs_of(raw):
        fields.setdefault(name, []).append(value)
    return fields


def pairs_of(query: bytes) -> list[tuple[str, str]]:
    """The names and values in a query string or a form. Raises BadQuery (not UTF-8, or a NUL) or LimitExceeded."""
    if query.count(b"&") >= _MOST_FIELDS:
        raise LimitExceeded(f"parameters: {query.count(b'&') + 1} in one request; at most {_MOST_FIELDS} are allowed")
    try:
        found = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise BadQuery(f"parameter {_first_undecodable(query)!r}: not UTF-8; allowed: UTF-8, percent-encoded") from None
    if b"%00" in query or b"\0" in query:
        for name, value in found:
            if _NUL in name or _NUL in value:
                raise _refused_nul(f"parameter {name[:60]!r}")
    return found


def _first_undecodable(query: bytes) -> str:
    """The name of the first parameter that is not UTF-8."""
    for part in query.split(b"&"):
        text = part.decode("latin-1")
        if any("\ufffd" in one for pair in parse_qsl(part.decode("utf-8", "replace"), keep_blank_values=True) for one in pair):
            return text.partition("=")[0][:60]
    return ""


def _refused_nul(place: str) -> BadQuery:
    return BadQuery(f"{place}: a NUL character; allowed: text without it")


def object_of(raw: bytes) -> dict[str, Any]:
    """A body that is a JSON object. Raises BadQuery for anything else."""
    parsed = json_of(raw, "body", "a JSON object")
    if not isinstance(parsed, dict):
        raise BadQuery(f"body: a JSON {type(parsed).__name__} is not allowed; allowed: a JSON object")
    return parsed


def json_of(raw: bytes | str, field: str, allowed: str) -> Any:
    """JSON of any type. Raises BadQuery if it is not JSON, has a key twice in one object, or has a NUL."""
    try:
        parsed = orjson.loads(raw)
        json.loads(raw, object_pairs_hook=_refuse_duplicate_keys, parse_int=str)
    except orjson.JSONDecodeError as problem:
        what = f"{raw[:60]!r} is not JSON" if isinstance(raw, str) else "not JSON"
        raise BadQuery(f"{field}: {what}: {problem}; allowed: {allowed}") from problem
    except _DuplicateKey as problem:
        raise BadQuery(f"{field}: {str(problem)[:60]!r} stands in one object twice; allowed: once") from None
    except RecursionError:
        raise BadQuery(f"{field}: nested too deeply; allowed: a few hundred levels") from None
    if (b"\\u0000" if isinstance(raw, bytes) else "\\u0000") in raw:  # type: ignore[operator]  # both are of one type
        for place in _places_of_nul(parsed, field):
            raise _refused_nul(place)
    return parsed


class _DuplicateKey(Exception):
    """An object has the same key twice."""


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> None:
    """Refuse two values of one name: one of them may be a filter."""
    seen = set[str]()
    for name, _ in pairs:
        if name in seen:
            raise _DuplicateKey(name)
        seen.add(name)


def _places_of_nul(value: object, place: str) -> Iterator[str]:
    if isinstance(value, str):
        if _NUL in value:
            yield place
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _places_of_nul(name, f"{place}, a key")
            yield from _places_of_nul(inner, f"{place}.{name[:60]}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places_of_nul(inner, f"{place}[{index}]")


async def unless_left(request: Request, work: Awaitable[_T]) -> _T:
    """The work's result. If the caller leaves first, the work is cancelled (down to the sources) and ClientDisconnect is raised.

    The body must have been read: then the next message on the channel is the disconnect.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_wait_disconnect(request))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        leaving.cancel()
        task.cancel()


async def _wait_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def reject_when_all_failed(results: Sequence[Result]) -> None:
    """Raise the first error if every result is one."""
    if results and all(result.error is not None for result in results):
        raise cast("BridgeError", results[0].error)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response; NaN and infinity become null."""
    return _response_of(json_text(content), status, headers)


async def json_array(elements: Iterable[bytes], headers: dict[str, str], expected_ms: float = 0.0) -> Response:
    """A JSON response of many elements. Each is made in a step of its own, so that other requests get their turn in between."""
    pieces = [b"["]
    for element in await run_in_slices(elements, expected_ms):
        pieces += (element, b",")
    pieces[-1] = b"]" if len(pieces) > 1 else b"[]"
    return _response_of(b"".join(pieces), 200, headers)


def _response_of(text: bytes, status: int, headers: dict[str, str] | None) -> Response:
    return Response(text, status, {"Cache-Control": "no-store", **(headers or {})}, media_type=JSON)


def error_response(failure: BridgeError, headers: dict[str, str] | None = None) -> Response:
    """The one shape of every error body. Grafana shows `message`, its connection test shows `error`."""
    content = {"message": failure.message, "error": {"code": failure.code, "message": failure.message}}
    own = {"Retry-After": str(failure.retry_after_s)} if failure.retry_after_s is not None else {}
    return json_response(content, failure.status, {**_STATUS_HEADERS.get(failure.status, {}), **own, **(headers or {})})
