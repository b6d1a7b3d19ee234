"""Grafana's own frame converter (@grafana/data) under Node: what a panel would get from an answer of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

FOLDER = Path(__file__).parents[1] / "node"


class FrameConverter:
    """One Node process. `with FrameConverter() as converter:` starts and ends it."""

    def __enter__(self) -> Self:
        node = shutil.which("node")
        if node is None or not (FOLDER / "node_modules" / "@grafana" / "data").is_dir():
            raise RuntimeError("node or tests/node/node_modules is missing; `make test` installs both")
        self._count = 0
        self._process = subprocess.Popen(
            [node, "convert.cjs"],
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def convert(self, body: Any) -> list[dict[str, Any]]:
        """The frames that a panel gets. Raises AssertionError with what the panel would show as an error."""
        self._count += 1
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"id": self._count, "body": body}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["id"] == self._count
        assert "error" not in answer, f"Grafana shows: {answer['error']}"
        frames: list[dict[str, Any]] = answer["frames"]
        return frames
