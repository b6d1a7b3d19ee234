"""One at a time: a lock that ends with its process, however that ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.errors import BackupError

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        # A byte far behind the text: Windows keeps others from reading a byte that is locked.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold the lock. Raises BackupError when another process does; it is told by its number."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take_or_tell(handle, file)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def _take_or_tell(handle: int, file: Path) -> None:
    try:
        _take(handle)
    except OSError as problem:
        holder = "?"
        with suppress(OSError, UnicodeDecodeError):
            holder = file.read_text(encoding="ascii") or holder
        raise BackupError(
            f"{file.parent}: another backup or restore is at work here (process {holder}); wait for it"
        ) from problem
