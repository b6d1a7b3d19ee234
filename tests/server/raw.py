"""A client that sends a request's bytes as they are, in one piece or in several."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tests.contracts.app_under_test import without_ages

#: what differs between two equal responses; when a source is tried next is by the real clock
_AGES = re.compile(rb"(?i)date: [^\r]+|age_s=[0-9.]+|dur=[0-9.]+|content-length: \d+|next try in \d+s")


@dataclass(frozen=True)
class Reply:
    """A response as it came over the wire."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the first header of that name."""
        found = re.search(rb"(?im)^%b: ([^\r]*)" % name.encode(), self.head)
        return found[1].decode("latin-1") if found else None

    @property
    def comparable(self) -> tuple[int, list[bytes], Any]:
        """The response without ages and durations."""
        is_json = self.header("content-type") == "application/json" and self.body
        return (
            self.status,
            sorted(line.lower() for line in _AGES.sub(b"", self.head).split(b"\r\n")),
            without_ages(self.body) if is_json else self.body,
        )


class RawClient:
    """One connection at a time; a new one if the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, *pieces: bytes) -> Reply:
        """Send a request and read its response."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        writer = self._streams[1]
        for piece in pieces:
            writer.write(piece)
            if len(pieces) > 1:
                await asyncio.sleep(0.02)
        reply = await self.read(is_head=pieces[0].startswith(b"HEAD"))
        if (reply.header("connection") or "").lower() == "close":
            await self.close()
        return reply

    async def send_alone(self, data: bytes) -> tuple[int, list[bytes], Any] | None:
        """The first response to these bytes on a connection that ends with them; None if there is none."""
        await self.close()
        self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        self._streams[1].write(data)
        try:
            reply = await self.read(is_head=data.startswith(b"HEAD"), patience_s=5)
        except (TimeoutError, EOFError, ConnectionError):
            return None
        finally:
            await self.close()
        return reply.comparable

    async def read(self, is_head: bool = False, patience_s: float = 20) -> Reply:
        """Read the next response."""
        assert self._streams is not None
        async with asyncio.timeout(patience_s):
            head = await self._streams[0].readuntil(b"\r\n\r\n")
            stated = re.search(rb"(?i)content-length: (\d+)", head)
            length = int(stated[1]) if stated and not is_head else 0
            return Reply(int(head.split()[1]), head, await self._streams[0].readexactly(length))

    async def get(self, path: str, **headers: str) -> Reply:
        """A GET; `accept_encoding` is the header Accept-Encoding."""
        return await self.send(request_bytes("GET", path, b"", headers))

    async def post(self, path: str, content: Any, **headers: str) -> Reply:
        """A POST of JSON."""
        return await self.send(request_bytes("POST", path, orjson.dumps(content), headers))

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def request_bytes(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A plain HTTP/1.1 request."""
    given = {"Host": "bridge", **({"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {})}
    given |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
