"""How the backups stand: age, size and last result of each kind, for the metrics and `bridge check`.

The folder may be a share that hangs, so it is looked at beside the requests, in a thread; a scrape only computes the ages.
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
from app.backup.command import age_text
from app.backup.manifest import Backup, KindName
from app.errors import BackupError
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """One kind. `verified_ms` is when a backup of it was last found good; None and NaN are never and unknown."""

    kind: KindName
    newest_ms: int | None
    size_bytes: float
    last_ok: bool | None
    verified_ok: bool | None
    verified_ms: int | None

    def __str__(self) -> str:
        age = "NEVER" if self.newest_ms is None else f"{age_text(time.time() - self.newest_ms / 1000)} old"
        failed = ", the last one FAILED" if self.last_ok is False else ""
        unproven = ", verify FAILED" if self.verified_ok is False else ""
        return f"{self.kind} {age}{failed}{unproven}"


@dataclass(slots=True)
class Standings:
    """Reads them; a manifest is read once, since it never changes."""

    folder: Path
    kinds: tuple[KindName, ...]
    _sizes: dict[str, float] = field(default_factory=dict)

    def read(self) -> list[Standing]:
        """All of them, as they are now. Raises OSError."""
        archive = Archive(self.folder)
        return [self._of(archive, kind) for kind in self.kinds]

    def _of(self, archive: Archive, kind: KindName) -> Standing:
        newest = next(iter(archive.backups(kind)), None)
        notes = archive.notes(kind)
        taken, verified = notes.get("backup", {}), notes.get("verify", {})
        return Standing(
            kind,
            newest.taken_ms if newest else None,
            self._size(newest) if newest else math.nan,
            taken.get("ok"),
            verified.get("ok"),
            verified.get("at_ms") if verified.get("ok") else None,
        )

    def _size(self, backup: Backup) -> float:
        if backup.name not in self._sizes:
            try:
                self._sizes[backup.name] = backup.manifest().size_bytes
            except BackupError:
                self._sizes[backup.name] = math.nan
        return self._sizes[backup.name]


def show(standings: Iterable[Standing], telemetry: Telemetry) -> None:
    """As metrics. A kind that was never saved is infinitely old: an alert on the age sees it."""
    for one in standings:
        telemetry.backup_age.labels(one.kind).set_function(_age_of(one.newest_ms))
        telemetry.backup_verified_age.labels(one.kind).set_function(_age_of(one.verified_ms))
        telemetry.backup_size.labels(one.kind).set(one.size_bytes)
        telemetry.backup_last_ok.labels(one.kind).set(math.nan if one.last_ok is None else one.last_ok)


def _age_of(at_ms: int | None) -> _Age:
    return _Age(at_ms)


@dataclass(frozen=True, slots=True)
class _Age:
    at_ms: int | None

    def __call__(self) -> float:
        return math.inf if self.at_ms is None else max(time.time() - self.at_ms / 1000, 0.0)


async def watch(standings: Standings, telemetry: Telemetry) -> None:
    """Look again and again for ever."""
    while True:
        try:
            show(await asyncio.to_thread(standings.read), telemetry)
        except OSError as problem:
            _log.warning("the backups cannot be looked at: %s", problem)
        await asyncio.sleep(_LOOK_EVERY_S)


def line(standings: Standings | None) -> Iterator[str]:
    """For `bridge check`."""
    if standings is None:
        yield "backups: off (no backup.folder)"
        return
    with suppress(OSError):
        yield f"backups: {standings.folder}: {', '.join(map(str, standings.read()))}"
        return
    yield f"backups: {standings.folder}: cannot be read"
