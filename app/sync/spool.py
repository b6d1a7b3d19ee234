"""Undelivered calls on the disk, so that they survive a restart."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from app.documents.schema import Strict
from app.sources.base import first_line
from app.sync.call import SyncCall

_log = logging.getLogger(__package__)
#: the names of calls; the folder may hold other files too
_NAMES = "[0-9]*-redis.*-*.json"


class QueuedCall(Strict):
    """An undelivered call, in memory and in the spool."""

    call: SyncCall
    queued_ms: int

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.call.from_ms}-{self.call.event}-{self.call.idempotency_key}.json"

    @property
    def sort_key(self) -> tuple[int, int, str]:
        """The order of sending: "redis.down" sorts before the "redis.up" that ends the same outage."""
        return self.queued_ms, self.call.from_ms, self.call.event


class Spool:
    """One file for each undelivered call. If the disk fails, calls are still delivered, but do not survive a restart."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def keep(self, queued: QueuedCall) -> None:
        """Write the call's file."""
        if self._folder is None:
            return
        unfinished = self._folder / f"{queued.file_name}.{os.getpid()}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(queued.model_dump_json(), encoding="utf-8")
            os.replace(unfinished, self._folder / queued.file_name)
        except OSError as problem:
            _log.error("sync: %s is not in the spool and would not survive a restart: %s", queued.file_name, first_line(problem))

    def forget(self, queued: QueuedCall) -> None:
        """Remove the call's file."""
        if self._folder is None:
            return
        try:
            (self._folder / queued.file_name).unlink(missing_ok=True)
        except OSError as problem:
            _log.error("sync: %s stays in the spool and will be sent again: %s", queued.file_name, first_line(problem))

    def read_calls(self) -> list[QueuedCall]:
        """The calls of all files, in the order in which they were queued."""
        if self._folder is None:
            return []
        read = [self._read_file(file) for file in self._folder.glob(_NAMES)]
        return sorted((queued for queued in read if queued is not None), key=lambda queued: queued.sort_key)

    def _read_file(self, file: Path) -> QueuedCall | None:
        try:
            queued = QueuedCall.model_validate_json(file.read_bytes())
            if file.name != queued.file_name:  # otherwise it would never be removed
                os.replace(file, file.with_name(queued.file_name))
            return queued
        except (OSError, ValueError) as problem:
            with suppress(OSError):
                os.replace(file, file.with_suffix(".bad"))
            _log.error("sync: the spool's %s is damaged and put aside as .bad (%s)", file.name, type(problem).__name__)
            return None
