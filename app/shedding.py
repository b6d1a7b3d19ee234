"""What is answered on the wire: uvicorn's HTTP protocol, with one look at a request before it parses.

- A refusal through the application costs a scope, a task and two ASGI messages, a quarter of a cached answer; under three times
  the load that can be served those quarters are most of the processor. Here it is one look at the bytes and one write of bytes
  that are ready.
- An answer that is ready (`contracts.ready`) costs less than half of what the parser, the task and the messages around it do.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, ClassVar, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.admission import Admission, lane_of
from app.auth import Keys
from app.contracts.deps import error_response
from app.contracts.hot import Hot, request_id
from app.contracts.telling import header_lines
from app.errors import HeadTooLarge, RequestError, TooBusy, TooSlow
from app.one_write import OneWrite

_FIRST_LINE = re.compile(rb"(?:GET|HEAD|POST|OPTIONS) (/[^ ?\r\n]*)\??([^ \r\n]*) HTTP/1\.1\r\n")
#: What makes a request more than its head and a body of the stated length.
_MORE = frozenset((b"transfer-encoding", b"expect", b"upgrade"))
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH_DIGITS = 10
#: The parser copies what it has of a header with each piece that comes: a large one keeps the event loop busy for everybody.
_MOST_HEAD = 1 << 16
#: names of headers as they came, and in small letters; callers send the same few
_NAMES: dict[bytes, bytes] = {}
_MOST_NAMES = 1000
#: the requests that may have a ready answer
_KEPT = (b"POST /json/query HTTP/1.1\r\n", b"GET /v1/rows?")


class Plain(NamedTuple):
    """One plain request: its path, its query string, its headers by their names in small letters, its body."""

    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes


def whole_request(data: bytes) -> Plain | None:
    """The bytes as exactly one plain request, head and body; None where that takes a parser to tell."""
    first = _FIRST_LINE.match(data)
    end = data.find(b"\r\n\r\n")
    if first is None or end < 0:
        return None
    begin = first.end()
    lines = data[begin:end].split(b"\r\n")
    if data.count(b"\n", begin, end) >= len(lines) or data.count(b"\r", begin, end) >= len(lines):
        return None
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        known = _NAMES.get(name) or _learnt(name)
        if known is None or not colon:
            return None
        headers[known] = value.strip()
    if len(headers) < len(lines) or not _MORE.isdisjoint(headers) or not _is_all(headers, len(data) - end - 4):
        return None
    return Plain(first[1], first[2], headers, data[end + 4 :])


def _learnt(name: bytes) -> bytes | None:
    """A header's name in small letters; None for what is no name, such as that of a line that goes on."""
    if _TOKEN.fullmatch(name) is None:
        return None
    small = name.lower()
    if len(_NAMES) < _MOST_NAMES:
        _NAMES[name] = small
    return small


def _is_all(headers: dict[bytes, bytes], length: int) -> bool:
    """Whether a body of that length is what the head announces, and the connection stays."""
    stated = headers.get(b"content-length", b"0")
    # Options may stand side by side: `close, TE` closes, too.
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return False
    return stated.isdigit() and len(stated) < _LENGTH_DIGITS and int(stated) == length


class Shedding(HttpToolsProtocol):
    """Answers 429 itself where there is no room, and what is ready; all else is uvicorn's (`main` looks at both once more)."""

    admission: ClassVar[Admission]
    hot: ClassVar[Hot]
    keys: ClassVar[Keys]
    transport: OneWrite
    #: the refusal: its head without what the server adds, and its body
    first: ClassVar[bytes]
    rest: ClassVar[bytes]
    #: so long a request may take to come in: one that drips in holds a place that others need
    whole_s: ClassVar[float]
    #: what is said to one that took longer, and to one whose head is too large
    late: ClassVar[tuple[bytes, bytes]]
    large: ClassVar[tuple[bytes, bytes]]

    _between = True
    _in_head = False
    _head_bytes = 0
    _answered_s = 0.0
    #: when the request that is coming in began; never where none is
    _begun_s = float("inf")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        """A client is here, who may say nothing no longer than between two requests."""
        super().connection_made(transport)
        self.transport = OneWrite(transport, self.loop)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self._look = self.loop.call_later(self.whole_s, self._looked)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        full, kept = self.admission.full, data.startswith(_KEPT)
        if (full or kept) and self._idle():
            request = whole_request(bytes(data))  # Windows' event loop hands over bytearrays
            if request is not None and ((full and self._refuse(request, data)) or (kept and self._served(request))):
                return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD:
                self._end(self.large)

    def on_message_begin(self) -> None:
        """A request has begun, and is the parser's until it is complete."""
        self._between, self._in_head, self._head_bytes = False, True, 0
        self._begun_s = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes are another request's."""
        super().on_message_complete()
        self._between, self._begun_s = True, float("inf")

    def timeout_keep_alive_handler(self) -> None:
        """The time is up, unless something was answered here in between."""
        left_s = self._answered_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _looked(self) -> None:
        """One timer a connection: a timer a request would cost each of them more than it does."""
        left_s = self._begun_s + self.whole_s - self.loop.time()
        if left_s <= 0:
            self._end(self.late)
        else:
            self._look = self.loop.call_later(min(left_s, self.whole_s), self._looked)

    def _end(self, told: tuple[bytes, bytes]) -> None:
        """Nothing can be read behind half a request, so the connection goes with it (and the application's task)."""
        cycle: Any = self.cycle
        if self.transport.is_closing():
            return
        if not self.pipeline and (cycle is None or cycle.response_complete or not cycle.response_started):
            self._write(*told)
        self.transport.close()

    def _idle(self) -> bool:
        """Whether nothing is under way on this connection: a pipelining client's requests must be answered in order."""
        cycle: Any = self.cycle
        return self._between and not self.pipeline and (cycle is None or cycle.response_complete) and not self.flow.write_paused

    def _refuse(self, request: Plain, data: bytes) -> bool:
        lane = lane_of(request.path.decode("ascii", "replace"))
        if lane is None or not self.admission.refuses(lane):
            return False
        self._write(self.first, self.rest if data[:4] != b"HEAD" else b"")
        self.admission.refused()
        return True

    def _served(self, request: Plain) -> bool:
        headers = request.headers
        if b"origin" in headers or not self.keys.admit(headers.get(b"authorization")):
            return False
        answer = self.hot.wired(request.path, request.query, headers, request.body)
        if answer is None:
            return False
        head, body = answer
        self._write(head + header_lines(request_id(headers)) if b"x-request-id" in headers else head, body)
        return True

    def _write(self, head: bytes, body: bytes) -> None:
        """An answer, with the headers that the server adds to each."""
        self.transport.together(b"%b%b\r\n" % (head, header_lines(self.server_state.default_headers)), body)
        self.server_state.total_requests += 1
        self._answered_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)


def protocol(admission: Admission, hot: Hot, keys: Keys, whole_s: float = 10.0) -> type[HttpToolsProtocol]:
    """The protocol class for `uvicorn.Config(http=...)`."""
    first, rest = _ready(b"429 Too Many Requests", TooBusy("too many requests are under way; try again in a second"))
    slow = TooSlow(f"the request was not there as a whole within {whole_s:g}s; send it in one piece")
    given: dict[str, Any] = {"admission": admission, "hot": hot, "keys": keys, "first": first, "rest": rest, "whole_s": whole_s}
    large = HeadTooLarge(f"the request's first line and headers are over {_MOST_HEAD} bytes")
    given |= {"late": _ready(b"408 Request Timeout", slow), "large": _ready(b"431 Request Header Fields Too Large", large)}
    return type("SheddingHere", (Shedding,), given)


def _ready(status: bytes, failure: RequestError) -> tuple[bytes, bytes]:
    """An error's head, without what the server adds, and its body."""
    answer = error_response(failure)
    return b"HTTP/1.1 %b\r\n%b" % (status, header_lines(answer.raw_headers)), bytes(answer.body)
