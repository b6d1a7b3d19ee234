"""The process that starts the workers, replaces those that end or hang, speaks for all of them, and stops them."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

from prometheus_client.core import Metric

from app.catalog import Catalogue
from app.config import Settings
from app.cooperative import Background
from app.errors import BadQuery, BridgeError
from app.operations.haproxy import Agent, Condition, TeamCondition
from app.telemetry import TeamTelemetry, text_of
from app.workers.link import Drain, Failed, Message, Page, PageWanted, Started
from app.workers.process import Start, Target, Worker, launch_worker
from app.workers.scoreboard import make_scoreboard
from app.workers.totals import Totals, without_gauges

_log = logging.getLogger("bridge")

_LOOK_S = 0.25
#: after that time without a beat a worker counts as missing
_MISSING_S = 2.0
#: importing everything from a cold disk
_START_S = 60.0
_COLLECT_S = 1.0
#: what a worker has counted since the last look is lost if it is killed
_KEEP_COUNTS_S = 5.0
#: a run of this length is no failed start
_STEADY_S = 10.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
#: so many failed starts in a row while no worker serves, and the supervisor gives up
_TRIES = 5
#: added to the time that a clean stop may take
_OVERTIME_S = 3.0


def bind_sockets(host: str, port: int) -> list[socket.socket]:
    """The sockets of an address, bound and not listening yet: until a worker serves, callers are refused. Raises BadQuery."""
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            _log.info("listening on %s, port %d", *one.getsockname()[:2])
    except OSError as problem:
        for one in bound:
            one.close()
        raise BadQuery(f"http.host, http.port: {host}, {port} cannot be listened on: {problem.strerror or problem}") from problem
    return bound


class NoWorker(BridgeError):
    """No worker can be kept running. `exit_code` is for the command."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Supervisor:
    """Keeps `http.workers` workers running on sockets that are bound already."""

    def __init__(self, settings: Settings, catalogue: Catalogue, target: Target, listening: Sequence[socket.socket]) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._target = target
        self._listening = tuple(listening)
        self._count = settings.http.workers
        self._context = get_context("spawn")
        self._board = make_scoreboard(self._context, self._count)
        self._workers: dict[int, Worker] = {}
        self._failed_starts = dict.fromkeys(range(self._count), 0)
        self._served_once = False
        self._stopping = asyncio.Event()
        self._launching = asyncio.Lock()
        self._totals = Totals()
        self._telemetry = TeamTelemetry(self._count)
        self._agent = Agent(self.condition)
        self._background = Background()

    async def run(self) -> int:
        """Run until told to stop; returns the exit code. Raises NoWorker."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        kept = [asyncio.create_task(self._keep_worker(number)) for number in range(self._count)]
        running: list[asyncio.Future[Any]] = [asyncio.gather(*kept)]
        running += [self._background.start(work) for work in (self._watch_beats(), self._keep_counts())]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await done.pop()
        except BaseException:
            self._stop_at_once()
            await asyncio.wait(kept)
            raise
        finally:
            await self._agent.stop()
            await self._background.close()
        return 1 if any(worker.killed_for for worker in self._workers.values()) else 0

    def condition(self) -> TeamCondition:
        """The state of all workers for the load balancer."""
        seats = [self._board[worker.number] for worker in self._serving()]
        members = tuple(Condition(True, seat.loop_lag_s, seat.sources_up, seat.sources) for seat in seats)
        return TeamCondition(members, self._count, self._stopping.is_set())

    def stop(self) -> None:
        """Let all workers drain and end; a second call ends the drain."""
        if not self._stopping.is_set():
            http = self._settings.http
            _log.info("told to stop: not ready any more, the workers stop in %gs", http.lame_duck_s)
            self._stopping.set()
            self._background.start(self._close_sockets())
            most_s = http.lame_duck_s + http.graceful_stop_s + _OVERTIME_S
            asyncio.get_running_loop().call_later(most_s, self._kill_all, f"it did not stop within {most_s:g}s")
        for worker in self._workers.values():
            worker.send(Drain())

    def _stop_at_once(self) -> None:
        self.stop()
        self.stop()

    def _kill_all(self, why: str) -> None:
        for worker in self._workers.values():
            _log.error("%s is killed: %s", worker.name, why)
            worker.kill(why)

    async def _close_sockets(self) -> None:
        """Otherwise the port goes on listening when the last worker has closed it, and nobody accepts."""
        async with self._launching:
            for one in self._listening:
                one.close()

    def _serving(self) -> list[Worker]:
        """The workers that serve; without those that have not moved for a while."""
        return [one for one in self._workers.values() if one.serves and one.silent_looks * _LOOK_S < _MISSING_S]

    async def _keep_worker(self, number: int) -> None:
        """Keep one worker running until the stop. Raises NoWorker."""
        while not self._stopping.is_set():
            try:
                worker = await self._launch(number)
            except OSError as problem:
                await self._wait_before_next(number, f"it cannot be started: {problem}")
                continue
            if worker is None:
                return
            code = await worker.follow(self._handle)
            self._totals.keep(worker.latest)
            self._board[number].clear()
            if self._stopping.is_set():
                if not worker.killed_for:
                    del self._workers[number]
                return
            del self._workers[number]
            self._telemetry.replaced.labels("hung" if worker.killed_for else "ended").inc()
            why = worker.killed_for or worker.failure or f"it ended with code {code}"
            steady = worker.serves and time.monotonic() - worker.begun_s >= _STEADY_S
            await self._wait_before_next(number, f"{worker.name}: {why}", code, steady)

    async def _launch(self, number: int) -> Worker | None:
        async with self._launching:
            if self._stopping.is_set():
                return None
            ours, theirs = socket.socketpair()
            start = Start(number, self._settings, self._catalogue, self._listening, theirs, self._board)
            worker = await launch_worker(self._context, self._target, start, ours)
        self._workers[number] = worker
        if self._stopping.is_set():
            worker.send(Drain())
        return worker

    async def _wait_before_next(self, number: int, why: str, code: int = 1, steady: bool = False) -> None:
        """Say why a worker has ended, and wait before the next one. Raises NoWorker if there is no hope of one."""
        tries = self._failed_starts[number] = 0 if steady else self._failed_starts[number] + 1
        self._refuse_to_go_on(tries, code, why)
        wait_s = 0.0 if steady else min(_FIRST_WAIT_S * 2.0 ** (tries - 1), _LONGEST_WAIT_S)
        _log.error("worker %d is replaced in %gs: %s", number, wait_s, why)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()

    def _refuse_to_go_on(self, tries: int, code: int, why: str) -> None:
        none_began = not self._served_once and all(self._failed_starts.values())
        if none_began or (tries >= _TRIES and not self._serving()):
            words = why if none_began and code == 2 else f"no worker can be kept running; the last one: {why}; see the log above"
            raise NoWorker(words, 2 if code == 2 else 1)

    def _handle(self, worker: Worker, message: Message) -> None:
        if isinstance(message, Started):
            worker.begin_serving()
            _log.info("%s serves", worker.name)
            self._background.start(self._begin_speaking())
        elif isinstance(message, Failed):
            worker.failure = message.text
        elif isinstance(message, PageWanted):
            self._background.start(self._send_page(worker, message.asking))

    async def _begin_speaking(self) -> None:
        """Answer agent-checks as soon as one worker serves: before that the replica is not there."""
        first, self._served_once = not self._served_once, True
        port = self._settings.agent.port
        if first and port is not None:
            try:
                await self._agent.start(self._settings.agent.host, port)
            except OSError as problem:
                _log.critical("agent.port: %d cannot be used, so HAProxy learns no weight: %s", port, problem)

    async def _watch_beats(self) -> None:
        """End every worker whose event loop stands still, or that takes too long to begin."""
        hang_s = self._settings.http.worker_hang_s
        while True:
            await asyncio.sleep(_LOOK_S)
            for worker in self._workers.values():
                silent_s = worker.look(self._board[worker.number].beat_s) * _LOOK_S
                if self._stopping.is_set():  # the stop has a time limit of its own
                    continue
                if worker.serves and silent_s >= hang_s:
                    worker.kill(f"its event loop stood still for {hang_s:g}s")
                elif not worker.serves and silent_s >= _START_S:
                    worker.kill(f"it did not start within {_START_S:g}s")

    async def _keep_counts(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_COUNTS_S)
            await self._collect()

    async def _send_page(self, worker: Worker, asking: int) -> None:
        found = await self._collect()
        self._telemetry.up.set(len(self._serving()))
        worker.send(Page(asking, text_of(self._totals.merged([*found, list(self._telemetry.registry.collect())]))))

    async def _collect(self) -> list[list[Metric]]:
        """The metrics of all workers; of one that does not answer, what it had counted when it answered last."""
        asked = [worker for worker in self._workers.values() if worker.serves]
        with suppress(TimeoutError):
            async with asyncio.timeout(_COLLECT_S):
                await asyncio.gather(*(worker.collect() for worker in asked))
        here = [worker for worker in asked if self._workers.get(worker.number) is worker]
        return [worker.latest if worker.answered else without_gauges(worker.latest) for worker in here]
