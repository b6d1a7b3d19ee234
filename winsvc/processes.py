"""How a supervised program is begun, tied to its supervisor and asked to end, on this system."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from winsvc.supervise import Handling

_NEW_GROUP = 0x00000200  # CREATE_NEW_PROCESS_GROUP: a CTRL_BREAK for the program is not one for its supervisor


Process = subprocess.Popen[str]
Tie = Callable[[Process], Callable[[], None]]
Ask = Callable[[Process], None]


def untied(_: Process) -> Callable[[], None]:
    """For a console and for tests: nothing but the process itself is ended."""
    return lambda: None


def handling(environment: Mapping[str, str], tie: Tie = untied, ask: Ask = Process.terminate) -> Handling:
    """For this system; `environment` comes on top of this process's own."""
    merged = {**os.environ, **environment}

    def popen(command: Sequence[str]) -> Process:
        return subprocess.Popen(
            command,
            env=merged,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            creationflags=_NEW_GROUP if sys.platform == "win32" else 0,
        )

    return Handling(popen, tie, ask)


def environment_of(file: Path) -> dict[str, str]:
    """The lines NAME=VALUE of a secrets file, for the program's environment; empty where there is none."""
    if not file.exists():
        return {}
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}
