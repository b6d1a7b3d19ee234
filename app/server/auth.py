"""Who may ask: API keys, of which the configuration holds the SHA-256 only.

A key is random text (`bridge key NAME`), so its plain hash gives nothing away, and looking up a hash does not show how much of a
guess was right. A key comes as `Authorization: Bearer <key>`, or as the password of Basic.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from pydantic import AwareDatetime, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from app.contracts.budget import KEY_NAME
from app.contracts.request import error_response
from app.contracts.request_key import INSPECTION, Inspection
from app.documents.schema import Name, Strict
from app.errors import NotAllowed
from app.model import Clock
from app.telemetry import Telemetry

#: Others judge this replica by these; they need no key and give nothing away.
_OPEN = frozenset(("/livez", "/readyz"))
_PREFIX = "tdsb_"
_RANDOM_BYTES = 32


class KeySettings(Strict):
    """One key. With two of them a key can be changed without a gap."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key, in hex; `bridge key NAME` prints it")
    expires: AwareDatetime | None = Field(None, description="when the key stops working, with a zone: 2027-01-31T00:00:00Z")


class AuthSettings(Strict):
    """Who may ask. Without keys anyone may ask; then the bridge listens on this machine only."""

    keys: dict[Name, KeySettings] = Field(default_factory=dict, description="the accepted keys, by a name of your choice")
    open: bool = Field(False, description="true: listen beyond this machine without any key")


def new_key() -> tuple[str, str]:
    """A key, and its SHA-256 for the configuration."""
    key = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return key, hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """The keys that are accepted."""

    def __init__(self, keys: Mapping[str, KeySettings], clock: Clock) -> None:
        self._clock = clock
        self._known = {bytes.fromhex(key.sha256): (name, _end_ms(key.expires)) for name, key in keys.items()}

    def find_name(self, authorization: bytes | None) -> str | None:
        """The name of the key in an Authorization header (None: without one); None where the request may not be answered.

        Without any keys everybody may ask, and has an empty name.
        """
        if not self._known:
            return ""
        if authorization is None:
            return None
        name, end_ms = self._known.get(hashlib.sha256(_key_in(authorization)).digest(), (None, 0.0))
        return name if self._clock() < end_ms else None


def _end_ms(expires: datetime | None) -> float:
    return expires.astimezone(UTC).timestamp() * 1000 if expires is not None else float("inf")


def _key_in(authorization: bytes) -> bytes:
    scheme, _, given = authorization.partition(b" ")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return given.strip() if scheme.lower() == b"bearer" else b""


class AuthMiddleware:
    """Plain ASGI around the routes: without an admitted key, 401 (403 to the JSON plugin) to everything but the probes.

    A browser's OPTIONS request, which finds out what is allowed, never carries a key.
    """

    def __init__(self, app: ASGIApp, keys: Keys, telemetry: Telemetry) -> None:
        self._app = app
        self._keys = keys
        self._refused = telemetry.unauthenticated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in _OPEN or scope["method"] == "OPTIONS":
            await self._app(scope, receive, send)
            return
        given = _authorization(scope["headers"])
        inspection: Inspection | None = scope.get(INSPECTION)
        # The protocol has checked the key of a whole request already.
        name = inspection.key_name if inspection is not None else self._keys.find_name(given)
        if name is not None:
            scope[KEY_NAME] = name
            await self._app(scope, receive, send)
            return
        self._refused.inc()
        wrong = "is not known, or has expired" if given is not None else "is needed"
        failure = NotAllowed(f"Authorization: a key {wrong}; allowed: Bearer <key>, or Basic with the key as its password")
        response = error_response(failure, {"WWW-Authenticate": "Bearer"})
        if scope["path"].startswith("/json"):
            response.status_code = 403  # Grafana's data source proxy shows nothing of a 401
        await response(scope, receive, send)


def _authorization(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    return next((value for name, value in headers if name == b"authorization"), None)
