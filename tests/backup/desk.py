"""A desk with stores in one folder, its configuration, and the commands as a person types them."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.__main__ import main
from app.backup import KINDS, Archive, Backup, KindName
from app.backup.manifest import SavedFile, hash_files


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command said."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Desk:
    """`settings` is the section `backup`, `sources` the sources; both are written down before each command."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)

    @property
    def archive(self) -> Archive:
        """Where the backups are."""
        return Archive(self.folder / "backups")

    @property
    def config(self) -> Path:
        """The configuration, in a folder of its own."""
        file = self.folder / "etc" / "bridge.yaml"
        file.parent.mkdir(exist_ok=True)
        sources = {name: {"connect": connect} for name, connect in self.sources.items()}
        settings = {"folder": str(self.archive.folder), **self.settings}
        text = json.dumps({"sources": sources, "backup": settings, "catalog": str(_catalog(file.parent))})
        if not file.is_file() or file.read_text("utf-8") != text:
            file.write_text(text, "utf-8")
        return file

    def run(self, *words: str) -> Ran:
        """`bridge WORDS`."""
        out, err = io.StringIO(), io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([*words, "--config", str(self.config)])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Ran(code, out.getvalue(), err.getvalue())

    def run_apart(self, *words: str, **how: Any) -> Ran:
        """`bridge WORDS` in a process of its own; `how` is for subprocess."""
        command = [sys.executable, "-m", "app", *words, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **how)
        return Ran(done.returncode, done.stdout, done.stderr)

    def saved(self, kind: KindName, *words: str) -> Backup:
        """A new backup of a kind."""
        done = self.run("backup", kind, *words)
        assert (done.code, done.err) == (0, ""), done.err
        return self.archive.backups(kind)[0]

    def state(self) -> dict[str, SavedFile]:
        """Every byte of the desk and its backups, but for the lock and the notes on the last results."""
        assert self.config.is_file()  # written by now, with what it is written into
        return {path: entry for path, entry in hash_files(self.folder).items() if not _is_note(path)}


def _is_note(path: str) -> bool:
    return path == "backups/.bridge-lock" or path in [f"backups/.last-{kind}.json" for kind in KINDS]


def _catalog(folder: Path) -> Path:
    catalog = folder / "catalog"
    if not catalog.is_dir():
        catalog.mkdir()
        (catalog / "empty.yaml").write_text("group: none\ntitle: None\nmetrics: {}\n", "utf-8")
    return catalog


def flip(file: Path) -> None:
    """One bit of a file's middle byte turns round."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
