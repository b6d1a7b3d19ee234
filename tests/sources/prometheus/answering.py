"""Servers that give each caller the same bytes, and bytes as Prometheus and its kin write them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class Asked:
    """One request: its path, its headers (names in small letters), its parameters from the URL or the form."""

    path: str
    headers: dict[str, str]
    params: dict[str, str]


@asynccontextmanager
async def deciding(decide: Callable[[Asked], bytes]) -> AsyncIterator[int]:
    """A server that looks at each request before it answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(decide(await read_request(reader)))
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def read_request(reader: asyncio.StreamReader) -> Asked:
    """The next request of a connection."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    path, _, query = first.split(" ")[1].partition("?")
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(path, headers, dict(parse_qsl(query or body.decode(), keep_blank_values=True)))


@asynccontextmanager
async def answering(payload: bytes, hang: bool = False) -> AsyncIterator[int]:
    """A server that gives each caller these bytes, and then ends or hangs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(payload)
            await writer.drain()
            if hang:
                await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def reply(status: str, body: str | bytes, kind: str = "application/json", more: str = "") -> bytes:
    """A whole HTTP answer."""
    content = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n".encode() + content


def failing(kind: str, error: str = "because") -> str:
    """How Prometheus says that something went wrong."""
    return f'{{"status":"error","errorType":"{kind}","error":"{error}"}}'
