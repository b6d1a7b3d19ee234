"""Published DuckDB snapshots: which one is in use, swapping to the next without a gap.

A writer publishes `snap-<YYYYmmddTHHMMSS.mmm>Z.duckdb` (the UTC time up to which its data is complete) and then replaces the
pointer file `latest`, whose one line is that name. A file of a name never changes. The pointer decides; where it is missing or
names nothing that opens, the newest snapshot that opens is used. Everything here runs in one thread, so nothing is locked.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

_NAME = re.compile(r"snap-(\d{8}T\d{6}\.\d{3})Z\.duckdb")
POINTER = "latest"

Connect = Callable[[Path], duckdb.DuckDBPyConnection]


def covers_to_ms(name: str) -> int | None:
    """The instant that a snapshot's name states, None when it is no snapshot's name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        stated = datetime.strptime(found[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None
    return round(stated.timestamp() * 1000)


def rows_of(file: Path) -> dict[str, int]:
    """How many rows each table of a snapshot has; every block is read. Raises OSError when it is damaged or does not open."""
    try:
        with duckdb.connect(str(file), read_only=True, config={"enable_external_access": "false"}) as snapshot:
            tables = [str(row[0]) for row in snapshot.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
            quoted = {table: '"' + table.replace('"', '""') + '"' for table in tables}
            # The hash is not kept (another version of the engine may have another): it makes the engine read all columns.
            found = {table: f"SELECT count(*), bit_xor(hash(t)) FROM {name} t" for table, name in quoted.items()}  # noqa: S608
            return {table: int((snapshot.execute(sql).fetchone() or [0])[0]) for table, sql in found.items()}
    except duckdb.Error as problem:
        raise OSError(str(problem).splitlines()[0][:200]) from problem


@dataclass(slots=True)
class Snapshot:
    """One open snapshot and how many calls are using it; it is closed when it is retired and the last of them has ended."""

    name: str
    covers_to_ms: int
    connection: duckdb.DuckDBPyConnection
    users: int = 0
    retired: bool = False

    def release(self) -> None:
        """One call has ended."""
        self.users -= 1
        self.close_if_unused()

    def close_if_unused(self) -> None:
        """Close when nobody will use it again."""
        if self.retired and not self.users:
            self.connection.close()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is wrong with the folder, and whether the snapshot in use stands in for a newer one that does not open or is gone."""

    problem: str | None = None
    stands_in: bool = False


class Snapshots:
    """The snapshot in use. The folder is looked at again at most every `poll_s`."""

    def __init__(self, folder: Path, connect: Connect, poll_s: float) -> None:
        self._folder = folder
        self._connect = connect
        self._poll_s = poll_s
        self._looked_s = float("-inf")
        self.current: Snapshot | None = None
        #: replaced as a whole, for those who look from another thread
        self.standing = Standing()
        self._problem: str | None = None
        self._stands_in = False

    def lease(self) -> Snapshot:
        """The newest snapshot that opens, counted as in use; `release` it. Raises duckdb.IOException when there is none."""
        now_s = time.monotonic()
        if self.current is None or now_s - self._looked_s >= self._poll_s:
            self._looked_s = now_s
            self._refresh()
            self.standing = Standing(self._problem, self._stands_in)
        if self.current is None:
            raise duckdb.IOException(self._problem or f"no snapshot in {self._folder}")
        self.current.users += 1
        return self.current

    def close(self) -> None:
        """Close the snapshot in use once its calls have ended."""
        if self.current is not None:
            self.current.retired = True
            self.current.close_if_unused()
            self.current = None

    def _refresh(self) -> None:
        self._problem, self._stands_in = None, False
        for name in self._candidates():
            if self.current is not None and name == self.current.name:
                return
            opened = self._open(name)
            if opened is not None:
                self.close()
                self.current = opened
                return
        self._stands_in = self.current is not None
        if self._problem is None:
            gone = "no snapshot" if self.current is None else f"snapshot {self.current.name} is gone, and there is no other"
            self._problem = f"{gone} in {self._folder}"

    def _candidates(self) -> Iterator[str]:
        """Names to try, best first: what the pointer says, then all there are from the newest to the one in use."""
        pointed = self._pointed()
        if pointed is not None:
            yield pointed
        names = sorted((file.name for file in self._folder.glob("snap-*.duckdb")), reverse=True)
        yield from (name for name in names if name != pointed and covers_to_ms(name) is not None)

    def _pointed(self) -> str | None:
        try:
            name = (self._folder / POINTER).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            name = ""
        if covers_to_ms(name) is None:
            self._problem = f"the pointer {POINTER} names no snapshot"
            return None
        return name

    def _open(self, name: str) -> Snapshot | None:
        covers = covers_to_ms(name)
        if covers is None:
            return None
        try:
            return Snapshot(name, covers, self._connect(self._folder / name))
        except duckdb.Error as problem:
            # The text goes to panels, where the host's folders are nobody's business.
            reason = str(problem).splitlines()[0].replace(f"{self._folder}{os.sep}", "")[:120]
            self._problem = self._problem or f"snapshot {name} cannot be opened: {reason}"
            self._stands_in = True
            return None
