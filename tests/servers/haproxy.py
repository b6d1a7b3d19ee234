"""A real haproxy to test against, in front of given replicas: on a free port of its own, stopped by its pid."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from demo.stores import free_port

_START_S = 10.0

BACKEND = "be_bridge"

_CONFIG = """
global
    log stderr format raw local0 notice
    maxconn 2000
    stats socket unix@{socket_path} mode 600 level admin
    hard-stop-after 1s
    tune.bufsize 65536
defaults
    mode http
    log global
    option httplog
    option dontlognull
    option redispatch 1
    retries 2
    retry-on conn-failure empty-response 503
    timeout connect 1s
    timeout client 30s
    timeout http-request 5s
    timeout http-keep-alive 15s
    timeout queue 2s
    timeout server 8s
    timeout check 2s
    default-server inter 1s fastinter 250ms downinter 500ms fall 2 rise 1 maxconn 100
frontend fe_bridge
    bind 127.0.0.1:{port}
    option http-buffer-request
    default_backend {backend}
backend {backend}
    balance leastconn
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host bridge
    http-check expect status 200
"""

_SERVER = (
    "    server {name} 127.0.0.1:{http} check weight 100{slowstart} agent-check agent-port {agent} agent-inter 500ms"
    ' agent-send "{backend}/{name}\\n" on-marked-down shutdown-sessions\n'
)


class HAProxyServer:
    """One haproxy. `with HAProxyServer(folder, [(http_port, agent_port), ...]) as server:` starts and stops it.

    The replicas are the servers b1, b2, ... of the backend `be_bridge`; the Runtime API is at `socket_path`.
    """

    host = "127.0.0.1"
    _options: Sequence[str] = ("-db",)

    def __init__(self, folder: Path, replicas: Sequence[tuple[int, int]], slowstart_s: int = 0) -> None:
        self.port = free_port()
        self._folder = folder
        self._replicas = replicas
        self._slowstart_s = slowstart_s
        self._environment: dict[str, str] = {}
        # A unix socket's path must be short, and pytest's folders are not.
        self._short = tempfile.TemporaryDirectory(prefix="hap", ignore_cleanup_errors=True)
        self.socket_path = f"{self._short.name}/s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id. It must be running."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> Self:
        """Start and wait until it answers. Raises RuntimeError where there is no haproxy or it does not come up."""
        program = shutil.which("haproxy")
        if program is None:
            raise RuntimeError("haproxy is not installed; on Debian: apt-get install haproxy")
        config = self._folder / "haproxy.cfg"
        config.write_text(self._config(), encoding="utf-8")
        with (self._folder / "haproxy.log").open("ab") as log:
            command = [program, *self._options, "-f", str(config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self._environment)
        self._wait(self._process)
        return self

    def _config(self) -> str:
        slowstart = f" slowstart {self._slowstart_s}s" if self._slowstart_s else ""
        servers = [
            _SERVER.format(name=f"b{number}", http=http, agent=agent, slowstart=slowstart, backend=BACKEND)
            for number, (http, agent) in enumerate(self._replicas, 1)
        ]
        return _CONFIG.format(socket_path=self.socket_path, port=self.port, backend=BACKEND) + "".join(servers)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends and process.poll() is None:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
                Path(self.socket_path).stat()  # it gets its name last
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise RuntimeError(f"haproxy did not come up: {(self._folder / 'haproxy.log').read_text()[-500:]}")

    def ask(self, command: str) -> str:
        """The Runtime API's answer to one command."""
        with socket.socket(socket.AF_UNIX) as api:
            api.settimeout(5)
            api.connect(self.socket_path)
            api.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: api.recv(1 << 16), b"")).decode()

    def stats(self, backend: str = BACKEND) -> dict[str, dict[str, str]]:
        """What `show stat` says of each server of the backend."""
        rows = csv.DictReader(self.ask("show stat").removeprefix("# ").strip().splitlines())
        return {row["svname"]: row for row in rows if row["pxname"] == backend and row["svname"] != "BACKEND"}

    def stop(self) -> None:
        """End it as an operator in a hurry would (SIGTERM stops haproxy at once); nothing where it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10)
        self._short.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *problem: object) -> None:
        self.stop()
