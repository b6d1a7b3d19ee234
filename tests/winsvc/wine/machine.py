"""A Windows machine to run services on: wine, with the Python of tree.py, on a prefix of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

from tests.winsvc.wine.tree import ENVIRONMENT, PREFIX, PRISTINE, PYTHON, ROOT, WINE

_FACT = re.compile(r"(STATE|WIN32_EXIT_CODE|SERVICE_EXIT_CODE|WAIT_HINT)\s*:\s*(\d+|0x[0-9a-f]+)", re.I)
#: wine has no Event Log to read, but says what is written to it, and as what
#: Wine shows the first 300 characters or so of a text, and "..." behind one that it cut.
_EVENT = re.compile(r'(\w+):eventlog:ReportEventW L"(.*)"(\.\.\.)?$')
#: How many characters of a text a test may rely on.
_SHOWN = 200
_KINDS = {"trace": "info", "warn": "warning", "err": "error"}
_STATES = {1: "stopped", 2: "starting", 3: "stopping", 4: "running"}


def windows(path: Path) -> str:
    """How Windows calls a path of this machine."""
    return "Z:" + str(path).replace("/", "\\")


class Machine:
    """The running machine. It stands as long as it is entered: wine stops its services with its last ordinary process."""

    def __init__(self) -> None:
        self._keeper: subprocess.Popen[str] | None = None
        self._said: list[str] = []

    def __enter__(self) -> Self:
        if not (WINE / "tree.stamp").exists():
            raise RuntimeError(f"there is no Windows Python in {WINE}; `make test-windows` builds it")
        self._end_all()
        shutil.copy(PRISTINE, PREFIX / "system.reg")  # what a failed test left installed would start with the machine
        code = "import sys; print(1, flush=True); sys.stdin.read()"
        command = ["wine", str(PYTHON / "python.exe"), "-I", "-c", code]
        pipe = subprocess.PIPE
        self._keeper = subprocess.Popen(
            command, env=_environment("-all,+eventlog"), stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
        )
        assert self._keeper.stdout is not None
        self._keeper.stdout.readline()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def _listen(self) -> None:
        assert self._keeper is not None
        assert self._keeper.stderr is not None
        for line in self._keeper.stderr:
            self._said.append(line.rstrip())

    def __exit__(self, *_: object) -> None:
        assert self._keeper is not None
        self._end_all()
        self._keeper.wait()
        self._listener.join()
        for stream in (self._keeper.stdin, self._keeper.stdout, self._keeper.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _end_all(self) -> None:
        """What runs in this prefix, from this or from an earlier run; nothing else on this machine."""
        subprocess.run(["wineserver", "-k"], env=_environment(), check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["wineserver", "-w"], env=_environment(), check=True)

    def run(self, *command: str, expect: int = 0) -> str:
        """What a command says. Raises AssertionError when it ends with another exit code than the one expected."""
        done = self.popen(*command)
        said = done.communicate(timeout=100)[0].decode(errors="replace").replace("\r", "")
        assert done.returncode == expect, f"{command} ended with {done.returncode}: {said}"
        return said

    def popen(self, *command: str) -> subprocess.Popen[bytes]:
        """A command that goes on by itself. Its streams are pipes: Windows' Python aborts on others."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["wine", *command], env=_environment(), cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
        )

    def winsvc(self, *arguments: str, expect: int = 0) -> str:
        """What `python -m winsvc ...` says."""
        return self.run(str(PYTHON / "python.exe"), "-m", "winsvc", *arguments, expect=expect)

    def query(self, name: str) -> dict[str, int]:
        """What the service control manager says of a service: `sc query`'s numbers."""
        said = self.run("sc", "query", name)
        return {fact.lower(): int(value, 0) for fact, value in _FACT.findall(said)}

    def events(self) -> list[tuple[str, str]]:
        """What was written to the Event Log: kind and text."""
        found = (_EVENT.search(line) for line in self._said)
        return [(_KINDS[event[1]], event[2].replace("\\\\", "\\")) for event in found if event]

    def events_end_with(self, *wanted: tuple[str, str]) -> None:
        """Assert that these are the newest events. Of a long text only its begin is compared, because Wine cuts it."""
        newest = self.events()[-len(wanted) :]
        begins = [(kind, text[: len(found)]) for (kind, text), (_, found) in zip(wanted, newest, strict=True)]
        assert newest == begins
        assert all(len(found) >= min(len(text), _SHOWN) for (_, text), (_, found) in zip(wanted, newest, strict=True))

    def state(self, name: str) -> str:
        """Its state in a word."""
        return _STATES[self.query(name)["state"]]

    def until(self, name: str, wanted: str, limit_s: float = 30.0) -> None:
        """Wait for a state."""
        ends_s = time.monotonic() + limit_s
        while (state := self.state(name)) != wanted:
            assert time.monotonic() < ends_s, f"{name} is {state}, not {wanted}, after {limit_s:g}s"
            time.sleep(0.1)

    def exits(self, name: str) -> tuple[int, int]:
        """With what it stopped: Windows' exit code and its own."""
        found = self.query(name)
        return found["win32_exit_code"], found["service_exit_code"]


def _environment(debug: str = "-all") -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT, "WINEDEBUG": debug}
