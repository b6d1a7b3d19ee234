"""Refusing requests before they cost anything: uvicorn's HTTP protocol, with one look at the admission before it parses.

A refusal through the application costs a scope, a task and two ASGI messages, a quarter of a cached answer; under three times the
load that can be served those quarters are most of the processor. Here it is one look at the bytes and one write of bytes that are
ready.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.admission import Admission, lane_of
from app.contracts.deps import error_response
from app.errors import TooBusy
from app.one_write import OneWrite

_FIRST_LINE = re.compile(rb"(?:GET|HEAD|POST|OPTIONS) (/[^ ?\r\n]*)[^ \r\n]* HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9}) *(?=\r\n)", re.IGNORECASE)
#: What makes a request more than its head and a body of the stated length.
_MORE = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade|connection: *close)", re.IGNORECASE)


def whole_request(data: bytes) -> str | None:
    """The path, where the bytes are exactly one plain request, head and body; None where that takes a parser to tell."""
    first = _FIRST_LINE.match(data)
    head, ended, body = data.partition(b"\r\n\r\n")
    if first is None or not ended or _MORE.search(head):
        return None
    lengths = _LENGTH.findall(head + b"\r\n")
    if len(lengths) > 1 or len(body) != (int(lengths[0]) if lengths else 0):
        return None
    return first[1].decode("ascii", "replace")


class Shedding(HttpToolsProtocol):
    """Answers 429 itself where there is no room; all else is uvicorn's (what it lets through, `main` looks at once more)."""

    admission: ClassVar[Admission]
    #: the refusal before and after the headers that the server adds
    first: ClassVar[bytes]
    rest: ClassVar[bytes]

    _between = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        """A client is here."""
        super().connection_made(transport)
        self.transport = OneWrite(transport, self.loop)

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        if self.admission.full and self._between and self._refuse(data):
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request has begun, and is the parser's until it is complete."""
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """The next bytes are another request's."""
        super().on_message_complete()
        self._between = True

    def _refuse(self, data: bytes) -> bool:
        cycle: Any = self.cycle
        if self.pipeline or (cycle is not None and not cycle.response_complete):
            return False  # a pipelining client's requests must be answered in order
        path = whole_request(data)
        lane = lane_of(path) if path is not None else None
        if lane is None or not self.admission.refuses(lane):
            return False
        added = b"".join(name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers)
        self.transport.write(b"%b%b%b" % (self.first, added, self.rest if data[:4] != b"HEAD" else b"\r\n"))
        self.admission.refused()
        return True


def protocol(admission: Admission) -> type[HttpToolsProtocol]:
    """The protocol class for `uvicorn.Config(http=...)`."""
    refusal = error_response(TooBusy("too many requests are under way; try again in a second"))
    head = b"".join(name + b": " + value + b"\r\n" for name, value in refusal.raw_headers)
    first, rest = b"HTTP/1.1 429 Too Many Requests\r\n" + head, b"\r\n" + bytes(refusal.body)
    return type("SheddingHere", (Shedding,), {"admission": admission, "first": first, "rest": rest})
