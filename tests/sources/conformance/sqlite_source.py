"""A fifth kind of source in one file, as somebody would add it: a SQLite file, read with the SQL templates of the catalogue.

It shows what a kind costs: a configuration, a read, an error table, and a source that binds values, translates its driver's
errors and makes cancellation real. `test_a_fifth_kind` has the two lines that register it.
"""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import orjson

from app import filters
from app.errors import SourceError, SourceRejected, SourceTimeout, SourceUnavailable
from app.model import Frame, Labels, Statement, frame_of_runs
from app.sources.base import Ask, ErrorTable, SourceConfig, translate
from app.sources.sql.dialect import DUCKDB, Dialect
from app.sources.sql.read import SqlRead
from app.sources.sql.rows import date_exact_bucket, expect_row_count

#: SQLite writes comments and strings as DuckDB does.
_DIALECT = Dialect(
    quoting=DUCKDB,
    placeholder=lambda name, _: f"${name}",
    parameter=re.compile(r"\$(\w+)"),
    as_text="ifnull(CAST({column} AS TEXT), '')",
    one_of="{column} IN (SELECT value FROM json_each({operand}))",
    matches="matches({operand}, {column})",
    as_number="number({column})",
    time_advice="write an integer AS time",
    alias_hides_column=False,
)
_FAILURES: dict[str, type[SourceError]] = {"SQLITE_CANTOPEN": SourceUnavailable, "SQLITE_INTERRUPT": SourceTimeout}


def _failure_of(problem: BaseException) -> type[SourceError]:
    return _FAILURES.get(getattr(problem, "sqlite_errorname", ""), SourceRejected)


_ERRORS: ErrorTable = {sqlite3.Error: _failure_of}


class SqliteConfig(SourceConfig):
    """A SQLite file."""

    kind: Literal["sqlite"] = "sqlite"
    file: Path

    def build(self, name: str) -> SqliteSource:
        return SqliteSource(name, self)


class SqliteRead(SqlRead):
    """A SELECT of `time`, the label columns and `value`, a row a point; `fold` makes the rows of a bucket one."""

    thins: ClassVar[bool] = False
    dialect: ClassVar[Dialect] = _DIALECT

    fold: Literal["sum", "avg", "min", "max"] = "sum"

    def statement(self, ask: Ask) -> Statement:
        rows = super().statement(ask)
        names = "".join(f'"{label}", ' for label in ask.by)
        folded = f"SELECT {names}time, {self.fold}(value) FROM (\n{rows.text}\n) GROUP BY {names}time ORDER BY {names}time"
        return replace(rows, text=folded)


class SqliteSource:
    """One file; each fetch has a connection and a thread of its own. A cancelled fetch interrupts its connection."""

    skew_s: float | None = None
    warning: str | None = None

    def __init__(self, name: str, config: SqliteConfig) -> None:
        self.name = name
        self._config = config
        self._workers = ThreadPoolExecutor(config.pool_size, name)
        self.running = 0

    async def open(self) -> None:
        """Nothing: each fetch opens the file."""

    async def close(self) -> None:
        await asyncio.to_thread(self._workers.shutdown)

    async def reconnect(self) -> None:
        """Nothing: no connection is kept."""

    async def ping(self) -> str:
        [[version]] = await self._query("SELECT sqlite_version() FROM sqlite_schema LIMIT 1", {})
        return f"SQLite {version}"

    async def fetch(self, statement: Statement) -> Frame:
        params = {name: _bound(value) for name, value in statement.params}
        rows = await self._query(f"{statement.text} LIMIT {self._config.max_rows + 1}", params)
        expect_row_count(self.name, len(rows), self._config.max_rows)
        series: dict[Labels, list[tuple[int, float]]] = {}
        for *cells, time, value in rows:
            labels = tuple(sorted(zip(statement.labels, cells, strict=True)))
            series.setdefault(labels, []).append((time, math.nan if value is None else value))
        runs = []
        for labels, points in series.items():
            times, values = zip(*points, strict=True)
            runs.append((labels, np.array(times), np.array(values, np.float64)))
        return date_exact_bucket(frame_of_runs(runs), statement.range)

    async def _query(self, text: str, params: dict[str, Any]) -> list[Sequence[Any]]:
        with translate(self.name, _ERRORS):
            connection = sqlite3.connect(f"{self._config.file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            connection.create_function("matches", 2, lambda pattern, text: filters.regex_predicate(pattern)(text))
            connection.create_function("number", 1, _number_or_null)
            running = self._workers.submit(self._run, connection, text, params)
            waiting = asyncio.wrap_future(running)
            try:
                return await asyncio.shield(waiting)
            except asyncio.CancelledError:
                # An interrupt that comes before the statement has begun is lost, so it is repeated.
                while not running.cancel() and not running.done():
                    # The thread may have closed its connection just now. That error must not replace the cancellation.
                    with suppress(sqlite3.Error):
                        connection.interrupt()
                    await asyncio.wait((waiting,), timeout=0.01)
                raise

    def _run(self, connection: sqlite3.Connection, text: str, params: dict[str, Any]) -> list[Sequence[Any]]:
        self.running += 1
        try:
            return connection.execute(text, params).fetchall()
        finally:
            self.running -= 1
            connection.close()


def _bound(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, tuple) else value


def _number_or_null(text: str) -> float | None:
    found = filters.number_of(text)
    return None if math.isnan(found) else found
