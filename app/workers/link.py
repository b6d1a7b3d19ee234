"""The messages between the supervisor and a worker, over a socket pair. Its end tells either side that the other is gone."""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client.core import Metric

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Started:
    """From a worker: it accepts connections."""


@dataclass(frozen=True, slots=True)
class Failed:
    """From a worker: it cannot run, and why."""

    text: str


@dataclass(frozen=True, slots=True)
class Drain:
    """To a worker: begin to stop; a second one: stop at once."""


@dataclass(frozen=True, slots=True)
class Collect:
    """To a worker: send your metrics."""


@dataclass(frozen=True, slots=True)
class Collected:
    """From a worker: its metrics."""

    families: list[Metric]


@dataclass(frozen=True, slots=True)
class PageWanted:
    """From a worker: somebody has asked it for the metrics of all."""

    asking: int


@dataclass(frozen=True, slots=True)
class Page:
    """To a worker: the metrics of all, in Prometheus' text format."""

    asking: int
    text: bytes


Message = Started | Failed | Drain | Collect | Collected | PageWanted | Page


def pack_message(message: Message) -> bytes:
    """A message with its length. Both ends are processes of ours, so pickle is safe."""
    packed = pickle.dumps(message)
    return _LENGTH.pack(len(packed)) + packed


async def read_messages(reader: asyncio.StreamReader) -> AsyncIterator[Message]:
    """The messages of a worker, until it is gone."""
    with suppress(asyncio.IncompleteReadError, OSError):
        while True:
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            message: Message = pickle.loads(await reader.readexactly(length))  # noqa: S301  from a process of ours
            yield message


class WorkerLink:
    """A worker's end. It is read in a thread, which notices the supervisor's end even if the event loop hangs."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(True)
        self._sending = threading.Lock()

    def start_reading(self, handle: Callable[[Message], None], gone: Callable[[], None]) -> None:
        """Call `handle` with each message, and `gone` when the supervisor is gone: both in the reading thread."""
        threading.Thread(target=self._read_all, args=(handle, gone), name="supervisor's link", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send to the supervisor; nothing happens if it is gone."""
        packed = pack_message(message)
        with self._sending, suppress(OSError):
            self._socket.sendall(packed)

    def _read_all(self, handle: Callable[[Message], None], gone: Callable[[], None]) -> None:
        with suppress(OSError, EOFError), self._socket.makefile("rb") as stream:
            while head := stream.read(_LENGTH.size):
                handle(pickle.loads(stream.read(*_LENGTH.unpack(head))))  # noqa: S301  from a process of ours
        gone()
