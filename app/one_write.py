"""An answer's head and body leave in one write, so that a process that dies between them does not leave half an answer.

HAProxy asks another replica when one dies before it has answered, but cannot take back a head that it has passed on. One system
call less for each answer comes with it.
"""

from __future__ import annotations

import asyncio
from typing import Any

#: Larger bodies do not fit the socket's buffer in one piece anyway, and a copy of them costs.
_LARGE = 1 << 16


class OneWrite(asyncio.Transport):
    """A transport whose first piece of an answer waits for the second one, at the longest until the loop's next turn."""

    __slots__ = ("_held", "_soon", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._soon = loop.call_soon
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send; an HTTP/1.1 head alone, together with what is written next."""
        if self._held:
            held, self._held = self._held, b""
            self.together(held, data)
        elif data[:5] == b"HTTP/" and data[-4:] == b"\r\n\r\n":
            self._held = bytes(data)
            self._soon(self._flush)
        else:
            self._transport.write(data)

    def together(self, head: bytes, body: bytes | bytearray | memoryview[Any]) -> None:
        """Send an answer."""
        if len(body) <= _LARGE:
            self._transport.write(b"".join((head, body)))
        else:
            self._transport.write(head)
            self._transport.write(body)

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
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

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
