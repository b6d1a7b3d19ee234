"""The bridge as a service's work: uvicorn in its own thread, with lame-duck time and drain at the stop.

The main thread belongs to the service control manager. In pywin32's own host it is not even Python's.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from app.cli.serve import LameDuckServer, build_server, refuse_taken_ports
from app.config import Settings, read_settings
from app.errors import BridgeError, ConfigError
from app.telemetry import set_up_logging
from winsvc.lifecycle import Exit, Failed
from winsvc.logs import Rotation, rotating_handler
from winsvc.plan import SECRETS


class BridgeWork:
    """The bridge of one configuration file."""

    stop_s = 10.0

    def __init__(self, config: Path, rotation: Rotation) -> None:
        self._config = config
        self._rotation = rotation
        self._server: LameDuckServer | None = None
        self._thread = threading.Thread(target=self._run_server, name="uvicorn", daemon=True)
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Check the configuration and the ports, and begin to listen."""
        log = rotating_handler(self._config.parent / "logs" / "bridge.log", self._rotation)
        set_up_logging("info", "json", log)  # a wrong configuration is reported there too
        try:
            settings = settings_of(self._config)
            set_up_logging(settings.log_level, "json", log)
            if settings.http.workers > 1:  # on Windows the settings refuse it themselves
                raise Failed(Exit.CONFIG, "http.workers: a service runs one process; make it 1")
            refuse_taken_ports(settings)
            self._server = build_server(settings)
        except ConfigError as wrong:
            raise Failed(Exit.CONFIG, str(wrong)) from wrong
        except BridgeError as taken:
            raise Failed(Exit.PORT, str(taken)) from taken
        # the longest time of a clean stop; uvicorn closes the remaining connections after that
        self.stop_s = settings.http.lame_duck_s + settings.http.graceful_stop_s + 2.0
        self._thread.start()

    def _run_server(self) -> None:
        assert self._server is not None  # noqa: S101  start() has made it
        try:
            self._server.run()
        except BaseException as failure:  # uvicorn raises SystemExit if it cannot listen
            self._failure = failure

    @property
    def started(self) -> bool:
        """Whether it listens."""
        return self._server is not None and self._server.started

    @property
    def ended(self) -> bool:
        """Whether the server's thread has ended."""
        return not self._thread.is_alive()

    def result(self) -> None:
        """Raise Failed if the server ended by an error."""
        if self._failure is not None:
            code = Exit.DIED if self.started else Exit.PORT
            raise Failed(code, f"the HTTP server has ended: {self._failure!r}; see the lines before in the log")

    def ask_to_stop(self) -> None:
        """Stop gracefully: turn not ready, then accept no connections, then finish the requests under way."""
        if self._server is not None:
            self._server.handle_exit(signal.SIGTERM, None)


def settings_of(config: Path) -> Settings:
    """The settings of a configuration file and the secrets file beside it, if there is one."""
    secrets = config.with_name(SECRETS)
    return read_settings(config, secrets if secrets.exists() else None)
