"""The health of the backups: age, size and last result of each kind, for the metrics and `bridge check`.

The folder may be a share that hangs, so a thread reads it beside the requests. A scrape only computes the ages.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.backup.archive import Archive
from app.backup.manifest import Backup, KindName
from app.clock import age_text, wall_ms
from app.errors import BackupError
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)
_READ_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class BackupHealth:
    """The health of one kind. `verified_ms` is the last successful verification; None is never, NaN unknown."""

    kind: KindName
    newest_ms: int | None
    size_bytes: float
    last_ok: bool | None
    verified_ok: bool | None
    verified_ms: int | None

    def __str__(self) -> str:
        age = "NEVER" if self.newest_ms is None else f"{age_text(wall_ms() - self.newest_ms)} old"
        failed = ", the last one FAILED" if self.last_ok is False else ""
        unproven = ", verify FAILED" if self.verified_ok is False else ""
        return f"{self.kind} {age}{failed}{unproven}"


@dataclass(slots=True)
class BackupHealthReader:
    """Reads the health of all kinds. It reads each manifest once, since manifests never change."""

    folder: Path
    kinds: tuple[KindName, ...]
    _sizes: dict[str, float] = field(default_factory=dict)

    def read(self) -> list[BackupHealth]:
        """The current health of each kind. Raises OSError."""
        archive = Archive(self.folder)
        return [self._health_of(archive, kind) for kind in self.kinds]

    def _health_of(self, archive: Archive, kind: KindName) -> BackupHealth:
        newest = next(iter(archive.backups(kind)), None)
        notes = archive.read_notes(kind)
        taken, verified = notes.get("backup", {}), notes.get("verify", {})
        return BackupHealth(
            kind,
            newest.taken_ms if newest else None,
            self._size_of(newest) if newest else math.nan,
            taken.get("ok"),
            verified.get("ok"),
            verified.get("at_ms") if verified.get("ok") else None,
        )

    def _size_of(self, backup: Backup) -> float:
        if backup.name not in self._sizes:
            try:
                self._sizes[backup.name] = backup.manifest().size_bytes
            except BackupError:
                self._sizes[backup.name] = math.nan
        return self._sizes[backup.name]


def show_health(kinds: Iterable[BackupHealth], telemetry: Telemetry) -> None:
    """Set the metrics. A kind that was never saved is infinitely old, so that an alert on the age sees it."""
    for one in kinds:
        telemetry.backup_age.labels(one.kind).set_function(_Age(one.newest_ms))
        telemetry.backup_verified_age.labels(one.kind).set_function(_Age(one.verified_ms))
        telemetry.backup_size.labels(one.kind).set(one.size_bytes)
        telemetry.backup_last_ok.labels(one.kind).set(math.nan if one.last_ok is None else one.last_ok)


@dataclass(frozen=True, slots=True)
class _Age:
    at_ms: int | None

    def __call__(self) -> float:
        return math.inf if self.at_ms is None else max(time.time() - self.at_ms / 1000, 0.0)


async def watch_backups(reader: BackupHealthReader, telemetry: Telemetry) -> None:
    """Update the metrics every 30 s, for ever."""
    while True:
        try:
            show_health(await asyncio.to_thread(reader.read), telemetry)
        except OSError as problem:
            _log.warning("the backups cannot be looked at: %s", problem)
        await asyncio.sleep(_READ_EVERY_S)


def health_lines(reader: BackupHealthReader | None) -> Iterator[str]:
    """The line of `bridge check`."""
    if reader is None:
        yield "backups: off (no backup.folder)"
        return
    with suppress(OSError):
        yield f"backups: {reader.folder}: {', '.join(map(str, reader.read()))}"
        return
    yield f"backups: {reader.folder}: cannot be read"
