"""A response's head and body leave in one write, so that a process that dies in between does not leave half a response.

HAProxy asks another replica if one dies before it has answered, but cannot take back a head that it has passed on. One write also
saves a system call.
"""

from __future__ import annotations

import asyncio
from typing import Any

#: Larger bodies do not fit the socket's buffer in one piece, and copying them costs time.
LARGE_BYTES = 1 << 16


class CoalescedWrite(asyncio.Transport):
    """A transport that holds a response's head until its body is written, or until the loop's next turn."""

    __slots__ = ("_call_soon", "_held_head", "_transport", "being_written")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._held_head = b""
        #: what is given to the socket just now: the protocol is told in that moment if it does not take it
        self.being_written: bytes | bytearray | memoryview[Any] = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send the data; an HTTP/1.1 head alone is sent with what is written next."""
        if self._held_head:
            held, self._held_head = self._held_head, b""
            self.write_response(held, data)
        elif data[:5] == b"HTTP/" and data[-4:] == b"\r\n\r\n":
            self._held_head = bytes(data)
            self._call_soon(self._flush_head)
        else:
            self._write_piece(data)

    def write_response(self, head: bytes, body: bytes | bytearray | memoryview[Any], end: bytes = b"") -> None:
        """Send a response, after a held head: that is the whole response to the request before, a HEAD for example."""
        self._flush_head()
        if len(body) <= LARGE_BYTES:
            self._transport.write(b"".join((head, body, end)))
            return
        # Not copied: all who get this body share its bytes.
        for piece in (head, body, end):
            self._write_piece(piece)

    def _write_piece(self, piece: bytes | bytearray | memoryview[Any]) -> None:
        self.being_written = piece
        self._transport.write(piece)
        self.being_written = b""

    def get_write_buffer_size(self) -> int:
        """See asyncio.WriteTransport."""
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Send a held head, and close."""
        self._flush_head()
        self._transport.close()

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio.Transport."""
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio.Transport."""
        self._transport.set_protocol(protocol)

    def abort(self) -> None:
        """See asyncio.Transport."""
        self._transport.abort()

    def _flush_head(self) -> None:
        if self._held_head:
            held, self._held_head = self._held_head, b""
            self._transport.write(held)
