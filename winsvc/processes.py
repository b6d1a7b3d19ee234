"""How this system starts a supervised program, ties it to its supervisor and asks it to end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from winsvc.supervise import Handling

_NEW_GROUP = 0x00000200  # CREATE_NEW_PROCESS_GROUP: otherwise a CTRL_BREAK for the program would reach its supervisor


Process = subprocess.Popen[str]
Tie = Callable[[Process], Callable[[], None]]
Ask = Callable[[Process], None]


def leave_untied(_: Process) -> Callable[[], None]:
    """For a console and for tests: end the process only, and none of its children."""
    return lambda: None


def process_handling(environment: Mapping[str, str], tie: Tie = leave_untied, ask: Ask = Process.terminate) -> Handling:
    """The handling on this system. `environment` is added to this process's own."""
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
    """The lines NAME=VALUE of a secrets file, for the program's environment; empty without a file."""
    if not file.exists():
        return {}
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}
