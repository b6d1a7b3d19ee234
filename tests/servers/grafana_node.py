"""A stand-in for one node of Grafana: a process of its own, so that a test can kill it or stop it in the middle of a request.

`python -m tests.servers.grafana_node PORT LOG` serves: `/api/health` is well, and every other request is answered after 100 ms.
The method and path of each request that arrived are a line of the file LOG, written before the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self

from demo.stores import free_port

ROOT = Path(__file__).parents[2]
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"
_ANSWER_AFTER_S = 0.1


class GrafanaNode:
    """One process. `with GrafanaNode(folder) as node:` starts it, and ends it by its pid."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._log = folder / "requests.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def requests(self) -> list[str]:
        """The requests that arrived, each `METHOD PATH`."""
        return self._log.read_text(encoding="ascii").splitlines()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self._process is not None, "the node does not run"
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.servers.grafana_node", str(self.port), str(self._log)]
        self._process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
        ends_s = time.monotonic() + 20
        while time.monotonic() < ends_s:
            try:
                urllib.request.urlopen(f"http://{self.address}/api/health", timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        self.__exit__()
        raise RuntimeError("the node did not come up")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def serve_node(port: int, log: Path) -> None:
    """Answer until the process ends."""
    with log.open("a", encoding="ascii", buffering=1) as lines:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    method, path, *_ = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split(" ", 2)
                    if path != "/api/health":
                        lines.write(f"{method} {path}\n")
                        await asyncio.sleep(_ANSWER_AFTER_S)
                    writer.write(_ANSWER)
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", port) as server:
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve_node(int(sys.argv[1]), Path(sys.argv[2])))
