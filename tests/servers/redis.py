"""A real redis-server to test against: on a free port of its own, keeping nothing, stopped by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import redis

from demo.stores import free_port

_START_S = 10.0


def redis_program() -> str:
    """Where redis-server is. Raises RuntimeError where it is not."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is not installed; on Debian: apt-get install redis-server")
    return program


class RedisServer:
    """One redis-server. `with RedisServer(folder) as server:` starts and stops it; the port stays the same over restarts.

    `client` is redis-py's blocking client, for filling and looking: `server.client.hset(...)`.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, password: str = "", *options: str) -> None:
        self.port = free_port()
        self.password = password
        self.client: Any = redis.Redis(self.host, self.port, password=password or None, decode_responses=True, protocol=2)
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id. It must be running."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and not ended since."""
        return self._process is not None

    def start(self) -> Self:
        """Start and wait until it answers. Raises RuntimeError where there is no redis-server or it does not come up."""
        command = self._command()
        log = (self._folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen([*command, *self._options], stdout=log, stderr=log)
        self._wait()
        return self

    def _command(self) -> list[str]:
        command = [redis_program(), "--bind", self.host, "--port", str(self.port), "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--enable-debug-command", "local"]
        return [*command, "--requirepass", self.password] if self.password else command

    def _wait(self) -> None:
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends:
            try:
                self.client.ping()
            except redis.exceptions.ConnectionError:
                time.sleep(0.02)
            else:
                return
        self.kill()
        raise RuntimeError(f"redis-server did not answer within {_START_S:g}s: {(self._folder / 'redis.log').read_text()[-500:]}")

    def stop(self) -> None:
        """End it as an operator would; nothing where it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again on the same port, empty."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Make it hang: connections are accepted by the system, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        self.client.close()
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # a paused one hears it now
            process.wait(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *problem: object) -> None:
        self.stop()
