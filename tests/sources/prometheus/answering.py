"""Servers that give each caller the same bytes, and bytes as Prometheus and its kin write them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


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
