"""A real Prometheus: on samples that a test writes down as text, or one that scrapes and can be killed and hung."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from demo.stores import backfill, free_port, prometheus_store

_START_S = 15.0


@contextmanager
def prometheus_with(folder: Path, openmetrics: str) -> Iterator[int]:
    """A running Prometheus that holds these samples (OpenMetrics text): its port. It scrapes nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "samples.txt"
    text.write_text(openmetrics, encoding="utf-8")
    backfill(text, folder / "data")
    with prometheus_store(folder, free_port()) as port:
        yield port


class PrometheusServer:
    """A Prometheus that scrapes one target; its port and its data stay over restarts."""

    def __init__(self, folder: Path, target_port: int, scrape_s: float, *options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self.data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        every = f"{round(scrape_s * 1000)}ms"
        lines = (
            f"global: {{scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: 1m}}",
            f'scrape_configs: [{{job_name: t, static_configs: [{{targets: ["127.0.0.1:{target_port}"]}}]}}]',
        )
        (folder / "prometheus.yml").write_text("\n".join(lines), encoding="utf-8")
        self._options = [f"--query.lookback-delta={round(scrape_s * 3000)}ms", *options]
        self._environment: dict[str, str] = {}

    def start(self) -> Self:
        """Start and wait until it is ready. Raises RuntimeError where it does not come up."""
        command = [
            shutil.which("prometheus") or "prometheus",
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
            *self._options,
        ]
        with (self._folder / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self._environment)
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends:
            if self._ready():
                return self
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"prometheus did not become ready: {(self._folder / 'prometheus.log').read_text()[-500:]}")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make it hang."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
            process.wait(10)
