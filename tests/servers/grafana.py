"""Grafana's own code (@grafana/data) under Node: what a panel would get from an answer of ours, and what its reader would see."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

FOLDER = Path(__file__).parents[1] / "node"


class _Script:
    """One Node process that answers a line of JSON with a line of JSON. `with` starts and ends it."""

    script: ClassVar[str]

    def __enter__(self) -> Self:
        node = shutil.which("node")
        if node is None or not (FOLDER / "node_modules" / "@grafana" / "data").is_dir():
            raise RuntimeError("node or tests/node/node_modules is missing; `make test` installs both")
        self._count = 0
        self._process = subprocess.Popen(
            [node, self.script],
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

    def ask(self, question: Mapping[str, Any]) -> Any:
        """The answer. Raises AssertionError with what the panel would show as an error."""
        self._count += 1
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"id": self._count, **question}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["id"] == self._count
        assert "error" not in answer, f"Grafana shows: {answer['error']}"
        return answer


class FrameConverter(_Script):
    """Grafana's frame converter."""

    script = "convert.cjs"

    def convert(self, body: Any) -> list[dict[str, Any]]:
        """The frames that a panel gets. Raises AssertionError with what the panel would show as an error."""
        frames: list[dict[str, Any]] = self.ask({"body": body})["frames"]
        return frames


class PanelRenderer(_Script):
    """Grafana's transformations, field settings and large figures."""

    script = "panel.cjs"

    def render(self, body: Any, panel: Mapping[str, Any], variables: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What a reader of the panel sees of an answer: `frames` with notices and cells, and `figures`."""
        seen: dict[str, Any] = self.ask({"body": body, "panel": panel, "variables": variables or {}})
        return seen

    def transformations(self) -> list[str]:
        """The names of all transformations of the package."""
        names: list[str] = self.ask({"transformations": True})["transformations"]
        return names
