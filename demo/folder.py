"""The demo's own folder. A marker says that a demo made it, and only a demo's stores are removed from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree

from app.errors import BadQuery
from app.process_lock import exclusive_lock

MARKER = ".bridge-demo"
#: the subfolders that a demo makes
STORES = ("redis", "clickhouse", "duckdb", "prometheus")


@contextmanager
def hold_emptied(folder: Path) -> Iterator[None]:
    """Lock the folder and remove an earlier demo's stores. Raises BadQuery before anything is changed."""
    with ExitStack() as held:
        try:
            _refuse_foreign(folder)
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(
                exclusive_lock(folder / MARKER, lambda holder: _refusal_of(folder, f"another demo runs on it (process {holder})"))
            )
            for name in STORES:
                _remove_store(folder / name)
        except OSError as problem:
            raise _refusal_of(folder, f"{problem.filename}: {problem.strerror}") from problem
        yield


def _refuse_foreign(folder: Path) -> None:
    """Raise unless the folder is new, empty or a demo's own."""
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise _refusal_of(folder, "it is no folder")
        return
    marker = folder / MARKER
    if marker.is_file() and not marker.is_symlink():
        return
    found = next(iter(sorted(folder.iterdir())), None)
    if found is not None:
        raise _refusal_of(folder, f"no demo has made it (it holds {found.name}, and no {MARKER}), so it is left as it is")


def _refusal_of(folder: Path, reason: str) -> BadQuery:
    return BadQuery(f"--folder: {folder}: {reason}; name another, new or empty one")


def _remove_store(store: Path) -> None:
    # A link is removed, but never its target.
    if store.is_dir() and not store.is_symlink():
        rmtree(store)
    else:
        store.unlink(missing_ok=True)
