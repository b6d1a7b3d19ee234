"""What the bridge answers to a request before it asks a store: the real routes answer, with no store behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.types import ASGIApp, Message

from app.catalog import Catalogue
from app.config import Settings
from app.main import build_operations, compose_service
from app.operations.redis_shared_cache import SharedCacheSettings
from app.server.auth import AuthSettings
from app.sync import SyncSettings

#: A refusal is an error of the caller. Status 5xx only says that there is no store, which is expected here.
_CALLER_ERRORS = range(400, 500)
#: No stores, no keys, no other services.
_ISOLATED: Mapping[str, Any] = {
    "sources": {},
    "state": None,
    "auth": AuthSettings(),
    "tier": SharedCacheSettings(),
    "sync": SyncSettings(),
}


class DryRun:
    """A bridge with a catalogue and no stores, to see which requests it refuses."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        chosen = settings.model_copy(update=_ISOLATED)
        self.catalogue = catalogue
        self._app: ASGIApp = compose_service(chosen, build_operations(chosen, catalogue, {})).app

    async def refusal_of_rows(self, path: str, params: Mapping[str, Sequence[Any]]) -> str | None:
        """Why a GET of that path would be refused; None if it would be answered."""
        query = urlencode([(name, str(value)) for name, values in params.items() for value in values])
        return await _refusal_message(self._app, "GET", path, query.encode(), b"")

    async def refusal_of_target(self, target: Mapping[str, Any]) -> str | None:
        """Why a target of the JSON plugin would be refused."""
        body = {"targets": [{"refId": "A", **target}], "range": {"from": "now-1h", "to": "now"}}
        return await _refusal_message(self._app, "POST", "/json/query", b"", orjson.dumps(body))

    async def refusal_of_variable(self, payload: Any) -> str | None:
        """Why the JSON plugin's query for a variable's values would be refused."""
        return await _refusal_message(self._app, "POST", "/json/variable", b"", orjson.dumps({"payload": payload}))


async def _refusal_message(app: ASGIApp, method: str, path: str, query: bytes, body: bytes) -> str | None:
    sent: list[Message] = []
    parts = [body]

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()  # the caller does not disconnect
        return {"type": "http.request", "body": parts.pop(), "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"check"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)
    if sent[0]["status"] not in _CALLER_ERRORS:
        return None
    found: str = orjson.loads(b"".join(message.get("body", b"") for message in sent[1:]))["error"]["message"]
    return found
