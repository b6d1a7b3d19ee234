"""A response's head and body as one write."""

from __future__ import annotations

import asyncio
from typing import Any

from app.server.coalesced_write import CoalescedWrite

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Recording(asyncio.Transport):
    """What a socket would be given, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[Any] = []

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.writes.append("closed")


async def test_head_and_body_leave_as_one_piece() -> None:
    socket = Recording()
    one = CoalescedWrite(socket, asyncio.get_running_loop())
    one.write(HEAD)
    one.write(b"body")
    await asyncio.sleep(0)
    assert socket.writes == [HEAD + b"body"]


async def test_a_head_whose_body_takes_its_time_leaves_at_the_next_turn_and_the_rest_as_it_comes() -> None:
    socket = Recording()
    one = CoalescedWrite(socket, asyncio.get_running_loop())
    one.write(HEAD)
    await asyncio.sleep(0)
    one.write(b"bo")
    one.write(b"dy")
    assert socket.writes == [HEAD, b"bo", b"dy"]


async def test_a_head_is_sent_before_the_end() -> None:
    socket = Recording()
    one = CoalescedWrite(socket, asyncio.get_running_loop())
    one.write(HEAD)
    one.close()
    await asyncio.sleep(0)
    assert socket.writes == [HEAD, "closed"]


async def test_a_head_without_a_body_leaves_before_the_next_response() -> None:
    """The response to a HEAD is a head alone. The next request on the connection may be answered in the same turn."""
    socket = Recording()
    one = CoalescedWrite(socket, asyncio.get_running_loop())
    one.write(HEAD)
    one.write_response(b"HTTP/1.1 429 Too Many Requests\r\n\r\n", b"busy")
    await asyncio.sleep(0)
    assert socket.writes == [HEAD, b"HTTP/1.1 429 Too Many Requests\r\n\r\nbusy"]
