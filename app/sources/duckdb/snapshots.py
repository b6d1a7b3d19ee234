"""Published DuckDB snapshots: which one is in use, swapping to the next without a gap.

A writer publishes `snap-<YYYYmmddTHHMMSS.mmm>Z.duckdb` (the UTC time up to which its data is complete) and then replaces the
pointer file `latest`, whose one line is that name. A file of a name never changes. The pointer decides; where it is missing or
names no file that opens, the newest snapshot that opens is used. Everything here runs in one thread, so there are no locks. Only
the look into the folder has a thread of its own, because a file system may take any time to answer.

**A snapshot is data and nothing else.** A view, a macro or a computed column could run any code under the name of a table or of a
function of the engine, with any time and memory. A snapshot that has one is refused, unless `Demands.computed` allows it. A
snapshot with a write-ahead log beside it is refused, too: it was copied while its writer was at work, and file and log may not
belong together. A copy without its log looks whole; `Demands.newest` notices that.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from app.clock import instant_text

_log = logging.getLogger(__name__)

_NAME = re.compile(r"snap-(\d{8}T\d{6}\.\d{3})Z\.duckdb")
POINTER = "latest"
#: A pointer holds one name. A longer file is no pointer and is not read.
_POINTER_BYTES = 200
_PLAIN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)

#: What could run code, by the engine's own tables. Nothing in the file can take their names.
_COMPUTED = (
    ("macro", "SELECT function_name FROM system.main.duckdb_functions() WHERE NOT internal ORDER BY 1 LIMIT 1"),
    ("view", "SELECT view_name FROM system.main.duckdb_views() WHERE NOT internal ORDER BY 1 LIMIT 1"),
    (
        "computed column",
        "SELECT table_name || '.' || column_name FROM system.information_schema.columns WHERE is_generated <> 'NEVER' LIMIT 1",
    ),
)

Connect = Callable[[Path], duckdb.DuckDBPyConnection]


def covers_to_ms(name: str) -> int | None:
    """The instant in a snapshot's name; None for any other name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        stated = datetime.strptime(found[1], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None
    return round(stated.timestamp() * 1000)


def find_computed(connection: duckdb.DuckDBPyConnection) -> str | None:
    """What in the open database could run code; None where it is data and nothing else. Raises duckdb.Error."""
    for kind, sql in _COMPUTED:
        found = connection.execute(sql).fetchone()
        if found is not None:
            return f"{kind} {str(found[0])[:60]!r}"
    return None


def rows_of(file: Path) -> dict[str, int]:
    """How many rows each table of a snapshot has; every block is read. Raises OSError when it is damaged or does not open."""
    try:
        with duckdb.connect(str(file), read_only=True, config={"enable_external_access": "false"}) as snapshot:
            tables = [str(row[0]) for row in snapshot.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
            quoted = {table: '"' + table.replace('"', '""') + '"' for table in tables}
            # The hash makes the engine read all columns. It is not kept: another version of the engine may have another one.
            found = {table: f"SELECT count(*), bit_xor(hash(t)) FROM {name} t" for table, name in quoted.items()}  # noqa: S608
            return {table: int((snapshot.execute(sql).fetchone() or [0])[0]) for table, sql in found.items()}
    except duckdb.Error as problem:
        raise OSError(str(problem).splitlines()[0][:200]) from problem


@dataclass(slots=True)
class Snapshot:
    """One open snapshot and the number of calls that use it. A retired snapshot is closed when its last call has ended."""

    name: str
    covers_to_ms: int
    connection: duckdb.DuckDBPyConnection
    #: the remark on rows that are missing from it (`Demands.newest`); it stays true while the snapshot is in use
    lag: str | None = None
    #: the names of its tables
    tables: frozenset[str] = frozenset()
    #: roll-ups that were looked at -> whether they reach as far as their raw table
    reaching: dict[str, bool] = field(default_factory=dict)
    users: int = 0
    retired: bool = False

    def reaches(self, rollup: str, raw: str, time: str) -> bool:
        """Whether a roll-up is there and has rows as new as the raw table's. A writer may have stopped to keep it."""
        found = self.reaching.get(rollup)
        if found is None:
            found = self.reaching[rollup] = rollup in self.tables and raw in self.tables and self._has_newest(rollup, raw, time)
        return found

    def _has_newest(self, rollup: str, raw: str, time: str) -> bool:
        # The engine skips all older blocks of the raw table.
        newer = f'SELECT count(*) FROM "{raw}" WHERE "{time}" > (SELECT max("{time}") FROM "{rollup}")'  # noqa: S608  names of the catalogue
        empty = f'SELECT max("{time}") IS NULL FROM "{rollup}"'  # noqa: S608  as above
        with suppress(duckdb.Error):
            cursor = self.connection.cursor()
            try:
                return cursor.execute(empty).fetchone() == (False,) and cursor.execute(newer).fetchone() == (0,)
            finally:
                cursor.close()
        return False

    def release(self) -> None:
        """One call has ended."""
        self.users -= 1
        self.close_if_unused()

    def close_if_unused(self) -> None:
        """Close it when no call will use it again."""
        if self.retired and not self.users:
            self.connection.close()


@dataclass(frozen=True, slots=True)
class SnapshotHealth:
    """What is wrong with the folder, and whether the snapshot in use stands in for a newer one that does not open or is gone."""

    problem: str | None = None
    stands_in: bool = False


@dataclass(frozen=True, slots=True)
class Demands:
    """What a snapshot must be to be used, and how long a look may take."""

    #: whether it may hold views, macros and computed columns
    computed: bool = False
    #: `table.column` whose newest time should reach the instant in the name, less `newest_within_s`
    newest: str | None = None
    newest_within_s: float = 300.0
    look_s: float = 2.0


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of a look into the folder: a snapshot to use from now on (None: the one in use), and the health."""

    opened: Snapshot | None
    health: SnapshotHealth


class _Refused(Exception):
    """A snapshot that opens and must not be used."""


class Snapshots:
    """The snapshot in use. The folder is looked at again at most every `poll_s`."""

    def __init__(self, folder: Path, connect: Connect, poll_s: float, demands: Demands | None = None) -> None:
        self._folder = folder
        self._connect = connect
        self._poll_s = poll_s
        self._demands = demands or Demands()
        self._looked_s = float("-inf")
        self._looking: Future[_Look] | None = None
        self.current: Snapshot | None = None
        #: replaced as a whole, because other threads read it
        self.health = SnapshotHealth()

    def lease(self) -> Snapshot:
        """The newest snapshot that opens, counted as in use; `release` it. Raises duckdb.IOException when there is none."""
        now_s = time.monotonic()
        if self.current is None or now_s - self._looked_s >= self._poll_s:
            self._looked_s = now_s
            self._refresh()
        if self.current is None:
            raise duckdb.IOException(self.health.problem or f"no snapshot in {self._folder}")
        self.current.users += 1
        return self.current

    def close(self) -> None:
        """Close the snapshot in use after its calls have ended, and any that a look still opens."""
        if self._looking is not None:
            self._looking.add_done_callback(_close_late)
            self._looking = None
        self._retire()

    def _retire(self) -> None:
        if self.current is not None:
            self.current.retired = True
            self.current.close_if_unused()
            self.current = None

    def _refresh(self) -> None:
        looking, used = self._looking, self.current.name if self.current else None
        wait_s = self._demands.look_s if looking is None else 0
        looking = self._looking = looking or _in_a_thread(lambda: self._look_into_folder(used))
        try:
            found = looking.result(wait_s)
        except TimeoutError:
            # That look goes on. Until it ends there is no other one, and no call waits for it a second time.
            self._set_health(self._unanswered_health(f"does not answer within {self._demands.look_s:g}s"))
            return
        except OSError as problem:
            self._set_health(self._unanswered_health(f"cannot be read: {problem.strerror}"))
            return
        finally:
            if looking.done():
                self._looking = None
        if found.opened is not None:
            self._retire()
            self.current = found.opened
        lag = self.current.lag if self.current is not None else None
        self._set_health(replace(found.health, problem=found.health.problem or lag))

    def _unanswered_health(self, how: str) -> SnapshotHealth:
        return SnapshotHealth(f"the folder of the snapshots {how}", stands_in=self.current is not None)

    def _set_health(self, health: SnapshotHealth) -> None:
        if health.problem is not None and health.problem != self.health.problem:
            _log.warning("%s", health.problem)
        self.health = health

    def _look_into_folder(self, used: str | None) -> _Look:
        """Look for a snapshot to use. It runs in a thread of its own."""
        problem, stands_in = None, False
        for name, remark in self._candidate_names():
            problem = problem or remark
            if name is not None and name == used:
                return _Look(None, SnapshotHealth(problem, stands_in))
            if name is None:
                continue
            opened, remark = self._open_snapshot(name)
            problem = problem or remark
            if opened is not None:
                return _Look(opened, SnapshotHealth(problem, stands_in))
            stands_in = True
        gone = "no snapshot" if used is None else f"snapshot {used} is gone, and there is no other"
        return _Look(None, SnapshotHealth(problem or f"{gone} in {self._folder}", used is not None))

    def _candidate_names(self) -> Iterator[tuple[str | None, str | None]]:
        """Names to try, best first: the pointer's, then all others from the newest on; and what is wrong with the pointer."""
        pointed, problem = self._read_pointer()
        yield pointed, problem
        names = sorted((file.name for file in self._folder.glob("snap-*.duckdb")), reverse=True)
        yield from ((name, None) for name in names if name != pointed and covers_to_ms(name) is not None)

    def _read_pointer(self) -> tuple[str | None, str | None]:
        try:
            name = _first_bytes(self._folder / POINTER).decode().strip()
        except FileNotFoundError:
            return None, None
        except (OSError, UnicodeDecodeError):
            name = ""
        if covers_to_ms(name) is None:
            return None, f"the pointer {POINTER} names no snapshot"
        return name, None

    def _open_snapshot(self, name: str) -> tuple[Snapshot | None, str | None]:
        """The snapshot, or why it cannot be used."""
        covers = covers_to_ms(name) or 0
        try:
            file = self._folder / name
            _check_files(file)
            connection = self._connect(file)
            try:
                self._check_content(connection)
                lag = self._lag_remark(name, covers, connection)
                return Snapshot(name, covers, connection, lag, _tables_of(connection)), None
            except BaseException:
                connection.close()
                raise
        except _Refused as problem:
            return None, f"snapshot {name} is not used: {problem}"
        except (duckdb.Error, OSError) as problem:
            # The text goes to panels, which must not show the host's folders.
            reason = str(problem).splitlines()[0].replace(f"{self._folder}{os.sep}", "")[:120]
            return None, f"snapshot {name} cannot be opened: {reason}"

    def _check_content(self, connection: duckdb.DuckDBPyConnection) -> None:
        found = None if self._demands.computed else find_computed(connection)
        if found is not None:
            raise _Refused(f"it holds the {found}; allowed are tables (see the setting computed)")

    def _lag_remark(self, name: str, covers_ms: int, connection: duckdb.DuckDBPyConnection) -> str | None:
        """The remark on rows that end long before the instant in the name."""
        if self._demands.newest is None:
            return None
        table, column = self._demands.newest.split(".")
        sql = f'SELECT epoch_ms(max("{column}")) FROM "{table}"'  # noqa: S608  names of the configuration, plain words
        newest_ms = (connection.execute(sql).fetchone() or [None])[0]
        if newest_ms is not None and newest_ms >= covers_ms - self._demands.newest_within_s * 1000:
            return None
        ends = "it has no rows" if newest_ms is None else f"its newest row is of {instant_text(newest_ms)}"
        return f"snapshot {name} is said to be complete to {instant_text(covers_ms)}, and {ends} ({self._demands.newest})"


def _tables_of(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    return frozenset(str(row[0]) for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall())


def _first_bytes(file: Path) -> bytes:
    """The content of a small plain file. Raises OSError for anything else: a pipe, a device, a link, a large file."""
    with open(os.open(file, _PLAIN), "rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _POINTER_BYTES:
            raise OSError(f"{file.name} is no small plain file")
        return opened.read(_POINTER_BYTES)


def _check_files(file: Path) -> None:
    """Raise _Refused for what is no plain file or has its writer's log beside it, OSError where there is nothing."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise _Refused("it is no plain file")
    if os.path.lexists(file.with_name(f"{file.name}.wal")):
        raise _Refused("a write-ahead log lies beside it: its writer has not finished it, or it was copied without a CHECKPOINT")


def _in_a_thread(look: Callable[[], _Look]) -> Future[_Look]:
    """The future result of a look. Its thread may hang for ever, so it must not hold up the end of the process."""
    result: Future[_Look] = Future()

    def run() -> None:
        try:
            result.set_result(look())
        except BaseException as problem:
            result.set_exception(problem)

    threading.Thread(target=run, name="snapshots", daemon=True).start()
    return result


def _close_late(looked: Future[_Look]) -> None:
    """Close the snapshot of a look that ends after the source was closed."""
    with suppress(BaseException):
        opened = looked.result().opened
        if opened is not None:
            opened.connection.close()
