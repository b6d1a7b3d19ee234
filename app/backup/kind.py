"""What every kind of backup offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from app.backup.archive import Archive
from app.backup.manifest import DATA, Backup, KindName, Manifest
from app.errors import BackupError


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is known of a backup when its files are there."""

    versions: dict[str, str]
    base: str | None = None
    place: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


class Kind(Protocol):
    """One kind: how it is taken, looked at and put back. Raises BackupError."""

    name: KindName
    #: said after each backup: what else is needed to restore it
    reminder: str

    @property
    def unprunable(self) -> str:
        """Why old ones cannot be removed from here; empty where they can."""

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Save into the part (or to another place, which the draft names)."""

    def files(self, folder: Path, place: Mapping[str, str]) -> Path | None:
        """The folder that holds the files of the part or backup in `folder`; None where they cannot be reached from here."""

    def look(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """What the backup holds when it is restored (to `aside`, where that is given), in figures that can be compared."""

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Put it where it belongs, or to `to`. It was checked. Yields what was done."""

    def discard(self, part: Path) -> None:
        """Remove what a failed or killed `take` has left outside of its part."""

    def remove(self, manifest: Manifest) -> None:
        """Remove what a backup has outside of its folder."""


class InFolder:
    """What the kinds share whose files are in the backup's own folder."""

    reminder = ""
    unprunable = ""

    def files(self, folder: Path, place: Mapping[str, str]) -> Path | None:
        """They are in the backup."""
        return folder / DATA

    def discard(self, part: Path) -> None:
        """Nothing is outside."""

    def remove(self, manifest: Manifest) -> None:
        """Nothing is outside."""


def compare(who: str, saved: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises BackupError unless a restored copy holds what was saved. Nothing is compared where nothing was noted."""
    if not saved or found == saved:
        return
    now, then = _leaves(found), _leaves(saved)
    differs = sorted(now.items() ^ then.items())[0][0]
    raise BackupError(f"{who}: restored, it does not hold what was saved: {differs}: {now.get(differs)}, not {then.get(differs)}")


def _leaves(node: Any, path: str = "") -> dict[str, str]:
    if not isinstance(node, Mapping):
        return {path: str(node)}
    return {key: leaf for name, inner in node.items() for key, leaf in _leaves(inner, f"{path}.{name}" if path else name).items()}
