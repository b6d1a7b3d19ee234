"""The snapshots in a folder: how many there are, how large they are, and removing those that nobody needs any more.

What is removed is named like a snapshot, is a plain file, and is older than what a reader may use: the one that `latest` names,
the one before it (a reader may be just opening it), and every newer one (its writer is about to name it). All else stays.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.sources.duckdb.snapshots import POINTER, covers_to_ms

LEAST_KEPT = 2


@dataclass(frozen=True, slots=True)
class KeptSnapshot:
    """A published snapshot of a folder."""

    file: Path
    covers_to_ms: int
    size_bytes: int


def kept_snapshots(folder: Path) -> list[KeptSnapshot]:
    """The published snapshots, oldest first. Raises OSError where the folder cannot be read."""
    return sorted(_published(folder), key=lambda one: one.covers_to_ms)


def _published(folder: Path) -> Iterator[KeptSnapshot]:
    for file in folder.iterdir():
        covers_ms = covers_to_ms(file.name)
        if covers_ms is None:
            continue
        try:
            found = file.lstat()
        except FileNotFoundError:
            continue  # its writer has just removed it
        if stat.S_ISREG(found.st_mode):
            yield KeptSnapshot(file, covers_ms, found.st_size)


def removable(folder: Path, keep: int) -> list[KeptSnapshot]:
    """The snapshots that nobody needs, oldest first: all but the newest `keep` and what a reader may use.

    Raises OSError where the folder or its pointer cannot be read, ValueError where the pointer names none of its snapshots.
    """
    if keep < LEAST_KEPT:
        raise ValueError(f"{keep} is too few: a reader may need the newest {LEAST_KEPT}")
    found = kept_snapshots(folder)
    first_needed = len(found) - keep
    pointer = folder / POINTER
    if pointer.exists():
        first_needed = min(first_needed, _pointed(pointer, [one.file.name for one in found]) - 1)
    return found[: max(first_needed, 0)]


def _pointed(pointer: Path, names: Sequence[str]) -> int:
    named = pointer.read_text(encoding="utf-8", errors="replace")[:200].strip()
    if named not in names:
        raise ValueError(f"{POINTER} names no snapshot of {pointer.parent}; nothing was removed")
    return names.index(named)


def prune_snapshots(folder: Path, keep: int, *, only_list: bool = False) -> Iterator[str]:
    """Remove what nobody needs; a line about each. A file that cannot be removed (Windows: it is open) is named and stays."""
    gone = removable(folder, keep)
    for one in gone:
        if not only_list:
            try:
                one.file.unlink(missing_ok=True)
            except OSError as problem:
                yield f"{one.file.name}: stays: {problem.strerror}"
                continue
        yield f"{one.file.name}: {'would be removed' if only_list else 'removed'} ({one.size_bytes / 1e6:.1f} MB)"
    yield f"{folder}: {len(kept_snapshots(folder))} snapshots are kept"
