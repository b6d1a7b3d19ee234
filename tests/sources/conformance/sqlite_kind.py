"""SQLite, the fifth kind of the tests: three tables in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

from app.sources.base import Read, Source
from tests.sources.conformance.kind import ROWS, WHOLE_OR_ERROR, Case, Gap, Table
from tests.sources.conformance.sqlite_source import SqliteConfig, SqliteRead, SqliteSource

#: It ends in a comment, which must not hide what is put behind it.
_TEMPLATE = """
    SELECT at / $step_ms * $step_ms AS time, {{by}} amount AS value FROM {table} -- {{by}} in the middle
    WHERE at >= $from_ms AND at < $to_ms {{where}}; -- the rows of a bucket"""
_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 0 AS time, count(*) AS value FROM n"


class SqliteKind:
    """See Kind."""

    gaps: Mapping[Case, Gap] = {
        "partial": WHOLE_OR_ERROR,
        "explain": Gap("it was not written: the check of the catalogue does without"),
    }
    tells_while_hanging = True
    covers_to_ms: int | None = None

    def __init__(self, file: Path) -> None:
        self._file = file
        with closing(sqlite3.connect(file)) as connection:
            for table, rows in ROWS.items():
                connection.execute(f"CREATE TABLE {table} (at INTEGER, account TEXT, broker TEXT, amount REAL)")
                values = [(row.at_ms, row.account, row.broker, row.amount) for row in rows]
                connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", values)
            connection.commit()

    def build(self, **options: Any) -> Source:
        return SqliteConfig(file=self._file, **options).build("store")

    def unreachable(self) -> Source:
        return SqliteConfig(file=self._file.with_name("elsewhere")).build("store")

    def read(self, table: Table) -> Read:
        return SqliteRead(source="store", sql=_TEMPLATE.format(table=table))

    def wrong_read(self) -> Read:
        return SqliteRead(source="store", sql="SELECT 0 AS time, nosuch AS value FROM figures")

    def partial_read(self) -> Read:
        return self.read("figures")

    @asynccontextmanager
    async def hanging(self) -> AsyncIterator[Read]:
        yield SqliteRead(source="store", sql=_ENDLESS)

    def running(self, source: Source) -> int:
        assert isinstance(source, SqliteSource)
        return source.running


@contextmanager
def sqlite_kind(folder: Path) -> Iterator[SqliteKind]:
    """A file of its own."""
    yield SqliteKind(folder / "rows.sqlite")
