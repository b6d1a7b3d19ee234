"""A lock between processes. It is released when its process ends, however that happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock_file(handle: int) -> None:
        # A byte far behind the text: on Windows others cannot read a locked byte.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock_file(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


# Never follow a link: it might lead to another program's file.
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def exclusive_lock(file: Path, refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Hold the lock. If another process holds it, raise `refusal(its process number)`."""
    handle = os.open(file, _FLAGS, 0o600)
    try:
        _lock_or_refuse(handle, file, refusal)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def _lock_or_refuse(handle: int, file: Path, refusal: Callable[[str], Exception]) -> None:
    try:
        _lock_file(handle)
    except OSError as problem:
        holder = "?"
        with suppress(OSError, UnicodeDecodeError):
            holder = file.read_text(encoding="ascii") or holder
        raise refusal(holder) from problem
