"""One shape for every error body; FastAPI's own is never sent."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.contracts.request import error_response
from app.errors import BadQuery, BridgeError, UnknownName


def add_error_handlers(app: FastAPI) -> None:
    """Answer every exception of the routes, and of routing itself."""
    app.add_exception_handler(BridgeError, _answer_bridge_error)
    app.add_exception_handler(HTTPException, _answer_routing_error)
    app.add_exception_handler(ClientDisconnect, _answer_disconnect)
    app.add_exception_handler(Exception, _answer_bug)


async def _answer_bridge_error(_: Request, failure: Exception) -> Response:
    assert isinstance(failure, BridgeError)  # noqa: S101  registered for this class
    return error_response(failure)


async def _answer_routing_error(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)  # noqa: S101  registered for this class
    if failure.status_code == 405:
        allowed = (failure.headers or {}).get("Allow", "")
        wrong = BadQuery(f"method {request.method} is not allowed here; allowed: {allowed}")
        response = error_response(wrong, {"Allow": allowed})
        response.status_code = 405
        return response
    return error_response(UnknownName(f"no route {request.method} {request.url.path}; docs/ask.md has the list"))


async def _answer_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _answer_bug(_: Request, __: Exception) -> Response:
    return error_response(BridgeError("internal error; see the bridge's log"))
