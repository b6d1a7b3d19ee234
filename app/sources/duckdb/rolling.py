"""Publishes a snapshot again, with roll-ups: for a writer that has none.

The writer's files are read and never changed. The new snapshot is made in a file of its own, gets its name when it is complete,
and the pointer is set to it last. In the writer's own folder its name is a millisecond later than that of the snapshot before.
The roll-ups of the last such snapshot are taken over, so that only the hours that have changed since are rolled up.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from app.process_lock import exclusive_lock
from app.sources.duckdb.pruning import kept_snapshots
from app.sources.duckdb.rollups import copy_rollups, has_rollups, update_rollups
from app.sources.duckdb.snapshots import POINTER, covers_to_ms, find_computed

_LOCK, _MAKING = ".rollup.lock", ".rollup.making"
#: what it may use beside the writer, on the writer's host
_LIMITS: dict[str, Any] = {"memory_limit": "2GB", "threads": "2"}


class RefusedRollup(Exception):
    """Why nothing was published."""


def publish_rollups(folder: Path, to: Path, *, anew: bool = False) -> str:
    """Publish the newest snapshot of `folder` in `to`, with roll-ups; a line about what was done.

    Raises RefusedRollup or OSError; then nothing was published.
    """
    try:
        return _publish(folder, to, anew)
    except duckdb.Error as problem:
        raise RefusedRollup(str(problem)) from problem


def _publish(folder: Path, to: Path, anew: bool) -> str:
    with exclusive_lock(to / _LOCK, lambda holder: RefusedRollup(f"process {holder} is at work in {to}")):
        name = _newest_name(folder)
        in_place = to.resolve() == folder.resolve()
        if not anew and (not in_place or _reaches(folder / name)) and _reaches(to / name):
            return f"{to / name}: has its roll-ups"
        with _making(to) as making:
            shutil.copyfile(folder / name, making)
            hours = add_rollups(making, _former_snapshot(to, name), anew)
            if in_place and _newest_name(folder) != name:
                raise RefusedRollup(f"{name}: a newer snapshot came meanwhile; the next run will roll that up")
            target = _link_free(making, to, name, first_ms=1 if in_place else 0)
        _set_pointer(to, target.name)
        return f"{target}: published, {hours} hours rolled up"


def _newest_name(folder: Path) -> str:
    """The name that the pointer has, else the newest. Raises RefusedRollup where there is none."""
    pointer = folder / POINTER
    if pointer.is_file():
        name = pointer.read_text(encoding="utf-8", errors="replace")[:200].strip()
        if covers_to_ms(name) is not None and (folder / name).is_file():
            return name
    found = kept_snapshots(folder)
    if not found:
        raise RefusedRollup(f"no snapshot in {folder}")
    return found[-1].file.name


def _former_snapshot(to: Path, name: str) -> Path | None:
    """The newest other snapshot that has roll-ups, of those before this one."""
    before = [one.file for one in kept_snapshots(to) if one.file.name < name]
    return next((file for file in reversed(before) if _reaches(file)), None)


def _reaches(file: Path) -> bool:
    """Whether a snapshot has roll-ups as new as its samples."""
    try:
        with duckdb.connect(str(file), read_only=True, config=_LIMITS) as opened:
            newest = "SELECT (SELECT max(ts) FROM account_snapshots) = (SELECT max(ts) FROM account_snapshots_1m)"
            return has_rollups(opened) and opened.execute(newest).fetchone() == (True,)
    except duckdb.Error:
        return False


@contextmanager
def _making(to: Path) -> Iterator[Path]:
    """The file in which the snapshot is made. What an earlier run has left is removed; the lock says that none runs."""
    making = to / _MAKING
    leftovers = (making, making.with_name(f"{_MAKING}.wal"))
    for file in leftovers:
        file.unlink(missing_ok=True)
    try:
        yield making
    finally:
        for file in leftovers:
            file.unlink(missing_ok=True)


def add_rollups(file: Path, former: Path | None, anew: bool) -> int:
    """Roll up the samples of a database; how many hours that were. Those of a former snapshot are taken over.

    Raises RefusedRollup where the database could run code, duckdb.Error.
    """
    with duckdb.connect(str(file), config=_LIMITS) as database:
        computed = find_computed(database)
        if computed is not None:
            raise RefusedRollup(f"the snapshot holds the {computed}, which could run code")
        if former is not None and not anew and not has_rollups(database):
            database.execute(f"ATTACH '{str(former).replace(chr(39), chr(39) * 2)}' AS former (READ_ONLY)")
            copy_rollups(database, "former")
            database.execute("DETACH former")
        hours = update_rollups(database, anew=anew)
        database.execute("CHECKPOINT")
    with file.open("rb+") as written:
        os.fsync(written.fileno())
    return hours


def _link_free(making: Path, to: Path, name: str, first_ms: int) -> Path:
    """Give the finished file the first name that is free, from so many ms after the instant in this name on."""
    for later_ms in range(first_ms, 1000):
        target = to / _later_name(name, later_ms)
        try:
            # A name is never given twice: a link to a name that is taken fails, whoever took it.
            os.link(making, target)
        except FileExistsError:
            continue
        return target
    raise RefusedRollup(f"{name}: every name of the second after it is taken")


def _later_name(name: str, later_ms: int) -> str:
    at_ms = (covers_to_ms(name) or 0) + later_ms
    stamp = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y%m%dT%H%M%S")
    return f"snap-{stamp}.{at_ms % 1000:03d}Z.duckdb"


def _set_pointer(to: Path, name: str) -> None:
    pointer = to / f"{POINTER}.rollup"
    pointer.write_text(f"{name}\n", encoding="utf-8")
    os.replace(pointer, to / POINTER)
