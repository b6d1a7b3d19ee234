"""The short way: a request whose finished answer is at hand gets it without passing the framework.

It knows the two routes whose answers are kept. What it cannot tell at one look (an odd body, a wrong time, a very large body)
goes the whole way, unchanged, and gets its error there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Message, Receive, Scope, Send

from app.contracts import grammar
from app.contracts.ready import Answer, Question, Ready
from app.contracts.zipped import Zipped
from app.errors import BadQuery
from app.telemetry import SECONDS, Telemetry

_HOUR_MS = 3_600_000
#: larger bodies are no panel's
_MOST_BODY = 1 << 16
#: bodies of this type are refused, whatever is in them
_FORM = b"multipart/"
_RAW = msgspec.Raw(b"")
#: longer ids are cut, and what no header may have is taken out
_MOST_ID = 128
_CONTROL = bytes((*range(32), 127))
#: among the encodings that a caller takes, unless it is named to be refused
_GZIP = re.compile(rb"\bgzip\b(?!\s*;\s*[qQ]=0(?:\.0*)?\s*(?:,|$))")

#: a request's headers by their names in small letters
Headers = Mapping[bytes, bytes]

#: the key of the request's Question in the ASGI scope, for whoever answers it the whole way
QUESTION = "bridge.question"


class _Window(msgspec.Struct):
    since: str | int | float | None = msgspec.field(name="from", default=None)
    to: str | int | float | None = None


class _Panel(msgspec.Struct):
    """All that `grafana_json.parse` reads of a body; a test holds the two together."""

    range: _Window | None = None
    targets: msgspec.Raw = _RAW
    maxDataPoints: msgspec.Raw = _RAW
    intervalMs: msgspec.Raw = _RAW
    filters: msgspec.Raw = _RAW
    adhocFilters: msgspec.Raw = _RAW
    scopedVars: msgspec.Raw = _RAW


PANEL_FIELDS = _Panel.__struct_encode_fields__
_panel = msgspec.json.Decoder(_Panel)


def panel_question(body: bytes, now_ms: int) -> Question | None:
    """What a body of `/json/query` asks; None where that takes a longer look."""
    try:
        panel = _panel.decode(body)
        window = panel.range or _Window()
        to_ms = grammar.instant_ms(window.to, "range.to", now_ms, now_ms)
        from_ms = grammar.instant_ms(window.since, "range.from", now_ms, to_ms - _HOUR_MS)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadQuery):
        return None
    parts = (panel.targets, panel.maxDataPoints, panel.intervalMs, panel.filters, panel.adhocFilters, panel.scopedVars)
    return Question(("panel", *[bytes(part) for part in parts]), from_ms, to_ms)


def rows_question(query: bytes, accept: bytes, now_ms: int) -> Question | None:
    """What a query string of `/v1/rows` asks; None where that takes a longer look."""
    window: dict[str, str] = {}
    rest = []
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in ("from", "to"):
            window[name] = value
        elif not name.startswith("_"):
            rest.append((name, value))
    try:
        to_ms = grammar.instant_ms(window.get("to"), "to", now_ms, now_ms)
        from_ms = grammar.instant_ms(window.get("from"), "from", now_ms, to_ms - _HOUR_MS)
    except BadQuery:
        return None
    return Question(("rows", accept, *rest), from_ms, to_ms)


def request_id(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The request's own id, as the answer says it back."""
    given = headers.get(b"x-request-id", b"")[:_MOST_ID].translate(None, _CONTROL).strip()
    return [(b"x-request-id", given)] if given else []


class Hot:
    """Answers from `ready` what it can. Callers of other origins and other methods go the whole way.

    It is asked twice: by the server's protocol with the bytes of a whole request (`wired`), which spares a hit the parser, a task
    and the messages; and as the first thing in the application (`answered`), for requests that came in pieces or several at once.
    """

    def __init__(self, ready: Ready, telemetry: Telemetry) -> None:
        self._ready = ready
        self._count = {path: _Count(telemetry, path) for path in ("/json/query", "/v1/rows")}

    def wired(self, path: bytes, query: bytes, headers: Headers, body: bytes) -> tuple[bytes, bytes] | None:
        """Head (without its last line) and body of the answer to a request for a kept route; None where none is at hand."""
        begun_s, now_ms = time.perf_counter(), self._ready.clock()
        if path == b"/json/query":
            plain = 0 < len(body) <= _MOST_BODY and not headers.get(b"content-type", b"").startswith(_FORM)
            question = panel_question(body, now_ms) if plain else None
        else:
            question = rows_question(query, headers.get(b"accept", b""), now_ms)
        answer = self._ready.find(question, now_ms) if question is not None else None
        if question is None or answer is None:
            return None
        zipped = self._zipped(question, answer, headers)
        sent = answer.body(question, now_ms, zipped)
        head = answer.wire_head(now_ms, len(sent), zipped)
        answer.sent += 1
        self._count[path.decode()].one(time.perf_counter() - begun_s)
        return head, sent

    async def answered(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """None when the request is answered. Else the channel on which the whole way finds what was read here."""
        path = scope.get("path")
        if path == "/json/query" and scope["method"] == "POST":
            return await self._panel(scope, receive, send)
        if path == "/v1/rows" and scope["method"] == "GET":
            return await self._rows(scope, receive, send)
        return receive

    async def _panel(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        begun_s = time.perf_counter()
        body, read = await _body(receive)
        if body and not any(value.startswith(_FORM) for name, value in scope["headers"] if name == b"content-type"):
            question = panel_question(body, self._ready.clock())
            if question is not None and await self._sent(question, scope, send, begun_s):
                return None
        return _again(read, receive)

    async def _rows(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        begun_s = time.perf_counter()
        # The first of several, as everywhere.
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        question = rows_question(scope["query_string"], accept, self._ready.clock())
        if question is not None and await self._sent(question, scope, send, begun_s):
            return None
        return receive

    def _zipped(self, question: Question, answer: Answer, headers: Headers) -> Zipped | None:
        accepted = headers.get(b"accept-encoding")
        return self._ready.zipped(question, answer) if accepted and _GZIP.search(accepted) else None

    async def _sent(self, question: Question, scope: Scope, send: Send, begun_s: float) -> bool:
        scope[QUESTION] = question
        now_ms, headers = self._ready.clock(), dict(scope["headers"])
        answer = self._ready.find(question, now_ms)
        if answer is None or b"origin" in headers:
            return False
        zipped = self._zipped(question, answer, headers)
        body = answer.body(question, now_ms, zipped)
        head = [*answer.head(now_ms, len(body), zipped), *request_id(headers)]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
        answer.sent += 1
        self._count[scope["path"]].one(time.perf_counter() - begun_s)
        return True


class _Count:
    """Answers by route and how long they took, added to the metrics when somebody looks."""

    def __init__(self, telemetry: Telemetry, path: str) -> None:
        self._requests, self._seconds = telemetry.http_requests.labels(path, "200"), telemetry.http_seconds.labels(path)
        self._bound_s = SECONDS[0]
        self._sent, self._quick, self._quick_s = 0, 0, 0.0
        telemetry.settlers.append(self._settle)

    def one(self, took_s: float) -> None:
        """One more."""
        self._sent += 1
        if took_s <= self._bound_s:
            self._quick += 1
            self._quick_s += took_s
        else:
            self._seconds.observe(took_s)

    def _settle(self) -> None:
        self._requests.inc(self._sent)
        # The histogram has no way to take in many at once.
        self._seconds._buckets[0].inc(self._quick)  # noqa: SLF001  as above
        self._seconds._sum.inc(self._quick_s)  # noqa: SLF001  as above
        self._sent, self._quick, self._quick_s = 0, 0, 0.0


async def _body(receive: Receive) -> tuple[bytes, list[Message]]:
    """The body, empty where it is large or not to be had; and the messages that were read."""
    body, read = b"", list[Message]()
    while len(body) <= _MOST_BODY:
        message = await receive()
        read.append(message)
        if message["type"] != "http.request":
            break
        piece = message.get("body", b"")
        body = body + piece if body else piece
        if not message.get("more_body"):
            return body, read
    return b"", read


def _again(read: list[Message], receive: Receive) -> Receive:
    """The channel with the messages that were read already before what comes next."""
    waiting = read[::-1]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received
