"""uvicorn's HTTP protocol, with a look at each request before the parser.

- A refusal by the application costs a scope, a task and two ASGI messages: a quarter of a cached response. At three times the
  load that can be served, those quarters are most of the processor. Here a refusal is one look at the bytes and one write.
- A kept response costs less than half of what the parser, the task and the messages around it do.

What was found out about a request that goes on to the parser (`Inspection`) goes along in its ASGI scope.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar, cast

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.contracts.request import error_response
from app.contracts.request_key import INSPECTION, Inspection
from app.errors import HeadTooLarge, TooSlow
from app.responses.headers import header_lines
from app.server.coalesced_write import CoalescedWrite
from app.server.edge import Admission, lane_of, refusal
from app.server.fast_path import KEPT_ROUTES, FastPath
from app.server.plain_request import PlainRequest, read_plain_request
from app.server.unsent import UnsentBodies

#: The parser copies what it has of a header with each piece that comes: a large one keeps the event loop busy for everybody.
_MAX_HEAD_BYTES = 1 << 16
#: How far the kernel may be ahead of a reader. By itself it takes megabytes: for each reader that does not read, and in one step
#: during which everybody else waits.
_SENT_AHEAD_BYTES = 1 << 18


class BridgeProtocol(HttpToolsProtocol):
    """Sends a 429 itself where there is no room, and a kept response. Everything else is uvicorn's."""

    admission: ClassVar[Admission]
    fast_path: ClassVar[FastPath]
    unsent: ClassVar[UnsentBodies]
    #: A request may take this long to arrive: one that drips in holds a slot that others need.
    arrival_s: ClassVar[float]
    #: heads (without what the server adds) and bodies: no room, too slow, head too large
    busy: ClassVar[tuple[bytes, bytes]]
    slow: ClassVar[tuple[bytes, bytes]]
    large: ClassVar[tuple[bytes, bytes]]
    transport: CoalescedWrite

    _between_requests = True
    _in_head = False
    _head_bytes = 0
    _responded_s = 0.0
    #: when the request that is arriving began; infinite between requests
    _begun_s = float("inf")
    _inspection: Inspection | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        """Wait for the first request no longer than for the next one."""
        super().connection_made(transport)
        self.transport = CoalescedWrite(transport, self.loop)
        if (own_socket := transport.get_extra_info("socket")) is not None:
            own_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENT_AHEAD_BYTES)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self._arrival_timer = self.loop.call_later(self.arrival_s, self._check_arrival)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self.unsent.release(self.transport)
        self._arrival_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answer a whole request here if that is possible; else give it to the parser."""
        full, kept = self.admission.is_full, data.startswith(KEPT_ROUTES)
        if (full or kept) and self._is_idle():
            request = read_plain_request(bytes(data))  # Windows' event loop hands over bytearrays
            if request is not None and ((full and self._refuse(request, data)) or (kept and self._respond(request))):
                return
        super().data_received(data)
        self._inspection = None
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._close_with(self.large)

    def pause_writing(self) -> None:
        """The reader is slower than we are."""
        super().pause_writing()
        self.unsent.hold(self.transport, self.transport.being_written)

    def resume_writing(self) -> None:
        """The reader has caught up."""
        super().resume_writing()
        self.unsent.release(self.transport)

    def on_message_begin(self) -> None:
        """The parser has begun to read a request."""
        self._between_requests, self._in_head, self._head_bytes = False, True, 0
        self._begun_s = self.loop.time()
        super().on_message_begin()
        if self._inspection is not None:
            cast("dict[str, Any]", self.scope)[INSPECTION] = self._inspection

    def on_headers_complete(self) -> None:
        """The head is read. Raises ValueError, which the server answers with 400, for a head that RFC 9112 (3.2) forbids."""
        self._in_head = False
        if self.parser.get_http_version() == "1.1" and [name for name, _ in self.headers].count(b"host") != 1:
            raise ValueError("not exactly one Host header")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes belong to another request."""
        super().on_message_complete()
        self._between_requests, self._begun_s = True, float("inf")

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless a response was sent here in the meantime."""
        left_s = self._responded_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _check_arrival(self) -> None:
        """One timer for each connection: a timer for each request would cost every one of them more."""
        left_s = self._begun_s + self.arrival_s - self.loop.time()
        if left_s <= 0:
            self._close_with(self.slow)
        else:
            self._arrival_timer = self.loop.call_later(min(left_s, self.arrival_s), self._check_arrival)

    def _close_with(self, error: tuple[bytes, bytes]) -> None:
        """Nothing can be read behind half a request, so the connection is closed (which ends the application's task)."""
        cycle: Any = self.cycle
        if self.transport.is_closing():
            return
        if not self.pipeline and (cycle is None or cycle.response_complete or not cycle.response_started):
            self._write_response(*error)
        self.transport.close()

    def _is_idle(self) -> bool:
        """Whether nothing is under way on this connection: pipelined requests must be answered in their order."""
        cycle: Any = self.cycle
        done = cycle is None or cycle.response_complete
        return self._between_requests and not self.pipeline and done and not self.flow.write_paused

    def _refuse(self, request: PlainRequest, data: bytes) -> bool:
        lane = lane_of(request.path.decode())
        if lane is None or not self.admission.refuses(lane):
            return False
        head, body = self.busy
        self._write_response(head, body if data[:4] != b"HEAD" else b"")
        self.admission.count_refusal()
        return True

    def _respond(self, request: PlainRequest) -> bool:
        found = self.fast_path.respond(request)
        if isinstance(found, Inspection):
            self._inspection = found
            return False
        if self.unsent.has_room_for(found[1]):
            self._write_response(*found)
        else:
            self._write_response(*self.busy)
            self.admission.count_refusal()
        return True

    def _write_response(self, head: bytes, body: bytes, end: bytes = b"") -> None:
        """A response, with the headers that the server adds to each."""
        self.transport.write_response(b"%b%b\r\n" % (head, header_lines(self.server_state.default_headers)), body, end)
        self.server_state.total_requests += 1
        self._responded_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)


def protocol_class(
    admission: Admission, fast_path: FastPath, unsent: UnsentBodies, arrival_s: float = 10.0
) -> type[HttpToolsProtocol]:
    """The protocol class for `uvicorn.Config(http=...)`."""
    slow = TooSlow(f"the request was not there as a whole within {arrival_s:g}s; send it in one piece")
    large = HeadTooLarge(f"the request's first line and headers are over {_MAX_HEAD_BYTES} bytes")
    attributes = {
        "admission": admission,
        "fast_path": fast_path,
        "unsent": unsent,
        "arrival_s": arrival_s,
        "busy": _wire_response(b"429 Too Many Requests", refusal()),
        "slow": _wire_response(b"408 Request Timeout", error_response(slow)),
        "large": _wire_response(b"431 Request Header Fields Too Large", error_response(large)),
    }
    return type("BoundProtocol", (BridgeProtocol,), attributes)


def _wire_response(status: bytes, response: Response) -> tuple[bytes, bytes]:
    """A response's head, without what the server adds, and its body."""
    return b"HTTP/1.1 %b\r\n%b" % (status, header_lines(response.raw_headers)), bytes(response.body)
