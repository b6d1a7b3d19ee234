"""Writing that lasts: copies that are on the disk before their name is seen, and an owner and mode as beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import BackupError

_PRIVATE = 0o600


@contextmanager
def told(who: str) -> Iterator[None]:
    """What the system refuses, in one line."""
    try:
        yield
    except OSError as problem:
        name = problem.filename2 or problem.filename
        where = f": {name}" if name else ""
        raise BackupError(f"{who}: {problem.strerror or problem}{where}") from problem


def copy_file(source: Path, target: Path) -> None:
    """A copy that is on the disk when this returns."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(_PRIVATE)
    sync(target)


def copy(source: Path, target: Path) -> None:
    """A file, or a folder with all that is below it. Links are copied as links, for the check to refuse."""
    if not source.is_dir():
        copy_file(source, target)
        return
    shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else _PRIVATE)
            sync(path)


def write(target: Path, content: bytes) -> None:
    """A new file with this content, on the disk when this returns."""
    with target.open("xb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())


def replace(target: Path, content: bytes) -> None:
    """The file has the old content or the new, never a part."""
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    write(new, content)
    new.replace(target)


def sync(path: Path) -> None:
    """Put a file's bytes, or a folder's names, on the disk. Windows has no way to do that to a folder."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if folder or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """A file, a link or a whole folder; nothing when it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def belong_as(path: Path, model: Path) -> None:
    """Give a restored file or folder the owner of its model (its predecessor, or the folder it stands in), and modes to match.

    Only root can give away; anybody else's restored files are his own.
    """
    if os.name == "nt":
        return
    like = model.stat()
    for each in (path, *(path.rglob("*") if path.is_dir() else ())):
        if os.geteuid() == 0:
            os.chown(each, like.st_uid, like.st_gid, follow_symlinks=False)
        each.chmod(0o750 if each.is_dir() else 0o640)
