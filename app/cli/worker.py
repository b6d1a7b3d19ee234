"""One worker of `bridge serve --workers N`: a bridge on a shared socket. Its supervisor starts it and tells it to stop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import uvicorn

from app.cli.serve import LameDuckServer, make_server, survive_own_stop_signal, tune_process
from app.cli.signals import ignore_reloads
from app.config import Settings
from app.errors import BridgeError, ConfigError, SourceUnavailable
from app.main import build_operations, build_sources, compose_service
from app.operations.routes import Operations
from app.sync import SyncSettings
from app.telemetry import set_up_logging
from app.workers.link import Collect, Collected, Drain, Failed, Message, Page, PageWanted, Started, WorkerLink
from app.workers.listening import SharedListener
from app.workers.process import Start
from app.workers.scoreboard import Scoreboard

_log = logging.getLogger("bridge")

_BEAT_S = 0.25
#: for the supervisor, which waits a second for each worker's own part
_PAGE_S = 2.5


class WorkerTeam:
    """The other workers, reached through the supervisor (`operations.routes.Team`)."""

    def __init__(self, number: int, link: WorkerLink) -> None:
        self.number = number
        self._link = link
        self._numbers = itertools.count()
        self._pages: dict[int, asyncio.Future[bytes]] = {}

    async def metrics_page(self) -> bytes:
        """The metrics of all workers. Raises SourceUnavailable if the supervisor does not answer: a part would look like all."""
        asking = next(self._numbers)
        page: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pages[asking] = page
        try:
            await asyncio.to_thread(self._link.send, PageWanted(asking))
            async with asyncio.timeout(_PAGE_S):
                return await page
        except TimeoutError:
            raise SourceUnavailable("metrics", "the supervisor of the workers does not answer") from None
        finally:
            del self._pages[asking]

    def take_page(self, page: Page) -> None:
        """The supervisor has answered."""
        waiting = self._pages.get(page.asking)
        if waiting is not None and not waiting.done():
            waiting.set_result(page.text)


class WorkerServer(LameDuckServer):
    """The HTTP server of one worker. Signals do not stop it: they come to all processes of a terminal or a unit at once."""

    def __init__(self, config: uvicorn.Config, lame_duck_s: float, begin: Callable[[], None]) -> None:
        super().__init__(config, lame_duck_s, begin)
        self._begun: Callable[[], None] = lambda: None
        self._board: Scoreboard = ()
        self._listening: Sequence[socket.socket] = ()
        self._number = 0
        self._operations: Operations | None = None
        self._beating: asyncio.Task[None] | None = None

    def join_team(self, start: Start, operations: Operations, begun: Callable[[], None]) -> None:
        """Before `run`: what it listens on, whose state it shows, and what to call when it serves."""
        self._board, self._number, self._listening = start.board, start.number, start.listening
        self._operations, self._begun = operations, begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the sources, and accept."""
        await super().startup([])
        listeners: Any = [SharedListener(one, self._make_protocol, self._board, self._number) for one in self._listening]
        self.servers = listeners
        self._board[self._number].connections = 0
        self._beating = asyncio.create_task(self._beat())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        self._begun()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: none stops a worker."""
        if sig == signal.SIGTERM:
            _log.info("SIGTERM: a worker stops with all others; send it to the supervisor, process %d", os.getppid())

    def drain(self) -> None:
        """Begin the lame-duck time; the second time, stop."""
        super().handle_exit(signal.SIGTERM, None)

    def _make_protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return protocol

    async def _beat(self) -> None:
        """Tell the others, for ever, that the event loop runs, and how it is."""
        assert self._operations is not None  # noqa: S101  `join_team` came before
        seat = self._board[self._number]
        while True:
            condition = self._operations.condition()
            seat.loop_lag_s, seat.sources_up, seat.sources = condition.loop_lag_s, condition.sources_up, condition.sources
            seat.connections = len(self.server_state.connections)
            seat.beat_s = time.monotonic()
            await asyncio.sleep(_BEAT_S)


class _Worker:
    """A worker between its link and its server."""

    def __init__(self, start: Start) -> None:
        self._link = WorkerLink(start.link)
        self._team = WorkerTeam(start.number, self._link)
        self._settings = own_settings(start.settings, start.number)
        self._start = start
        self._server: WorkerServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._operations: Operations | None = None

    def run(self) -> int:
        """Serve until the supervisor says otherwise, or is gone. Returns the exit code."""
        self._link.start_reading(self._handle, self._end_orphaned)
        try:
            operations = build_operations(self._settings, self._start.catalogue, build_sources(self._settings))
        except BridgeError as problem:
            self._link.send(Failed(str(problem)))
            return 2 if isinstance(problem, ConfigError) else 1
        operations.team, self._operations = self._team, operations
        server = make_server(self._settings, compose_service(self._settings, operations), WorkerServer)
        server.join_team(self._start, operations, self._begun)
        gc.collect()
        gc.freeze()
        survive_own_stop_signal()
        ignore_reloads()
        self._server = server
        server.run()
        gc.unfreeze()
        return 0 if server.started else 1

    def _begun(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._link.send(Started())

    def _handle(self, message: Message) -> None:
        """In the link's thread."""
        loop = self._loop
        if loop is None:
            if isinstance(message, Drain):
                os._exit(0)  # nobody has been served yet
            return
        loop.call_soon_threadsafe(self._handle_on_loop, message)

    def _handle_on_loop(self, message: Message) -> None:
        if isinstance(message, Drain) and self._server is not None:
            self._server.drain()
        elif isinstance(message, Collect) and self._operations is not None:
            families = self._operations.own_metrics()
            asyncio.get_running_loop().run_in_executor(None, self._link.send, Collected(families))
        elif isinstance(message, Page):
            self._team.take_page(message)

    def _end_orphaned(self) -> None:
        """The supervisor is gone: stop at once. This thread lives on to end a worker that cannot."""
        if self._loop is None or self._server is None:
            os._exit(1)
        _log.error("the supervisor is gone: worker %d stops", self._start.number)
        self._server.should_exit = True
        time.sleep(self._settings.http.graceful_stop_s + 2)
        os._exit(1)


def run_worker(start: Start) -> None:
    """The whole life of a worker's process."""
    set_up_logging(start.settings.log_level, start.settings.log_style, worker=start.number)
    tune_process()
    try:
        code = _Worker(start).run()
    except SystemExit as ended:  # uvicorn's, when the application does not start
        code = ended.code if isinstance(ended.code, int) else 1
    logging.shutdown()
    # Everything is closed. The link's thread still waits for a message and would hold objects that libraries report as leaked.
    os._exit(code)


def own_settings(settings: Settings, number: int) -> Settings:
    """What differs from worker to worker: the state folder's place, and that the leader alone calls the backend."""
    changes: dict[str, Any] = {"agent": settings.agent.model_copy(update={"port": None})}
    if number > 0:
        changes["sync"] = SyncSettings()
        changes["state"] = settings.state / f"worker-{number}" if settings.state is not None else None
    return settings.model_copy(update=changes)
