"""Durable writing: files are on the disk before their names appear, with the owner and mode of their neighbours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import BackupError

_PRIVATE = 0o600


@contextmanager
def os_errors(who: str) -> Iterator[None]:
    """Turn an OSError into a BackupError with one line of text."""
    try:
        yield
    except OSError as problem:
        name = problem.filename2 or problem.filename
        where = f": {name}" if name else ""
        raise BackupError(f"{who}: {problem.strerror or problem}{where}") from problem


def copy_file(source: Path, target: Path) -> None:
    """Copy a file. The copy is on the disk when this returns."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(_PRIVATE)
    sync(target)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a whole folder. Links are copied as links; the check refuses them."""
    if not source.is_dir():
        copy_file(source, target)
        return
    shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else _PRIVATE)
            sync(path)


def write(target: Path, content: bytes) -> None:
    """Write a new file. It is on the disk when this returns."""
    with target.open("xb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())


def replace(target: Path, content: bytes) -> None:
    """Replace a file atomically: it has either the old content or the new."""
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    write(new, content)
    new.replace(target)


def sync(path: Path) -> None:
    """Flush a file's bytes or a folder's names to the disk. Windows cannot flush a folder."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if folder or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def belong_as(path: Path, model: Path) -> None:
    """Give a restored file or folder the owner of its model (its predecessor or its parent folder), and suitable modes.

    Only root can change owners; other users own the files that they restore.
    """
    if os.name == "nt":
        return
    like = model.stat()
    for each in (path, *(path.rglob("*") if path.is_dir() else ())):
        if os.geteuid() == 0:
            os.chown(each, like.st_uid, like.st_gid, follow_symlinks=False)
        each.chmod(0o750 if each.is_dir() else 0o640)
