"""Several real bridge processes over the same stores, as they stand behind a load balancer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from demo.stores import free_port
from tests.servers.world import Stores

_START_S = 60
#: how long an answer of these replicas is fresh
FRESH_S = 1.0
_POLICY = {"probe_s": 0.5, "fresh_s": FRESH_S}


def settings(stores: Stores, ports: Mapping[str, int] | None = None, **more: Any) -> dict[str, Any]:
    """One replica's settings over these stores; `ports` puts a proxy's port in the place of a store's."""
    values = stores.settings(**(ports or {})).model_dump(mode="json", exclude={"http", "agent"})
    for source in values["sources"].values():
        source["policy"] |= _POLICY
    values["sources"]["clickhouse"]["connect"]["password"] = stores.clickhouse.password  # a dump masks secrets
    return values | more


class Fleet:
    """`count` replicas of `settings_of(number)`, each on ports and with a state folder of its own."""

    def __init__(
        self,
        folder: Path,
        count: int,
        settings_of: Callable[[int], Mapping[str, Any]],
        lame_duck_s: float = 1.5,
        **more_http: Any,
    ) -> None:
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.ports = [(free_port(), free_port()) for _ in range(count)]
        for number, (http, agent) in enumerate(self.ports):
            own = {
                "http": {"port": http, "lame_duck_s": lame_duck_s, **more_http},
                "agent": {"port": agent},
                "state": str(folder / f"b{number}"),
            }
            self._file(number).write_text(json.dumps({**settings_of(number), **own}), encoding="utf-8")

    def _file(self, number: int) -> Path:
        return self._folder / f"bridge{number}.json"

    def log(self, number: int) -> str:
        """What it has said."""
        return (self._folder / f"bridge{number}.log").read_text(encoding="utf-8")

    def start(self, number: int) -> None:
        """Start one and wait until it is ready. Raises RuntimeError with what it said."""
        self._launch(number)
        self._await(number)

    def _launch(self, number: int) -> None:
        command = [sys.executable, "-m", "app", "serve", "--config", str(self._file(number))]
        with (self._folder / f"bridge{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(command, stderr=log)

    def _await(self, number: int) -> None:
        ends_s = time.monotonic() + _START_S
        while not self.ready(number):
            if self._processes[number].poll() is not None or time.monotonic() > ends_s:
                raise RuntimeError(self.log(number))
            time.sleep(0.05)

    def ready(self, number: int) -> bool:
        """Whether it says that it can serve."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[number][0]}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def stop(self, number: int) -> int:
        """Tell one to stop, and wait: its exit code."""
        process = self._processes.pop(number)
        process.terminate()
        return process.wait(20)

    def pid(self, number: int) -> int:
        """The process id of one that runs."""
        return self._processes[number].pid

    def kill(self, number: int) -> None:
        """End one as a crash would."""
        process = self._processes.pop(number)
        process.kill()
        process.wait(10)

    def __enter__(self) -> Self:
        for number in range(len(self.ports)):
            self._launch(number)
        try:
            for number in range(len(self.ports)):
                self._await(number)
        except RuntimeError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(10)
