"""DuckDB: three tables in a published snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from app.sources.base import Read, Source
from app.sources.duckdb.source import DuckDBConfig, DuckDBRead, DuckDBSource
from tests.servers.snapshots import snapshot_name
from tests.sources.conformance.kind import END, ROWS, WHOLE_OR_ERROR, Case, Gap, Table

#: It ends in a comment, which must not hide what is put behind it.
_TEMPLATE = """
    SELECT epoch_ms(ts) // $step_ms * $step_ms AS time, {{by}}, sum(amount) AS value
    FROM {table} -- {{by}} in the middle
    WHERE ts >= make_timestamp_ms($from_ms) AND ts < make_timestamp_ms($to_ms) {{where}}
    GROUP BY ALL ORDER BY time; -- the rows of a bucket"""
_COVERS_TO_MS = END + 1_000
_ENDLESS = "SELECT 0 AS time, count(*) AS value FROM range(100000000) a, range(100000) b"


class DuckDBKind:
    """See Kind."""

    gaps: Mapping[Case, Gap] = {"partial": WHOLE_OR_ERROR}
    tells_while_hanging = True
    covers_to_ms: int | None = _COVERS_TO_MS

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with duckdb.connect(str(folder / snapshot_name(_COVERS_TO_MS))) as file:
            for table, rows in ROWS.items():
                file.execute(f"CREATE TABLE {table} (ts TIMESTAMP_MS, account VARCHAR, broker VARCHAR, amount DECIMAL(18, 4))")
                values = [(row.at_ms, row.account, row.broker, row.amount) for row in rows]
                file.executemany(f"INSERT INTO {table} VALUES (make_timestamp_ms(?), ?, ?, ?)", values)

    def build(self, **options: Any) -> Source:
        return DuckDBConfig(snapshots=self._folder, **options).build("store")

    def unreachable(self) -> Source:
        return DuckDBConfig(snapshots=self._folder / "elsewhere").build("store")

    def read(self, table: Table) -> Read:
        return DuckDBRead(source="store", sql=_TEMPLATE.format(table=table))

    def wrong_read(self) -> Read:
        return DuckDBRead(source="store", sql="SELECT 0 AS time, nosuch AS value FROM figures")

    def partial_read(self) -> Read:
        return self.read("figures")

    @asynccontextmanager
    async def hanging(self) -> AsyncIterator[Read]:
        yield DuckDBRead(source="store", sql=_ENDLESS)

    def running(self, source: Source) -> int:
        assert isinstance(source, DuckDBSource)
        current = source._snapshots.current  # noqa: SLF001  a lease ends with its thread, which nothing else shows
        return current.users if current else 0


@contextmanager
def duckdb_kind(folder: Path) -> Iterator[DuckDBKind]:
    """A folder of its own."""
    yield DuckDBKind(folder)
