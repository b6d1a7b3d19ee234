"""The demo's stores: real servers if they are installed, else embedded ones. They are empty at each start."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import SourceUnavailable

_START_S = 10.0
_STOP_S = 5.0

_PROMETHEUS_YAML = """\
global: {{scrape_interval: 5s, evaluation_interval: 1m}}
scrape_configs:
  - job_name: tds
    honor_labels: true
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
    # Series that name no terminal keep one identity, whatever port the exporter has.
    relabel_configs: [{{target_label: instance, replacement: tds}}]
"""


def free_port() -> int:
    """A loopback port on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def child(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server as a child process. It listens when the block begins and ends with it. Raises RuntimeError."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:  # noqa: S603  a program found on PATH
        try:
            _await_port(port, process, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    waited = threading.Event()
    for _ in range(round(_START_S / 0.02)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        waited.wait(0.02)
    raise RuntimeError(f"the server for port {port} did not start; see {log}")


@contextmanager
def redis_store(folder: Path) -> Iterator[tuple[int, str]]:
    """Run a Redis; yields its port and a line about it."""
    port, program = free_port(), shutil.which("redis-server")
    if program is None:
        with _fake_redis(port):
            yield port, "embedded (fakeredis; redis-server is not on the PATH)"
        return
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with child([program, *options], port, folder / "redis.log"):
        yield port, f"real (redis-server on port {port})"


@contextmanager
def _fake_redis(port: int) -> Iterator[None]:
    try:
        from fakeredis import TcpFakeServer  # an extra, so it is imported only if it is needed
    except ImportError as problem:
        text = "install redis-server, or fakeredis (the extra `demo` of this package has it): the demo needs one of them"
        raise SourceUnavailable("redis", text) from problem

    server = TcpFakeServer(("127.0.0.1", port), server_type="redis")
    # Closing must not wait for clients that stay connected.
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, name="fakeredis", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def backfill(openmetrics: Path, data: Path, block_hours: int = 2) -> None:
    """Make Prometheus blocks of at most so many hours from OpenMetrics text. Raises RuntimeError if promtool refuses it."""
    program = shutil.which("promtool")
    command = [program or "promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
    command += [f"--max-block-duration={block_hours}h", str(openmetrics), str(data)]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  a program found on PATH
    if done.returncode:
        raise RuntimeError(f"promtool: {done.stderr.decode(errors='replace').strip()[:300]}")


@contextmanager
def prometheus_store(folder: Path, exporter_port: int) -> Iterator[int]:
    """Run a Prometheus on the blocks under `folder` that scrapes the exporter; yields its port."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(_PROMETHEUS_YAML.format(port=exporter_port), encoding="utf-8")
    command = [
        shutil.which("prometheus") or "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=100d",
        "--log.level=warn",
    ]
    with child(command, port, folder / "prometheus.log"):
        _await_ready(port)
        yield port


def _await_ready(port: int) -> None:
    """Wait until Prometheus has read its blocks. It listens earlier, but answers 503 until then."""
    waited = threading.Event()
    for _ in range(round(_START_S / 0.02)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_S)
        try:
            connection.request("GET", "/-/ready")
            if connection.getresponse().status == 200:
                return
        finally:
            connection.close()
        waited.wait(0.02)
    raise RuntimeError("prometheus did not become ready")


def has_prometheus() -> bool:
    """Whether Prometheus and promtool are installed."""
    return bool(shutil.which("prometheus") and shutil.which("promtool"))


class Exporter:
    """The system's /metrics page on a loopback port."""

    def __init__(self, page: Callable[[], Awaitable[str]]) -> None:
        self._page = page

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one scrape. Every request gets the page."""
        try:
            await reader.readuntil(b"\r\n\r\n")
            body = (await self._page()).encode()
            lines = (
                "HTTP/1.1 200 OK",
                "Content-Type: text/plain; version=0.0.4",
                f"Content-Length: {len(body)}",
                "Connection: close",
            )
            writer.write("\r\n".join((*lines, "", "")).encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return
        finally:
            writer.close()
