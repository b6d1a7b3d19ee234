"""Puts restored files in place, all of them or none, and keeps the old ones beside them.

First every file is copied beside its target and checked. Then the old files are renamed to `<name>.before-<UTC time>` and the new
ones take their names. If something fails, every step is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.backup import disk
from app.backup.manifest import SavedFile, check_file, check_files, hash_file, time_stamp
from app.clock import wall_ms
from app.errors import BackupError


@dataclass(frozen=True, slots=True)
class Step:
    """One file or folder of a backup and its target. `saved`: the file's size and hash, or those of the folder's files."""

    source: Path
    target: Path
    saved: SavedFile | Mapping[str, SavedFile]

    def check(self, who: str, path: Path) -> None:
        """Raise BackupError unless the file or folder is what was saved."""
        if isinstance(self.saved, SavedFile):
            check_file(who, path, self.saved)
        else:
            check_files(who, path, self.saved)

    @property
    def is_done(self) -> bool:
        """Whether the target already has the same content."""
        if isinstance(self.saved, SavedFile):
            return self.target.is_file() and hash_file(self.target) == self.saved
        return False


def put_in_place(who: str, steps: Sequence[Step], clear: Sequence[Path], force: bool) -> Iterator[str]:
    """Carry out the steps and move the files in `clear` aside. If it raises BackupError, everything is as before."""
    steps = [step for step in steps if not step.is_done]
    taken = [step.target for step in steps if _exists(step.target)]
    if taken and not force:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise BackupError(f"{who}: {taken[0]} exists{more}; say --force to replace it, the old one is kept beside it")
    suffix = time_stamp(wall_ms())
    undo: list[Callable[[], object]] = []
    staged: list[Path] = []
    try:
        with disk.os_errors(who):
            for step in steps:
                _make_folder(step.target.parent, undo)
                staged.append(step.target.with_name(f".{step.target.name}.restoring-{suffix}"))
                undo.append(partial(disk.remove, staged[-1]))
                _stage_copy(who, step, staged[-1])
            moved = [*_move_aside([*(step.target for step in steps), *clear], suffix, undo)]
            for step, new in zip(steps, staged, strict=True):
                new.rename(step.target)
                undo.append(partial(disk.remove, step.target))
                disk.sync(step.target.parent)
    except BaseException:
        for again in reversed(undo):
            again()
        raise
    yield from (f"kept: {old}" for old in moved)
    yield from (f"restored: {step.target}" for step in steps)
    if not steps:
        yield "nothing to do: everything is there as it was saved"


def _make_folder(folder: Path, undo: list[Callable[[], object]]) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        undo.append(path.rmdir)


def _stage_copy(who: str, step: Step, new: Path) -> None:
    disk.copy(step.source, new)
    step.check(who, new)
    disk.belong_as(new, step.target if _exists(step.target) else step.target.parent)


def _move_aside(paths: Sequence[Path], suffix: str, undo: list[Callable[[], object]]) -> Iterator[Path]:
    for path in paths:
        if _exists(path):
            old = path.with_name(f"{path.name}.before-{suffix}")
            path.rename(old)
            undo.append(partial(old.rename, path))
            yield old


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()
