"""`bridge serve`: the HTTP server of a configuration, from its start to its stop.

With one worker (the default) this process serves. With several, it supervises them: see `app/workers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

import uvicorn

from app.catalog import load_folder
from app.cli.signals import ignore_reloads
from app.config import Settings, read_settings
from app.errors import BadQuery, ConfigError, Problem
from app.main import Service, build_service
from app.server.settings import MOST_WORKERS
from app.telemetry import set_up_logging

_log = logging.getLogger("bridge")
_SWITCH_S = 0.0005


def serve(config: Path | None, workers: int | None = None) -> int:
    """Run the bridge until it is told to stop. `workers` takes the place of `http.workers`."""
    settings = read_settings(config)
    if workers is not None:
        settings = with_workers(settings, workers)
    refuse_taken_ports(settings)
    set_up_logging(settings.log_level, settings.log_style)
    if settings.http.workers > 1:
        return _supervise(settings)
    server = build_server(settings)
    # These objects live as long as the process. Without the freeze, each full collection scans them for 50 ms.
    gc.collect()
    gc.freeze()
    survive_own_stop_signal()
    ignore_reloads()
    server.run()
    gc.unfreeze()  # otherwise DuckDB reports as leaked what it would free at exit
    return 0 if server.started else 1


def with_workers(settings: Settings, workers: int) -> Settings:
    """The settings with so many workers. Raises ConfigError if that is not possible."""
    reason = "allowed: 1 to 64" if not 1 <= workers <= MOST_WORKERS else settings.one_worker_reason() if workers > 1 else None
    if reason is not None:
        raise ConfigError([Problem("--workers", "", f"{workers} is not allowed here; {reason}")])
    return settings.model_copy(update={"http": settings.http.model_copy(update={"workers": workers})})


def _supervise(settings: Settings) -> int:
    """Run the workers until told to stop. Every mistake of the catalogue is found here, once."""
    from app.cli.worker import run_worker
    from app.workers.supervisor import NoWorker, Supervisor, bind_sockets

    catalogue = load_folder(settings.catalog_folder, settings.kinds)
    listening = bind_sockets(settings.http.host, settings.http.port)
    ignore_reloads()

    async def run() -> int:
        return await Supervisor(settings, catalogue, run_worker, listening).run()

    try:
        return asyncio.run(run())
    except NoWorker as failure:
        print(f"bridge: {failure}", file=sys.stderr)
        return failure.exit_code


def refuse_taken_ports(settings: Settings) -> None:
    """Raise BadQuery, before anything starts, if another program has one of the ports."""
    for key, host, port in (
        ("http", settings.http.host, settings.http.port),
        ("agent", settings.agent.host, settings.agent.port),
    ):
        refuse_taken_port(f"{key}.port", port or 0, host)


def refuse_taken_port(key: str, port: int, host: str = "127.0.0.1") -> None:
    """Raise BadQuery if another program has the port. The server itself refuses an address that is not this host's."""
    reached = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else host  # noqa: S104  compared, not bound
    with socket.socket(socket.AF_INET6 if ":" in reached else socket.AF_INET) as probe:
        probe.settimeout(1)
        taken = False
        with contextlib.suppress(OSError):
            taken = bool(port) and probe.connect_ex((reached, port)) == 0
        if taken:
            raise BadQuery(f"{key}: {port} is taken by another program; name a free one, for example {port + 1}")


def survive_own_stop_signal() -> None:
    """Ignore the signal that uvicorn raises again after it has stopped: a clean stop must not end as a death by signal."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


class LameDuckServer(uvicorn.Server):
    """A server that goes on serving for `lame_duck_s` after the stop signal, but is not ready, so load balancers turn away.

    A second signal stops it at once.
    """

    def __init__(self, config: uvicorn.Config, lame_duck_s: float, begin: Callable[[], None]) -> None:
        super().__init__(config)
        self._lame_duck_s = lame_duck_s
        self._begin = begin
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle the stop signal: begin the lame-duck time, or stop."""
        loop, self._loop = self._loop, None
        if loop is None or not self._lame_duck_s:
            super().handle_exit(sig, frame)
            return
        self._begin()
        loop.call_soon_threadsafe(loop.call_later, self._lame_duck_s, super().handle_exit, sig, frame)


_Server = TypeVar("_Server", bound=LameDuckServer)


def build_server(settings: Settings) -> LameDuckServer:
    """The HTTP server of these settings. `handle_exit` stops it gracefully, from any thread."""
    tune_process()
    return make_server(settings, build_service(settings), LameDuckServer)


def tune_process() -> None:
    """Set what holds for the whole process."""
    # The event loop would wait up to Python's usual 5 ms for a DuckDB thread that builds its columns.
    sys.setswitchinterval(_SWITCH_S)


def make_server(settings: Settings, service: Service, kind: type[_Server]) -> _Server:
    """The HTTP server of this service."""
    http = settings.http

    def begin_draining() -> None:
        service.operations.draining = True
        _log.info("told to stop: not ready any more, stopping in %gs", http.lame_duck_s)

    return kind(
        uvicorn.Config(
            service.app,
            host=http.host,
            port=http.port,
            timeout_keep_alive=http.keep_alive_s,
            timeout_graceful_shutdown=http.graceful_stop_s,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            http=service.http_protocol,
        ),
        http.lame_duck_s,
        begin_draining,
    )
