"""DuckDB: account analytics from published, read-only snapshots (see `duckdb_snapshots`).

The connection is hardened: no file, network or extension can be reached from SQL and nothing can be switched back on
(DuckDB's "Securing DuckDB"). One cursor a call; `fetchnumpy`, never rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
from pydantic import Field

from app.errors import SourceGarbled, SourceOverloaded, SourceRejected, SourceTimeout, SourceUnavailable
from app.model import Frame, Notice, Statement, TimeRange, instant_text
from app.sources import base
from app.sources.base import Ask, ErrorTable, Read, SourceConfig, translate
from app.sources.duckdb_snapshots import Snapshot, Snapshots, Standing
from app.sources.sql import Dialect, fill, points, template_problems, unsorted, yields_points

#: How long a cancelled fetch waits for its thread to stop; an interrupt is repeated until then, since one that comes before the
#: engine has begun is lost.
_STOP_S = 0.25
_INTERRUPT_EVERY_S = 0.01

_DIALECT = Dialect(
    placeholder=lambda name, _: f"${name}",
    one_of="list_contains({operand}, {column})",
    matches="regexp_full_match({column}, {operand})",
    as_number="try_cast({column} AS DOUBLE)",
)
_SPAN = ("from_ms", "to_ms", "step_ms", "now_ms")
_NO_RANGE = TimeRange(0, 1000, 1000)

_ERRORS: ErrorTable = {
    duckdb.IOException: SourceUnavailable,
    duckdb.ConnectionException: SourceUnavailable,
    duckdb.InterruptException: SourceTimeout,
    duckdb.OutOfMemoryException: SourceOverloaded,
    duckdb.FatalException: SourceUnavailable,
    duckdb.InternalException: SourceGarbled,
    duckdb.SerializationException: SourceGarbled,
    duckdb.Error: SourceRejected,
}


class DuckDBConfig(SourceConfig):
    """A folder of snapshots."""

    kind: Literal["duckdb"] = "duckdb"
    snapshots: Path
    poll_s: float = Field(1.0, ge=0, le=60, description="how often the folder is looked at for a newer snapshot, at most")
    max_execution_time_s: float = Field(4.0, gt=0, le=60, description="after which the engine gives up; below the attempt limit")
    memory_limit: str = Field("256MB", pattern=r"^\d+(MB|GB)$")
    threads: int = Field(1, ge=1, le=64, description="of the engine for one statement; the pool gives the parallelism")

    def build(self, name: str) -> DuckDBSource:
        """The source of that name."""
        return DuckDBSource(name, self)


class DuckDBRead(Read):
    """A SELECT that yields `time` (epoch ms, integer), the label columns, and `value`; events: text columns in place of `value`.

    The template may use `$from_ms`, `$to_ms`, `$step_ms` and `$now_ms` (0 when the open bucket is not asked for).

    Never sliceable: a newer snapshot is another version of everything, and asking it costs no network.
    """

    sql: str

    def statement(self, ask: Ask) -> Statement:
        """The SELECT with its placeholders filled; every value is bound."""
        text, bound = fill(self.sql.strip().rstrip(";"), ask.by, ask.where, self._column, _DIALECT)
        span = ask.range
        bound |= {"from_ms": span.from_ms, "to_ms": span.to_ms, "step_ms": span.step_ms, "now_ms": ask.now_ms}
        # The engine refuses parameters that the text does not name.
        named = {name: value for name, value in bound.items() if f"${name}" in text}
        params = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in named.items())
        return Statement(self.source, ask.metric, text, params, span, ask.by, ask.where, self, ask.now_ms)

    def _column(self, label: str) -> str:
        return f"coalesce(CAST({self.word(label)} AS VARCHAR), '')"

    def problems(self) -> Iterator[tuple[str, str]]:
        """Placeholders that nobody fills, label columns that are none, more than one statement."""
        yield from template_problems(self.sql, self.labels, ("by", "where"))
        try:
            found = duckdb.extract_statements(self.statement(Ask("check", _NO_RANGE)).text)
        except duckdb.Error as problem:
            yield "sql", f"not SQL: {str(problem).splitlines()[0]}"
            return
        if len(found) != 1 or found[0].type != duckdb.StatementType.SELECT:
            yield "sql", "exactly one SELECT is allowed"
            return
        for name in sorted(found[0].named_parameters - set(_SPAN)):
            yield "sql", f"unknown parameter ${name}; allowed: {', '.join('$' + known for known in _SPAN)}"


class DuckDBSource:
    """The newest snapshot as a source (see `sources.base.Source`). A cancelled fetch interrupts its own cursor."""

    def __init__(self, name: str, config: DuckDBConfig) -> None:
        self.name = name
        self._config = config
        self._snapshots = Snapshots(config.snapshots, self._connect, config.poll_s)
        self._opener = ThreadPoolExecutor(1, f"{name}-open")
        self._workers = ThreadPoolExecutor(config.pool_size, name)

    @property
    def skew_s(self) -> float | None:
        """How far in the future the snapshot in use is dated; None where it is not."""
        current = self._snapshots.current
        ahead_s = 0.0 if current is None else (current.covers_to_ms - base.wall_ms()) / 1000
        return ahead_s if ahead_s > 0 else None

    @property
    def reaches_ms(self) -> int | None:
        """Up to when the snapshot in use is complete, epoch ms."""
        current = self._snapshots.current
        return None if current is None else current.covers_to_ms

    @property
    def warning(self) -> str | None:
        """Why the newest snapshot is not the one in use."""
        return self._snapshots.standing.problem

    async def open(self) -> None:
        """Nothing but let go of the engine that has checked the catalogue: the first fetch opens the newest snapshot."""
        duckdb.default_connection().close()

    async def close(self) -> None:
        """Close the snapshot and end the threads."""
        await asyncio.to_thread(self._workers.shutdown)
        await asyncio.get_running_loop().run_in_executor(self._opener, self._snapshots.close)
        self._opener.shutdown()

    async def reconnect(self) -> None:
        """Nothing: each fetch looks for the newest snapshot."""

    async def fetch(self, statement: Statement) -> Frame:
        """Ask the newest snapshot. Raises SourceError. Cancelled, it interrupts the query and waits for that 0.25 s at most."""
        with translate(self.name, _ERRORS):
            text = _by_series(statement.text, statement.labels, self._config.max_rows)
            columns, lease = await self._ask(text, dict(statement.params))
        return self._frame(columns, statement.labels, lease)

    async def ping(self) -> str:
        """The engine's version and the snapshot in use. Raises SourceError."""
        with translate(self.name, _ERRORS):
            columns, lease = await self._ask("SELECT version() AS version", {})
        return f"DuckDB {columns['version'][0]}, {lease.snapshot.name}"

    def age_s(self) -> float | None:
        """The age of the snapshot in use, None before the first."""
        current = self._snapshots.current
        return None if current is None else max(time.time() - current.covers_to_ms / 1000, 0.0)

    def _connect(self, file: Path) -> duckdb.DuckDBPyConnection:
        config = self._config
        return duckdb.connect(
            str(file),
            read_only=True,
            config={
                "enable_external_access": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "allow_unsigned_extensions": "false",
                "allow_persistent_secrets": "false",
                "python_enable_replacements": "false",
                "memory_limit": config.memory_limit,
                "threads": str(config.threads),
                "max_temp_directory_size": "0B",
                "max_execution_time": str(round(config.max_execution_time_s * 1000)),
                "lock_configuration": "true",
            },
        )

    async def _ask(self, text: str, params: dict[str, Any]) -> tuple[dict[str, Any], _Lease]:
        loop = asyncio.get_running_loop()
        leasing = loop.run_in_executor(self._opener, self._lease)
        try:
            lease = await asyncio.shield(leasing)
        except asyncio.CancelledError:
            leasing.add_done_callback(self._give_back)
            raise
        call = _Call(lease.cursor, text, params)
        running = self._workers.submit(call.run)
        # Given back when the thread has ended, not when its caller has left.
        running.add_done_callback(lambda _: self._opener.submit(lease.snapshot.release))
        waiting = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(waiting), lease
        except asyncio.CancelledError:
            await call.stop(waiting)
            raise

    def _lease(self) -> _Lease:
        snapshot = self._snapshots.lease()
        return _Lease(snapshot, self._snapshots.standing, snapshot.connection.cursor())

    def _give_back(self, leasing: asyncio.Future[_Lease]) -> None:
        """For a caller who left while the lease was being made."""
        if not leasing.cancelled() and leasing.exception() is None:
            self._opener.submit(leasing.result().snapshot.release)

    def _frame(self, columns: dict[str, Any], labels: Sequence[str], lease: _Lease) -> Frame:
        for name in ("time", *labels):
            if name not in columns:
                raise SourceRejected(self.name, f"the statement returns no column {name!r}; it returns {', '.join(columns)}")
        marks = self._marks(lease)
        if "value" not in columns:
            self._check([columns["time"]])
            return replace(_events(np.ma.getdata(columns["time"]), columns), **marks)
        self._check(columns["time"])
        cells = {label: np.ma.filled(columns[label], None) for label in labels}
        times, values = ([_plain(one) for one in columns[name]] for name in ("time", "value"))
        return points(cells, labels, times, values, **marks)

    def _check(self, times: Sequence[Any]) -> None:
        if sum(map(len, times)) > self._config.max_rows:
            raise SourceOverloaded(self.name, f"more than {self._config.max_rows} rows (max_rows)")
        if any(len(one) and one.dtype.kind not in "iu" for one in times):
            raise SourceRejected(self.name, "the column `time` is no integer; write epoch_ms(...) AS time")

    def _marks(self, lease: _Lease) -> dict[str, Any]:
        """Of the frame: up to when the snapshot is complete (never the future), and what must be said of it.

        A snapshot that stands in for a newer one makes a stale answer, as old as it is itself.
        """
        snapshot, standing, now_ms = lease.snapshot, lease.standing, base.wall_ms()
        covers_ms = min(snapshot.covers_to_ms, now_ms)
        marks: dict[str, Any] = {"covers_to_ms": covers_ms}
        notices = []
        if standing.problem is not None:
            text = f"{standing.problem}; the snapshot of {instant_text(snapshot.covers_to_ms)} is shown"
            if standing.stands_in:
                marks |= {"stale": text, "asked_ms": covers_ms}
            else:
                notices.append(Notice("warning", f"{self.name}: {text}"))
        if snapshot.covers_to_ms > now_ms + 2000:
            notices.append(Notice("warning", f"{self.name}: snapshot {snapshot.name} is dated in the future"))
        return marks | {"notices": tuple(notices)}


@dataclass(frozen=True, slots=True)
class _Lease:
    """A snapshot for one call, how it stood when it was leased, and a cursor on it."""

    snapshot: Snapshot
    standing: Standing
    cursor: duckdb.DuckDBPyConnection


class _Call:
    """One statement on one cursor in one thread, and how it is stopped."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, text: str, params: dict[str, Any]) -> None:
        self._cursor = cursor
        self._text = text
        self._params = params
        self._unwanted = False

    def run(self) -> dict[str, Any]:
        """In the thread: the columns."""
        try:
            if self._unwanted:
                raise duckdb.InterruptException("stopped before it began")
            found: dict[str, Any] = self._cursor.execute(self._text, self._params).fetchnumpy()
            return found
        finally:
            self._cursor.close()

    async def stop(self, waiting: asyncio.Future[dict[str, Any]]) -> None:
        """Interrupt until the thread has ended, for `_STOP_S` at most."""
        self._unwanted = True
        waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        ends_s = time.monotonic() + _STOP_S
        while not waiting.done() and time.monotonic() < ends_s:
            # The thread may have ended just now, its cursor closed; that must not stand in the cancellation's place.
            with suppress(duckdb.Error):
                self._cursor.interrupt()
            await asyncio.wait((waiting,), timeout=_INTERRUPT_EVERY_S)


def _by_series(text: str, labels: Sequence[str], max_rows: int) -> str:
    """The statement, limited; points as a row a series, so that a label's text crosses over once and not with each point."""
    # The catalogue's own text; its values are bound.
    if not yields_points(text):
        return f"SELECT * FROM ({text}) LIMIT {max_rows + 1}"  # noqa: S608
    limited = f"SELECT * FROM ({unsorted(text)}) LIMIT {max_rows + 1}"  # noqa: S608
    columns = ", ".join([*(f'"{label}"' for label in labels), "list(time) AS time", "list(CAST(value AS DOUBLE)) AS value"])
    return f"SELECT {columns} FROM ({limited}) GROUP BY ALL HAVING count(*) > 0"  # noqa: S608


def _plain(column: Any) -> Any:
    """A list's numbers; NULL is NaN (a time is none)."""
    return np.ma.filled(column, np.nan if column.dtype.kind == "f" else 0) if isinstance(column, np.ma.MaskedArray) else column


def _events(times: Any, columns: dict[str, Any]) -> Frame:
    order = np.argsort(times, kind="stable")
    text = {
        name: tuple(None if cell is None else str(cell) for cell in np.ma.filled(column.astype(object), None)[order])
        for name, column in columns.items()
        if name != "time"
    }
    series, offsets = (((),), (0, len(times))) if len(times) else ((), (0,))
    ordered = times[order].astype(np.int64)
    return Frame(ordered, np.full(len(times), np.nan), series, offsets, text)
