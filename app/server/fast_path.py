"""The fast path: a whole request whose finished response is kept gets it before the HTTP parser.

A heavy request that would not be done in time is refused here, too, if requests like it have been answered before.

It knows the two routes whose responses are kept. What it cannot tell at one look (an odd body, a wrong time, a very large body)
goes to the contract unchanged and gets its error there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from app.contracts.request import error_response
from app.contracts.request_key import Inspection, panel_key, rows_key
from app.errors import TooBusy
from app.query.admission import Caller
from app.responses.cache import RequestKey, ResponseCache
from app.responses.headers import header_lines, request_id_headers
from app.server.auth import Keys
from app.server.plain_request import PlainRequest
from app.telemetry import RequestMetrics

#: how a request for a kept route begins
KEPT_ROUTES = (b"POST /json/query HTTP/1.1\r\n", b"GET /v1/rows?")

#: larger bodies are no panel's
_MAX_BODY_BYTES = 1 << 16
#: The contract refuses bodies of this type, whatever is in them.
_MULTIPART = b"multipart/"
#: gzip is among the encodings that a caller accepts, and not with a quality of zero
_GZIP = re.compile(rb"\bgzip\b(?!\s*;\s*[qQ]=0(?:\.0*)?\s*(?:,|$))")


class FastPath:
    """Responses from the cache, for callers whose API key is admitted. Callers of another origin get theirs from the contract."""

    def __init__(
        self,
        responses: ResponseCache,
        keys: Keys,
        metrics: RequestMetrics,
        max_body_bytes: int,
        refuse: Callable[[RequestKey, Caller], TooBusy | None] = lambda *_: None,
    ) -> None:
        self._responses = responses
        self._refuse = refuse
        self._keys = keys
        self._metrics = metrics
        self._max_body_bytes = min(max_body_bytes, _MAX_BODY_BYTES)

    def respond(self, request: PlainRequest) -> tuple[bytes, bytes, bytes] | Inspection:
        """Head (without its last line), beginning and end of the body of the kept response; if there is none, what was found out
        about the request."""
        begun_s, now_ms = time.perf_counter(), self._responses.clock()
        headers = request.headers
        key_name = self._keys.find_name(headers.get(b"authorization"))
        if key_name is None:
            return Inspection(None)
        key = self._request_key(request, now_ms)
        response = self._responses.find(key, now_ms) if key is not None and b"origin" not in headers else None
        if key is None or response is None:
            refused = self._refused(request, key, key_name, begun_s) if key is not None and b"origin" not in headers else None
            return refused or Inspection(key_name, key)
        accepted = headers.get(b"accept-encoding")
        prefix = self._responses.gzip_prefix(key, response) if accepted and _GZIP.search(accepted) else None
        body, end = response.render_body(key, now_ms, prefix)
        head = response.render_head(now_ms, len(body) + len(end), prefix is not None)
        if b"x-request-id" in headers:
            head += header_lines(request_id_headers(headers))
        response.sent += 1
        self._metrics.record(request.path.decode(), "200", time.perf_counter() - begun_s)
        return head, body, end

    def _refused(
        self, request: PlainRequest, key: RequestKey, key_name: str, begun_s: float
    ) -> tuple[bytes, bytes, bytes] | None:
        """The refusal of a heavy request that would not be done in time."""
        headers = request.headers
        failure = self._refuse(key, Caller(key_name, headers.get(b"x-dashboard-uid", b"").decode("latin-1")))
        if failure is None:
            return None
        response = error_response(failure)
        head = b"HTTP/1.1 429 Too Many Requests\r\n" + header_lines(response.raw_headers)
        if b"x-request-id" in headers:
            head += header_lines(request_id_headers(headers))
        self._metrics.record(request.path.decode(), "429", time.perf_counter() - begun_s)
        return head, bytes(response.body), b""

    def _request_key(self, request: PlainRequest, now_ms: int) -> RequestKey | None:
        if request.path == b"/v1/rows":
            return rows_key(request.query, request.headers.get(b"accept", b""), now_ms)
        if len(request.body) > self._max_body_bytes or request.headers.get(b"content-type", b"").startswith(_MULTIPART):
            return None
        return panel_key(request.body, now_ms)
