"""Putting restored files in place: all of them or none, and the old ones stay beside the new.

First every file is copied beside its target and compared with what was saved. Then the old ones are renamed to
`<name>.before-<UTC time>` and the new ones take their names; what goes wrong there is undone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.backup import disk
from app.backup.manifest import Entry, check_file, check_files, entry_of, stamp
from app.errors import BackupError


@dataclass(frozen=True, slots=True)
class Step:
    """One file or folder of a backup and where it goes. `saved`: the one file's entry, or those of the folder's files."""

    source: Path
    target: Path
    saved: Entry | Mapping[str, Entry]

    def check(self, who: str, path: Path) -> None:
        """Raises BackupError unless the file or folder is what was saved."""
        if isinstance(self.saved, Entry):
            check_file(who, path, self.saved)
        else:
            check_files(who, path, self.saved)

    @property
    def done(self) -> bool:
        """The target is there and holds the same already."""
        if isinstance(self.saved, Entry):
            return self.target.is_file() and entry_of(self.target) == self.saved
        return False


def put(who: str, steps: Sequence[Step], clear: Sequence[Path], force: bool) -> Iterator[str]:
    """Carry the steps out and move `clear` out of the way. Raises BackupError, with everything as it was."""
    steps = [step for step in steps if not step.done]
    taken = [step.target for step in steps if _there(step.target)]
    if taken and not force:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise BackupError(f"{who}: {taken[0]} exists{more}; say --force to replace it, the old one is kept beside it")
    suffix = stamp(time.time_ns() // 1_000_000)
    undo: list[Callable[[], object]] = []
    staged: list[Path] = []
    try:
        with disk.told(who):
            for step in steps:
                staged.append(step.target.with_name(f".{step.target.name}.restoring-{suffix}"))
                _stage(who, step, staged[-1])
            moved = [*_move_aside([*(step.target for step in steps), *clear], suffix, undo)]
            for step, new in zip(steps, staged, strict=True):
                new.rename(step.target)
                undo.append(partial(disk.remove, step.target))
                disk.sync(step.target.parent)
    except BaseException:
        for again in reversed(undo):
            again()
        for new in staged:
            disk.remove(new)
        raise
    yield from (f"kept: {old}" for old in moved)
    yield from (f"restored: {step.target}" for step in steps)
    if not steps:
        yield "nothing to do: everything is there as it was saved"


def _stage(who: str, step: Step, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    disk.copy(step.source, new)
    step.check(who, new)
    disk.belong_as(new, step.target if _there(step.target) else step.target.parent)


def _move_aside(paths: Sequence[Path], suffix: str, undo: list[Callable[[], object]]) -> Iterator[Path]:
    for path in paths:
        if _there(path):
            old = path.with_name(f"{path.name}.before-{suffix}")
            path.rename(old)
            undo.append(partial(old.rename, path))
            yield old


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
