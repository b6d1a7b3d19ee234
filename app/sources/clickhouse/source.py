"""ClickHouse: over HTTP with the driver's asyncio client, or the embedded engine (chdb) in this process.

The rows of a statement come back as one row of columns. That row is there or it is not, so nothing can be missing unnoticed. With
a column `value` they are points: one series per combination of the label columns. Without one they are events, and every column
but `time` is text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal
from uuid import uuid4

import numpy as np
from pydantic import Field

from app import clock, filters
from app.errors import SourceForeign, SourceRejected, SourceUnavailable
from app.model import Frame, Statement
from app.sources.base import translate
from app.sources.clickhouse.embedded import EmbeddedLink
from app.sources.clickhouse.link import ERRORS, ClickHouseAddress, Columns, HttpLink, Link
from app.sources.sql.dialect import CLICKHOUSE, FLOAT, SeriesDialect, code_only
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

_TYPES = {"text": "String", "texts": "Array(String)", "number": "Float64"}
# The braces are doubled for `str.format`.
_NUMBER = filters.NUMBER.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")
_KNOWN = f"isNotNull({FLOAT}) AND isFinite({FLOAT})"
_EXTREMES = (
    f'countIf({_KNOWN}) AS "$count"',
    f'argMinIf(time, ({FLOAT}, time), {_KNOWN}) AS "$low_time", minIf({FLOAT}, {_KNOWN}) AS "$low"',
    f'argMaxIf(time, ({FLOAT}, -time), {_KNOWN}) AS "$high_time", maxIf({FLOAT}, {_KNOWN}) AS "$high"',
    f'maxIf(time, {_KNOWN}) AS "$known_time", argMaxIf({FLOAT}, time, {_KNOWN}) AS "$known"',
    'min(time) AS "$first_time", max(time) AS "$last_time"',
)
_LOW, _HIGH, _NULL = '"$count" > 0', '"$count" > 0 AND "$high_time" != "$low_time"', '"$count" = 0'
_EARLY = '"$last_time" < {thin_to_ms}'
_ANY, _ANY_KNOWN = f"countIf({_EARLY}) > 0", f"countIf({_EARLY} AND {_LOW}) > 0"
_KNOWN_TIME, _LAST_TIME = f'maxIf("$known_time", {_EARLY} AND {_LOW})', f'maxIf("$last_time", {_EARLY})'
_NEWEST = f'ifNull(argMaxIf("$known", "$known_time", {_EARLY} AND {_LOW}), nan)'
_TIMES = (
    f'groupArrayIf("$low_time", {_LOW}), groupArrayIf("$high_time", {_HIGH}), groupArrayIf("$first_time", {_NULL})',
    f"if({_ANY_KNOWN}, [{_KNOWN_TIME}], []), if({_ANY}, [{_LAST_TIME}], [])",
)
_VALUES = (
    f'groupArrayIf(ifNull("$low", nan), {_LOW}), groupArrayIf(ifNull("$high", nan), {_HIGH})',
    f'arrayMap(_ -> nan, groupArrayIf("$first_time", {_NULL})), if({_ANY_KNOWN}, [{_NEWEST}], [])',
    f"if({_ANY}, [if({_ANY_KNOWN} AND {_LAST_TIME} = {_KNOWN_TIME}, {_NEWEST}, nan)], [])",
)
_DIALECT = SeriesDialect(
    quoting=CLICKHOUSE,
    placeholder=lambda name, kind: f"{{{name}:{_TYPES[kind]}}}",
    parameter=re.compile(r"\{(\w+):"),
    # Text whatever the column is: an Enum compared with a word that it does not know is an error. Indices still serve it.
    as_text="ifNull(toString({column}), '')",
    as_float="ifNull(toFloat64({column}), {otherwise})",
    nan="nan",
    collect="groupArray",
    one_of="{column} IN {operand}",
    # ClickHouse lets a dot match a newline, RE2 elsewhere does not.
    matches="match({column}, concat('(?-s)', {operand}))",
    as_number=f"if(match({{column}}, '^(?:{_NUMBER})$'), toFloat64OrNull({{column}}), NULL)",
    time_advice="write toUnixTimestamp64Milli(...) AS time",
    alias_hides_column=True,
    thinned_value="toFloat64(value)",
    extremes=", ".join(_EXTREMES),
    thinned_times=f"arrayConcat({', '.join(_TIMES)})",
    thinned_values=f"arrayConcat({', '.join(_VALUES)})",
    stretch="intDiv(time, {width})",
    instant="fromUnixTimestamp64Milli({ms})",
    hour="toStartOfHour({column})",
)
#: The one column and row of an answer of points.
_SERIES = "series"
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
    dialect: ClassVar[SeriesDialect] = _DIALECT
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
        self._link: Link = HttpLink(config) if config.interface == "http" else EmbeddedLink(config)
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
        params = _driver_params(statement)
        if not yields_points(statement.text, CLICKHOUSE):
            return self._event_frame(await self._query_whole(_select_columns(statement.text, self._max_rows), params))
        columns = await self._query_whole(_select_points(statement, self._max_rows), params)
        if set(columns) != {_SERIES}:
            raise SourceForeign(self.name, f"answered what was not asked: the columns {', '.join(columns)}")
        series = columns[_SERIES]
        rows = count_rows([one[-1] for one in series], statement)
        expect_row_count(self.name, rows, self._max_rows)
        if not rows:
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
        described = await self._query(f"DESCRIBE TABLE (\n{statement.text}\n)", params)
        found = dict(zip(described["name"], described["type"], strict=True)).get("time", "not there")
        if not re.match(r"(Nullable\(|LowCardinality\()*U?Int", found):
            raise no_integer_time(self.name, f"{found}, no integer", _DIALECT.time_advice)

    async def _query_whole(self, text: str, params: dict[str, Any]) -> Columns:
        """The cells of the one row that these statements make. Without that row the answer was cut short.

        A query that is killed may end as if all were well, with some of its rows or none (seen with the embedded engine).
        """
        columns = await self._query(text, params)
        if not columns or any(len(cells) != 1 for cells in columns.values()):
            raise SourceUnavailable(self.name, "the answer was cut short: the query was killed")
        return {name: cells[0] for name, cells in columns.items()}

    async def _tables_of(self, statement: Statement) -> frozenset[str]:
        """Which tables of its roll-ups are there. A schema of an earlier version has none, and the raw table is read then."""
        wanted = wanted_tables(statement)
        for table in self._found.unknown(wanted):
            found = await self._query(f"EXISTS TABLE {table}", {})
            self._found.note(table, there=bool(next(iter(found.values()))[0]))
        return self._found.among(wanted)

    async def ping(self) -> str:
        """The server's version. Raises SourceError."""
        before_ms = clock.wall_ms()
        columns = await self._query("SELECT version() AS version, toUnixTimestamp64Milli(now64(3)) AS now_ms", {})
        self.skew_s = clock.skew_s(columns["now_ms"][0], before_ms)
        return f"ClickHouse {columns['version'][0]}"

    async def _query(self, text: str, params: dict[str, Any]) -> Columns:
        query_id = str(uuid4())
        try:
            with translate(self.name, ERRORS):
                return await self._link.query(query_id, text, params)
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
            raise no_integer_time(self.name, "no integer", _DIALECT.time_advice)


def _driver_params(statement: Statement) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in statement.params}


def _select_points(statement: Statement, max_rows: int) -> str:
    """The points as one cell: an array with a tuple for each series."""
    columns = ", ".join(f'"{name}"' for name in (*statement.labels, *list_columns(statement, _DIALECT)))
    series = select_series(statement, max_rows, _DIALECT)
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
