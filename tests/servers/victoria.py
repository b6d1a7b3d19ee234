"""A real VictoriaMetrics, one node, with the samples that a test gives it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from demo.stores import free_port

_START_S = 15.0


class VictoriaMetrics:
    """A server; samples are lines of Prometheus' text format with their time in ms."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def add(self, lines: Iterable[str]) -> None:
        """Add samples, and wait until they can be found."""
        for path, body in (("/api/v1/import/prometheus", "\n".join(lines)), ("/internal/force_flush", "")):
            httpx.post(f"{self.url}{path}", content=body, trust_env=False).raise_for_status()


@contextmanager
def victoria_metrics(folder: Path, *options: str) -> Iterator[VictoriaMetrics]:
    """A running server without samples."""
    found = VictoriaMetrics(free_port())
    command = ["victoria-metrics", f"-storageDataPath={folder / 'data'}", f"-httpListenAddr=127.0.0.1:{found.port}"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "victoria.log").open("ab") as log:
        process = subprocess.Popen([*command, "-retentionPeriod=1y", *options], stdout=log, stderr=log)
    try:
        _wait_until_ready(found.url)
        yield found
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_ready(url: str) -> None:
    ends_s = time.monotonic() + _START_S
    while True:
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > ends_s:
            raise RuntimeError("victoria-metrics did not become ready; its log is in its folder")
        time.sleep(0.02)
