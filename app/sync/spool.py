"""Calls that wait, over a restart."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from app.sources.base import Strict, first_line
from app.sync.call import SyncCall

_log = logging.getLogger(__package__)


class Entry(Strict):
    """A call that waits, as the spool keeps it."""

    call: SyncCall
    queued_ms: int

    @property
    def name(self) -> str:
        """Its file's."""
        return f"{self.call.from_ms}-{self.call.event}-{self.call.idempotency_key}.json"

    @property
    def turn(self) -> tuple[int, int, str]:
        """The order of sending: "redis.down" sorts before the "redis.up" that ends the same outage."""
        return self.queued_ms, self.call.from_ms, self.call.event


class Spool:
    """One file for each call that waits. A disk that fails costs the survival of a restart, not the delivery."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def keep(self, entry: Entry) -> None:
        """Until it is forgotten."""
        if self._folder is None:
            return
        unfinished = self._folder / f"{entry.name}.{os.getpid()}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(entry.model_dump_json(), encoding="utf-8")
            os.replace(unfinished, self._folder / entry.name)
        except OSError as problem:
            _log.error("sync: %s is not in the spool and would not survive a restart: %s", entry.name, first_line(problem))

    def forget(self, entry: Entry) -> None:
        """It is delivered, or given up."""
        if self._folder is None:
            return
        try:
            (self._folder / entry.name).unlink(missing_ok=True)
        except OSError as problem:
            _log.error("sync: %s stays in the spool and will be sent again: %s", entry.name, first_line(problem))

    def kept(self) -> list[Entry]:
        """In the order in which they were queued."""
        if self._folder is None:
            return []
        read = [self._read(file) for file in self._folder.glob("*.json")]
        return sorted((entry for entry in read if entry is not None), key=lambda entry: entry.turn)

    def _read(self, file: Path) -> Entry | None:
        try:
            entry = Entry.model_validate_json(file.read_bytes())
            if file.name != entry.name:  # else it would never be forgotten
                os.replace(file, file.with_name(entry.name))
            return entry
        except (OSError, ValueError) as problem:
            with suppress(OSError):
                os.replace(file, file.with_suffix(".bad"))
            _log.error("sync: the spool's %s is damaged and put aside as .bad (%s)", file.name, type(problem).__name__)
            return None
