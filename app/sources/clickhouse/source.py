"""ClickHouse: over HTTP with the driver's asyncio client, or the embedded engine (chdb) in this process.

The rows of a statement come back as one row of columns. That row is there or it is not, so nothing can be missing unnoticed. With
a column `value` they are points: one series per combination of the label columns. Without one they are events, and every column
but `time` is text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar
from uuid import uuid4

import numpy as np
from pydantic import Field

from app.errors import SourceForeign, SourceRejected, SourceUnavailable
from app.model import Frame, Notice, Statement
from app.sources.base import translate
from app.sources.clickhouse.address import ClickHouseAddress
from app.sources.clickhouse.dialect import DIALECT
from app.sources.clickhouse.embedded import EmbeddedLink
from app.sources.clickhouse.link import ERRORS, Columns, HttpLink, Link, Reply
from app.sources.clickhouse.nodes import NodesLink
from app.sources.sql.dialect import CLICKHOUSE, SeriesDialect, code_only
from app.sources.sql.rollups import FoundTables, RolledUpRead, send_statement, wanted_tables
from app.sources.sql.rows import (
    count_rows,
    expect_columns,
    expect_row_count,
    frame_of_events,
    frame_of_points,
    list_columns,
    no_integer_time,
    select_rows,
    select_series,
)
from app.sources.sql.template import is_sliceable, yields_points

#: How long a cancelled fetch waits for its KILL QUERY to be answered; the kill itself may go on for KILL_S.
_KILL_WAIT_S = 0.2
#: Frames of more rows than this are put together in a thread, so that the event loop stays free.
_INLINE_ROWS = 5_000

#: The one column and row of an answer of points.
_SERIES = "series"
_Answer = TypeVar("_Answer")
_GROUPED = re.compile(r"groupArray\((?:tuple)?\((.*)\)\)")


class ClickHouseConfig(ClickHouseAddress):
    """A ClickHouse as the configuration file has it."""

    kind: Literal["clickhouse"] = Field("clickhouse", description="what the store is")

    def build(self, name: str) -> ClickHouseSource:
        """The source under its configured name."""
        return ClickHouseSource(name, self)


class ClickHouseRead(RolledUpRead):
    """A SELECT that yields `time` (epoch ms, integer), the label columns, and `value`; events: text columns and no `value`.

    The template may use `{from_ms:Int64}`, `{to_ms:Int64}`, `{step_ms:Int64}` and `{now_ms:Int64}` (0 when the open bucket is not
    asked for). `labels` maps each label to its column. Labels are compared and returned as text, NULL as the empty text.
    """

    spared_by_coarser: ClassVar[bool] = True
    dialect: ClassVar[SeriesDialect] = DIALECT
    placeholders: ClassVar[tuple[str, ...]] = ("from_ms", "to_ms", "step_ms", "now_ms", "by", "where", "table")

    @property
    def sliceable(self) -> bool:
        """See `template.is_sliceable`."""
        return is_sliceable(code_only(self.sql, CLICKHOUSE))

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every template; one without a column `time`."""
        yield from super().problems()
        if not re.search(r"\btime\b", code_only(self.sql, CLICKHOUSE)):
            yield "sql", "has no column named time; write `<epoch milliseconds> AS time` in the SELECT list"


class ClickHouseSource:
    """One ClickHouse. A cancelled fetch drops its connection and sends KILL QUERY on another one."""

    def __init__(self, name: str, config: ClickHouseConfig) -> None:
        self.name = name
        self._max_rows = config.max_rows
        self._link = _link_of(name, config)
        self.skew_s: float | None = None
        self.warning: str | None = None
        self._kills: set[asyncio.Task[None]] = set()
        self._found = FoundTables()

    async def open(self) -> None:
        """Nothing: the first fetch connects, so that a server that is down is no error here."""

    async def close(self) -> None:
        """Give connections and threads back after the last kills."""
        if self._kills:
            await asyncio.wait(self._kills)
        await self._link.close()

    async def reconnect(self) -> None:
        """Let go of kept connections."""
        await self._link.drop_connections()

    async def fetch(self, statement: Statement) -> Frame:
        """Ask. Raises SourceError. A cancelled fetch stops its query at the server and waits for that 0.2 s at most."""
        statement = send_statement(statement, await self._tables_of(statement))
        points = yields_points(statement.text, CLICKHOUSE)
        text = _select_points(statement, self._max_rows) if points else _select_columns(statement.text, self._max_rows)
        reply = await self._query_whole(text, _driver_params(statement))
        frame = await self._point_frame(reply.columns, statement) if points else self._event_frame(reply.columns)
        if reply.lag is None:
            return frame
        return replace(frame.remark(Notice("warning", f"{self.name}: {reply.lag}")), partial=True)

    async def _point_frame(self, columns: Columns, statement: Statement) -> Frame:
        if set(columns) != {_SERIES}:
            raise SourceForeign(self.name, f"answered what was not asked: the columns {', '.join(columns)}")
        series = columns[_SERIES]
        rows = count_rows([one[-1] for one in series], statement)
        expect_row_count(self.name, rows, self._max_rows)
        if not series:
            return Frame()
        self._expect_integers(series[0][len(statement.labels)])
        if rows > _INLINE_ROWS:
            return await asyncio.to_thread(_points_of, series, statement)
        return _points_of(series, statement)

    def _event_frame(self, grouped: Columns) -> Frame:
        columns = {_grouped_name(name): [cell for (cell,) in cells] for name, cells in grouped.items()}
        expect_columns(self.name, columns, "time")
        expect_row_count(self.name, len(columns["time"]), self._max_rows)
        self._expect_integers(columns["time"])
        return frame_of_events(columns["time"], columns)

    async def explain(self, statement: Statement) -> None:
        """Let the server plan the statement, on its roll-ups if it has some, and say what it yields. Raises SourceError."""
        statement = send_statement(statement, wanted_tables(statement))
        params = _driver_params(statement)
        text = _select_points(statement, self._max_rows) if yields_points(statement.text, CLICKHOUSE) else statement.text
        await self._query(f"EXPLAIN {text}", params)
        described = (await self._query(f"DESCRIBE TABLE (\n{statement.text}\n)", params)).columns
        found = dict(zip(described["name"], described["type"], strict=True)).get("time", "not there")
        if not re.match(r"(Nullable\(|LowCardinality\()*U?Int", found):
            raise no_integer_time(self.name, f"{found}, no integer", DIALECT.time_advice)

    async def _query_whole(self, text: str, params: dict[str, Any]) -> Reply:
        """The cells of the one row that these statements make. Without that row the answer was cut short.

        A query that is killed may end as if all were well, with some of its rows or none (seen with the embedded engine).
        """
        columns, lag = await self._query(text, params)
        if not columns or any(len(cells) != 1 for cells in columns.values()):
            raise SourceUnavailable(self.name, "the answer was cut short: the query was killed")
        return Reply({name: cells[0] for name, cells in columns.items()}, lag)

    async def _tables_of(self, statement: Statement) -> frozenset[str]:
        """Which tables of its roll-ups are there. A schema of an earlier version has none, and the raw table is read then."""
        wanted = wanted_tables(statement)
        for table in self._found.unknown(wanted):
            found, _ = await self._query(f"EXISTS TABLE {table}", {})
            self._found.note(table, there=bool(next(iter(found.values()))[0]))
        return self._found.among(wanted)

    async def ping(self) -> str:
        """The server's version; of several nodes, how each of them is. Raises SourceError."""
        found = await self._stoppable(self._link.look)
        self.skew_s, self.warning = found.skew_s, found.warning
        return found.text

    async def _query(self, text: str, params: dict[str, Any]) -> Reply:
        return await self._stoppable(lambda query_id: self._link.query(query_id, text, params))

    async def _stoppable(self, ask: Callable[[str], Awaitable[_Answer]]) -> _Answer:
        """Ask under an id of its own. When the caller leaves, what runs under that id is killed."""
        query_id = str(uuid4())
        try:
            with translate(self.name, ERRORS):
                return await ask(query_id)
        except SourceRejected:
            self._found.forget()
            raise
        except asyncio.CancelledError:
            await self._stop_query(query_id)
            raise

    async def _stop_query(self, query_id: str) -> None:
        # A task of its own: neither a second cancellation nor a server that leaves the kill unanswered may hold the caller up.
        kill = asyncio.create_task(self._link.kill(query_id))
        self._kills.add(kill)
        kill.add_done_callback(self._kills.discard)
        await asyncio.wait({kill}, timeout=_KILL_WAIT_S)

    def _expect_integers(self, times: Sequence[Any]) -> None:
        if not all(isinstance(time, int) for time in times[:1]):
            raise no_integer_time(self.name, "no integer", DIALECT.time_advice)


def _link_of(name: str, config: ClickHouseConfig) -> Link:
    if config.interface == "chdb":
        return EmbeddedLink(config)
    if config.hosts:
        return NodesLink(name, config)
    return HttpLink(config, config.nodes[0], config.connect_timeout_s + config.max_execution_time_s)


def _driver_params(statement: Statement) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in statement.params}


def _select_points(statement: Statement, max_rows: int) -> str:
    """The points as one cell: an array with a tuple for each series."""
    columns = ", ".join(f'"{name}"' for name in (*statement.labels, *list_columns(statement, DIALECT)))
    series = select_series(statement, max_rows, DIALECT)
    return f"SELECT groupArray(tuple({columns})) AS {_SERIES} FROM ({series})"  # noqa: S608  the catalogue's own text


def _select_columns(text: str, max_rows: int) -> str:
    """The statement, limited, as one row of its columns. An array of single cells would leave NULL out, so they are tuples."""
    return f"SELECT * APPLY(cell -> groupArray(tuple(cell))) FROM ({select_rows(text, max_rows)})"  # noqa: S608  as above


def _grouped_name(name: str) -> str:
    """The statement's own name of a column that `_select_columns` has grouped; versions write tuples differently."""
    found = _GROUPED.fullmatch(name)
    return found[1] if found else name


def _points_of(series: Sequence[Sequence[Any]], statement: Statement) -> Frame:
    first = len(statement.labels)
    cells = {label: [one[index] for one in series] for index, label in enumerate(statement.labels)}
    times = [np.array(one[first], np.int64) for one in series]
    values, *weights = ([np.array(one[column], np.float64) for one in series] for column in range(first + 1, len(series[0])))
    return frame_of_points(statement, cells, times, values, *weights)
