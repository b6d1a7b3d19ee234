"""One bridge with several workers, as a process, and what is known of its workers from outside."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from demo.stores import free_port

ROOT = Path(__file__).parents[2]
_START_S = 60.0


def wait_for(happened: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    """Return when it has happened."""
    ends_s = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends_s, what
        time.sleep(0.05)


class Team:
    """`bridge serve --workers N` over the given settings; over an empty catalogue if they name none."""

    def __init__(self, folder: Path, workers: int = 2, values: Mapping[str, Any] | None = None, **http: Any) -> None:
        self.port, self.agent_port = free_port(), free_port()
        self._log, self._file, self._workers = folder / "team.log", folder / "team.json", workers
        values = dict(values or {})
        if "catalog" not in values:
            (folder / "catalog").mkdir()
            (folder / "catalog" / "empty.yaml").write_text("group: none\ntitle: None\nmetrics: {}\n", encoding="utf-8")
            values["catalog"] = str(folder / "catalog")
        own = {"http": {"port": self.port, "lame_duck_s": 1.5, **http}, "agent": {"port": self.agent_port}}
        self._file.write_text(json.dumps({**values, **own}), encoding="utf-8")

    @property
    def log(self) -> str:
        """What all processes have said."""
        return self._log.read_text(encoding="utf-8")

    def pid_of(self, number: int) -> int:
        """The process of the worker that serves with this number now."""
        return int(re.findall(rf"worker {number} \(process (\d+)\) serves", self.log)[-1])

    def page(self) -> str:
        """`/metrics`, of whichever worker answers."""
        return self.get("/metrics").decode()

    def total(self, metric: str) -> float:
        """The sum of a metric's samples at `/metrics`."""
        return sum(float(value) for value in re.findall(rf"^{metric}(?:{{[^}}]*}})? (\S+)$", self.page(), re.MULTILINE))

    def get(self, path: str) -> bytes:
        """The body of an answer with status 200."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def ready(self) -> bool:
        """Whether it says that it can serve."""
        try:
            return self.get("/readyz") == b"ready\n"
        except (OSError, urllib.error.URLError):
            return False

    def agent_line(self) -> str:
        """What it tells HAProxy; nothing while its agent does not listen."""
        try:
            with socket.create_connection(("127.0.0.1", self.agent_port), timeout=5) as poll:
                return poll.makefile().readline().strip().removeprefix("ready ")
        except OSError:
            return ""

    def all_serve(self) -> bool:
        """Whether no worker is missing."""
        return self.agent_line() == "up 100%"

    def descendants(self) -> set[int]:
        """The processes that it has started."""
        said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False)
        return {int(pid) for pid in said.stdout.split()}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "app", "serve", "--workers", str(self._workers), "--config", str(self._file)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_for(lambda: self.all_serve() or self.process.poll() is not None, "it does not start", _START_S)
            assert self.process.poll() is None, self.log
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """The workers end with their supervisor."""
        self.process.kill()
        self.process.wait(10)


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and is not waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
