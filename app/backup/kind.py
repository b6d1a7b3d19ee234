"""The interface of every kind of backup."""

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
    """The facts about a new backup, known once its files are written."""

    versions: dict[str, str]
    base: str | None = None
    place: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


class Kind(Protocol):
    """One kind of backup. The methods raise BackupError."""

    name: KindName
    #: printed after each backup: what else a restore needs
    reminder: str

    @property
    def prune_obstacle(self) -> str:
        """Why old backups cannot be removed from here; empty if they can."""

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Save into the part, or to another place that the draft names."""

    def files_folder(self, folder: Path, place: Mapping[str, str]) -> Path | None:
        """The folder with the files of the part or backup in `folder`; None if it cannot be read from here."""

    def contents_of(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """Comparable figures of the backup's contents, from a trial restore (to `aside`, if given)."""

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Restore a checked backup to its own place or to `to`. Yields lines about what was done."""

    def discard(self, part: Path) -> None:
        """Remove what a failed or killed `take` has written outside its part."""

    def remove(self, manifest: Manifest) -> None:
        """Remove a backup's files outside its folder."""


class InFolder:
    """The common part of kinds whose files are in the backup's own folder."""

    reminder = ""
    prune_obstacle = ""

    def files_folder(self, folder: Path, place: Mapping[str, str]) -> Path | None:
        """The data folder of the backup."""
        return folder / DATA

    def discard(self, part: Path) -> None:
        """Nothing is outside the folder."""

    def remove(self, manifest: Manifest) -> None:
        """Nothing is outside the folder."""


def require_files(backup: Backup, manifest: Manifest, *names: str) -> None:
    """Raise BackupError unless the manifest names exactly these files. Anybody who can write there can make a manifest."""
    differs = sorted(manifest.files.keys() ^ set(names))
    if differs:
        raise BackupError(f"{backup.name}: a backup of {backup.kind} holds {', '.join(names)}; this one differs in {differs[0]}")


def require_same_contents(who: str, saved: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise BackupError if a restored copy differs from what was saved. Without figures from the time of saving, accept it."""
    if not saved or found == saved:
        return
    now, then = _flat_leaves(found), _flat_leaves(saved)
    differs = sorted(now.items() ^ then.items())[0][0]
    raise BackupError(f"{who}: restored, it does not hold what was saved: {differs}: {now.get(differs)}, not {then.get(differs)}")


def _flat_leaves(node: Any, path: str = "") -> dict[str, str]:
    if not isinstance(node, Mapping):
        return {path: str(node)}
    return {
        key: leaf for name, inner in node.items() for key, leaf in _flat_leaves(inner, f"{path}.{name}" if path else name).items()
    }
