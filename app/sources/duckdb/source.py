"""DuckDB: account analytics from published, read-only snapshots (see `snapshots`). One cursor a call (see `engine`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import duckdb
import numpy as np
from pydantic import Field

from app import clock
from app.clock import instant_text
from app.cooperative import run_apart
from app.errors import SourceGarbled, SourceOverloaded, SourceRejected, SourceTimeout, SourceUnavailable
from app.model import Frame, Matcher, Notice, Statement, TimeRange
from app.sources.base import Ask, ErrorTable, SourceConfig, translate
from app.sources.duckdb.dialect import DIALECT
from app.sources.duckdb.engine import CursorCall, lower_thread_priority, open_hardened
from app.sources.duckdb.snapshots import Demands, Snapshot, SnapshotHealth, Snapshots
from app.sources.sql.dialect import DUCKDB, SeriesDialect, code_only
from app.sources.sql.rollups import RolledUpRead, send_statement, wanted_tables
from app.sources.sql.rows import (
    TIMES,
    VALUES,
    WEIGHTS,
    count_rows,
    expect_columns,
    expect_row_count,
    frame_of_events,
    frame_of_points,
    no_integer_time,
    select_rows,
    select_series,
)
from app.sources.sql.template import is_sliceable, yields_points

#: a statement's text and its parameters
_Call = tuple[str, dict[str, Any]]
_SPAN = ("from_ms", "to_ms", "step_ms", "now_ms")
#: an instant with many days before it
_DAYS_MS = 10**12
#: what building a frame takes for each series (or event) and for each point
_SERIES_MS, _POINT_MS = 0.01, 0.0001
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

    kind: Literal["duckdb"] = Field("duckdb", description="what the store is")
    snapshots: Path = Field(description="the folder into which the writer publishes snapshots")
    poll_s: float = Field(1.0, ge=0, le=60, description="least time between two looks for a newer snapshot")
    max_execution_time_s: float = Field(
        4.0, gt=0, le=60, description="after this time the engine gives up; keep it below attempt_timeout_s"
    )
    memory_limit: str = Field("256MB", pattern=r"^\d+(MB|GB)$", description="memory of the engine")
    threads: int = Field(
        1, ge=1, le=64, description="the engine's threads for one statement; several statements run at the same time anyway"
    )
    computed: bool = Field(
        False, description="true: accept snapshots with views, macros or computed columns, which may run anything"
    )
    newest: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*\.[A-Za-z_]\w*$",
        description="table.column: its newest time is compared with the time in the snapshot's name",
    )
    newest_within_s: float = Field(
        300.0, ge=0, description="how far `newest` may be behind before answers are partial, with a warning that rows are missing"
    )

    def build(self, name: str) -> DuckDBSource:
        """The source of that name."""
        return DuckDBSource(name, self)


class DuckDBRead(RolledUpRead):
    """A SELECT that yields `time` (epoch ms, integer), the label columns, and `value`; events: text columns in place of `value`.

    The template may use `$from_ms`, `$to_ms`, `$step_ms` and `$now_ms` (0 when the open bucket is not asked for).

    Where its buckets stand alone, those of the same snapshot are reused: at a thousand accounts a whole range costs seconds of a
    core, and a minute of it next to nothing. A newer snapshot may change every bucket.
    """

    dialect: ClassVar[SeriesDialect] = DIALECT

    @property
    def sliceable(self) -> bool:
        """See `template.is_sliceable`."""
        return is_sliceable(code_only(self.sql, DUCKDB))

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every template; more than one statement, or none that the engine's parser takes."""
        yield from super().problems()
        narrowed = Ask("check", _NO_RANGE, tuple(self.labels), tuple(Matcher(label, "=", ("x",)) for label in self.labels))
        asked = self.statement(Ask("check", _NO_RANGE))
        try:
            duckdb.extract_statements(self.statement(narrowed).text)
            found = duckdb.extract_statements(asked.text)
            if len(found) != 1 or found[0].type != duckdb.StatementType.SELECT:
                yield "sql", "exactly one SELECT is allowed"
                return
            # This is what is sent: a text that is a SELECT by itself may be none inside another SELECT.
            duckdb.extract_statements(_select_all(asked, 1))
            for more in self.more_statements("check", _DAYS_MS):
                duckdb.extract_statements(_select_all(send_statement(more, wanted_tables(more)), 1))
        except duckdb.Error as problem:
            yield "sql", f"not SQL: {str(problem).splitlines()[0]}"
            return
        for name in sorted(found[0].named_parameters - set(_SPAN)):
            yield "sql", f"unknown parameter ${name}; allowed: {', '.join('$' + known for known in _SPAN)}"


class DuckDBSource:
    """The newest snapshot as a source (see `sources.base.Source`). A cancelled fetch interrupts its own cursor."""

    def __init__(self, name: str, config: DuckDBConfig) -> None:
        self.name = name
        self._config = config
        demands = Demands(config.computed, config.newest, config.newest_within_s)
        self._snapshots = Snapshots(config.snapshots, self._open_file, config.poll_s, demands)
        self._opener = ThreadPoolExecutor(1, f"{name}-open")
        self._workers = ThreadPoolExecutor(config.pool_size, name)
        # The engine runs in this process: heavy statements must not take the processor from everybody else.
        self._background = ThreadPoolExecutor(config.pool_size, f"{name}-background", initializer=lower_thread_priority)
        self._is_closed = False

    @property
    def skew_s(self) -> float | None:
        """How far in the future the snapshot in use is dated; None where it is not."""
        current = self._snapshots.current
        ahead_s = 0.0 if current is None else (current.covers_to_ms - clock.wall_ms()) / 1000
        return ahead_s if ahead_s > 0 else None

    @property
    def reaches_ms(self) -> int | None:
        """The instant up to which the snapshot in use is complete, epoch ms."""
        current = self._snapshots.current
        return None if current is None else current.covers_to_ms

    @property
    def warning(self) -> str | None:
        """Why the newest snapshot is not the one in use."""
        return self._snapshots.health.problem

    async def open(self) -> None:
        """Close the engine that has checked the catalogue. The first fetch opens the newest snapshot."""
        duckdb.default_connection().close()

    async def close(self) -> None:
        """Close the snapshot and end the threads."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.to_thread(self._background.shutdown)
        await asyncio.to_thread(self._workers.shutdown)
        await asyncio.get_running_loop().run_in_executor(self._opener, self._snapshots.close)
        self._opener.shutdown()

    async def reconnect(self) -> None:
        """Nothing: each fetch looks for the newest snapshot."""

    async def fetch(self, statement: Statement) -> Frame:
        """Query the newest snapshot. Raises SourceError. A cancelled fetch interrupts its query (0.25 s at most)."""
        with translate(self.name, _ERRORS):
            columns, lease = await self._query(
                lambda snapshot: self._call_of(_on_rollups(statement, snapshot)), statement.lane == "background"
            )
        return await run_apart(partial(self._frame_of, columns, statement, lease), _building_ms(columns))

    async def explain(self, statement: Statement) -> None:
        """Let the engine plan the statement on the newest snapshot and say what it yields. Raises SourceError."""
        with translate(self.name, _ERRORS):
            for asked in (lambda _: send_statement(statement), lambda snapshot: _on_rollups(statement, snapshot)):
                await self._query(lambda snapshot, asked=asked: self._call_of(asked(snapshot), "EXPLAIN "))  # type: ignore[misc]
            described, _ = await self._query(lambda _: (f"DESCRIBE {statement.text}", dict(statement.params)))
        found = dict(zip(described["column_name"], described["column_type"], strict=True)).get("time", "not there")
        if "INT" not in found:
            raise no_integer_time(self.name, f"{found}, no integer", DIALECT.time_advice)

    async def ping(self) -> str:
        """The engine's version and the snapshot in use. Raises SourceError."""
        with translate(self.name, _ERRORS):
            columns, lease = await self._query(lambda _: ("SELECT version() AS version", {}))
        return f"DuckDB {columns['version'][0]}, {lease.snapshot.name}"

    def age_s(self) -> float | None:
        """The age of the snapshot in use, None before the first."""
        current = self._snapshots.current
        return None if current is None else max(time.time() - current.covers_to_ms / 1000, 0.0)

    def _open_file(self, file: Path) -> duckdb.DuckDBPyConnection:
        config = self._config
        return open_hardened(file, config.memory_limit, config.threads, config.max_execution_time_s)

    def _call_of(self, statement: Statement, before: str = "") -> _Call:
        return before + _select_all(statement, self._config.max_rows), dict(statement.params)

    async def _query(self, call_on: Callable[[Snapshot], _Call], in_background: bool = False) -> tuple[dict[str, Any], _Lease]:
        """Run what is to be called on the newest snapshot, which decides about it."""
        loop = asyncio.get_running_loop()
        leasing = loop.run_in_executor(self._opener, self._lease_cursor, call_on)
        try:
            lease = await asyncio.shield(leasing)
        except asyncio.CancelledError:
            leasing.add_done_callback(self._release_late)
            raise
        call = CursorCall(lease.cursor, *lease.call, self._workers if in_background else None)
        running = (self._background if in_background else self._workers).submit(call.run)
        # The lease ends with the thread, which may be after its caller has left.
        running.add_done_callback(lambda _: self._opener.submit(lease.snapshot.release))
        waiting = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(waiting), lease
        except asyncio.CancelledError:
            await call.stop(waiting)
            raise

    def _lease_cursor(self, call_on: Callable[[Snapshot], _Call]) -> _Lease:
        snapshot = self._snapshots.lease()
        return _Lease(snapshot, self._snapshots.health, snapshot.connection.cursor(), call_on(snapshot))

    def _release_late(self, leasing: asyncio.Future[_Lease]) -> None:
        """Release the lease of a caller who left before it was made."""
        if not leasing.cancelled() and leasing.exception() is None:
            self._opener.submit(leasing.result().snapshot.release)

    def _frame_of(self, columns: dict[str, Any], statement: Statement, lease: _Lease) -> Frame:
        marks, max_rows = self._frame_marks(lease), self._config.max_rows
        if TIMES not in columns:
            expect_columns(self.name, columns, "time")
            expect_row_count(self.name, len(columns["time"]), max_rows)
            self._expect_integers(columns["time"])
            cells = {name: column.tolist() for name, column in columns.items()}
            return frame_of_events(np.ma.filled(columns["time"], 0), cells, **marks)
        times = [one.compressed() if isinstance(one, np.ma.MaskedArray) else one for one in columns[TIMES]]
        expect_row_count(self.name, count_rows(times, statement), max_rows)
        for one in times:
            self._expect_integers(one)
        cells = {label: columns[label].tolist() for label in statement.labels}
        return frame_of_points(statement, cells, times, columns[VALUES], columns.get(WEIGHTS), **marks)

    def _expect_integers(self, times: Any) -> None:
        if len(times) and times.dtype.kind not in "iu":
            raise no_integer_time(self.name, "no integer", DIALECT.time_advice)

    def _frame_marks(self, lease: _Lease) -> dict[str, Any]:
        """The frame's marks: the instant up to which the snapshot is complete (never the future), and what is wrong with it.

        A snapshot that stands in for a newer one makes a stale answer. The answer is as old as the snapshot.
        """
        snapshot, health, now_ms = lease.snapshot, lease.health, clock.wall_ms()
        covers_ms = min(snapshot.covers_to_ms, now_ms)
        # What its own rows lack is missing from every figure.
        marks: dict[str, Any] = {"covers_to_ms": covers_ms, "partial": snapshot.lag is not None}
        notices = []
        for problem in dict.fromkeys(filter(None, (health.problem, snapshot.lag))):
            text = f"{problem}; the snapshot of {instant_text(snapshot.covers_to_ms)} is shown"
            if health.stands_in and problem != snapshot.lag:
                marks["older_copy"] = text
            else:
                notices.append(Notice("warning", f"{self.name}: {text}"))
        if snapshot.covers_to_ms > now_ms + 2000:
            notices.append(Notice("warning", f"{self.name}: snapshot {snapshot.name} is dated in the future"))
        return marks | {"notices": tuple(notices)}


@dataclass(frozen=True, slots=True)
class _Lease:
    """A snapshot for one call, its health at that time, a cursor on it, and what to run."""

    snapshot: Snapshot
    health: SnapshotHealth
    cursor: duckdb.DuckDBPyConnection
    call: _Call


def _on_rollups(statement: Statement, snapshot: Snapshot) -> Statement:
    """The statement on the roll-ups that the snapshot has; the raw table where it has none, or where they lag behind it."""
    read = statement.read
    if not isinstance(read, DuckDBRead) or not read.rollups or read.table is None:
        return send_statement(statement)
    raw, time = read.table, read.columns[0]
    return send_statement(statement, {table for table in wanted_tables(statement) if snapshot.reaches(table, raw, time)})


def _building_ms(columns: dict[str, Any]) -> float:
    """About how long it will take to build the frame of these columns: of points a row is a series, of events an event."""
    rows = len(next(iter(columns.values()), ()))
    points = sum(map(len, columns[TIMES])) if TIMES in columns else 0
    return rows * _SERIES_MS + points * _POINT_MS


def _select_all(statement: Statement, max_rows: int) -> str:
    """The statement as it is sent: points as a row a series, events as they are."""
    if yields_points(statement.text, DUCKDB):
        return select_series(statement, max_rows, DIALECT)
    return select_rows(statement.text, max_rows)
