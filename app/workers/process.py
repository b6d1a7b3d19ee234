"""One worker as its supervisor sees it: a process, a link to it, and what it has said."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess

from prometheus_client.core import Metric

from app.catalog import Catalogue
from app.config import Settings
from app.workers.link import Collect, Collected, Message, pack_message, read_messages
from app.workers.scoreboard import Scoreboard

#: from the end of its link to the end of its process
_LEAVE_S = 5.0


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker gets at its start. The settings and the catalogue are those that the supervisor has read: files that were
    changed since then do not make a replaced worker differ from the others."""

    number: int
    settings: Settings
    catalogue: Catalogue
    listening: tuple[socket.socket, ...]
    link: socket.socket
    board: Scoreboard


Target = Callable[[Start], None]


class Worker:
    """A running worker."""

    def __init__(self, number: int, process: SpawnProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        #: it accepts connections
        self.serves = False
        #: why it cannot run, in its own words
        self.failure = ""
        #: why its supervisor has ended it
        self.killed_for = ""
        self.latest: list[Metric] = []
        self.begun_s = time.monotonic()
        self._process = process
        self._reader = reader
        self._writer = writer
        self._collected = asyncio.Event()
        self._beat_s = 0.0
        self._silent_looks = 0

    @property
    def name(self) -> str:
        """For the log."""
        return f"worker {self.number} (process {self._process.pid})"

    def begin_serving(self) -> None:
        """It accepts connections. The time of its start, in which it had no event loop, does not count as silence."""
        self.serves, self._silent_looks = True, 0

    def send(self, message: Message) -> None:
        """Send; nothing happens if it is gone."""
        if not self._writer.is_closing():
            self._writer.write(pack_message(message))

    async def follow(self, handle: Callable[[Worker, Message], None]) -> int:
        """Call `handle` with each of its messages. Returns its exit code; negative: the signal that ended it."""
        async for message in read_messages(self._reader):
            if isinstance(message, Collected):
                self.latest = message.families
                self._collected.set()
            else:
                handle(self, message)
        self._writer.close()
        await asyncio.to_thread(self._process.join, _LEAVE_S)
        if self._process.exitcode is None:
            self.kill("it did not end")
            await asyncio.to_thread(self._process.join)
        return self._process.exitcode or 0

    async def collect(self) -> bool:
        """Ask for its metrics, which are `latest` then. The caller limits the time."""
        self._collected.clear()
        self.send(Collect())
        return await self._collected.wait()

    @property
    def answered(self) -> bool:
        """Whether `latest` is what it was asked for last."""
        return self._collected.is_set()

    def look(self, beat_s: float) -> int:
        """How many looks in a row have seen its event loop at the same beat.

        Looks are counted and not seconds: a machine that was asleep must not make all workers look as if they hung.
        """
        self._silent_looks = self._silent_looks + 1 if beat_s == self._beat_s else 0
        self._beat_s = beat_s
        return self._silent_looks

    @property
    def silent_looks(self) -> int:
        """As the last `look` found."""
        return self._silent_looks

    def kill(self, why: str) -> None:
        """End it at once."""
        self.killed_for = self.killed_for or why
        self._process.kill()


async def launch_worker(context: SpawnContext, target: Target, start: Start, ours: socket.socket) -> Worker:
    """Start a worker's process. `ours` is our end of `start.link`, which is closed here."""
    process = context.Process(target=target, args=(start,), name=f"bridge worker {start.number}", daemon=True)
    await asyncio.to_thread(_start_deaf, process)
    start.link.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    return Worker(start.number, process, reader, writer)


def _start_deaf(process: SpawnProcess) -> None:
    """Start with the stop signals blocked. They come to every process of a terminal or a unit; the supervisor hands them on."""
    resource_tracker.ensure_running()  # otherwise the process's start does this, and unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
