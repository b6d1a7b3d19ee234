"""ClickHouse: over HTTP with the driver's asyncio client, or the embedded engine (chdb) in this process.

A statement's rows come back as columns. With a column `value` they are points: one series per combination of the label columns.
Without one they are events: one run without labels, in time order (times may repeat), NaN values, and every column but `time` as
text in `Frame.text`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal
from uuid import uuid4

import numpy as np

from app.errors import SourceOverloaded, SourceRejected
from app.model import Frame, Statement
from app.sources import base
from app.sources.base import Ask, Read, translate
from app.sources.clickhouse_link import ERRORS, ClickHouseAddress, Columns, Embedded, Link, Wire
from app.sources.sql import Dialect, fill, points, sliceable, template_problems, unsorted, yields_points

#: How long a cancelled fetch waits for its KILL QUERY to be answered; the kill itself may go on for KILL_S.
_KILL_WAIT_S = 0.2
#: Frames of more rows than this are put together in a thread, so that the event loop stays free.
_INLINE_ROWS = 5_000

_TYPES = {"text": "String", "texts": "Array(String)", "number": "Float64"}
_DIALECT = Dialect(
    placeholder=lambda name, kind: f"{{{name}:{_TYPES[kind]}}}",
    one_of="{column} IN {operand}",
    # ClickHouse lets a dot match a newline, RE2 elsewhere does not.
    matches="match({column}, concat('(?-s)', {operand}))",
    as_number="toFloat64OrNull({column})",
)
_PLACEHOLDER = re.compile(r"\{(\w+):")


class ClickHouseConfig(ClickHouseAddress):
    """A ClickHouse as the configuration file has it."""

    kind: Literal["clickhouse"] = "clickhouse"

    def build(self, name: str) -> ClickHouseSource:
        """The source under its configured name."""
        return ClickHouseSource(name, self)


class ClickHouseRead(Read):
    """A SELECT that yields `time` (epoch ms, integer), the label columns, and `value`; events: text columns and no `value`.

    The template may use `{from_ms:Int64}`, `{to_ms:Int64}`, `{step_ms:Int64}` and `{now_ms:Int64}` (0 when the open bucket is not
    asked for). `labels` maps each label to its column. Labels are compared and returned as text, NULL as the empty text.
    """

    spared_by_coarser: ClassVar[bool] = True

    sql: str

    def statement(self, ask: Ask) -> Statement:
        """The SELECT with its placeholders filled; every value is bound at the server."""
        text, bound = fill(self.sql.strip().rstrip(";"), ask.by, ask.where, self._column, _DIALECT)
        span = ask.range
        bound |= {"from_ms": span.from_ms, "to_ms": span.to_ms, "step_ms": span.step_ms, "now_ms": ask.now_ms}
        # Only what the text names: with parameters but no placeholder the driver would take each % of the text for its own.
        named = {name: bound[name] for name in _PLACEHOLDER.findall(text) if name in bound}
        params = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in named.items())
        return Statement(self.source, ask.metric, text, params, span, ask.by, ask.where, self, ask.now_ms)

    @property
    def sliceable(self) -> bool:
        """See `sql.sliceable`."""
        return sliceable(self.sql)

    def _column(self, label: str) -> str:
        # Text whatever the column is (an Enum compared with a word it does not know is an error); indices still serve it.
        return f"ifNull(toString({self.word(label)}), '')"

    def problems(self) -> Iterator[tuple[str, str]]:
        """Placeholders that nobody fills, label columns that are none, no `time` column."""
        yield from template_problems(self.sql, self.labels, ("from_ms", "to_ms", "step_ms", "now_ms", "by", "where"))
        if not re.search(r"\btime\b", self.sql):
            yield "sql", "has no column named time; write `<epoch milliseconds> AS time` in the SELECT list"


class ClickHouseSource:
    """One ClickHouse. A cancelled fetch drops its connection and sends KILL QUERY on another one."""

    def __init__(self, name: str, config: ClickHouseConfig) -> None:
        self.name = name
        self._max_rows = config.max_rows
        self._link: Link = Wire(config) if config.interface == "http" else Embedded(config)
        self.skew_s: float | None = None
        self.warning: str | None = None
        self._kills: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Nothing: the first fetch connects, so that a server that is down is no error here."""

    async def close(self) -> None:
        """Give connections and threads back, once the last kills are through."""
        if self._kills:
            await asyncio.wait(self._kills)
        await self._link.close()

    async def reconnect(self) -> None:
        """Let go of kept connections."""
        await self._link.renew()

    async def fetch(self, statement: Statement) -> Frame:
        """Ask. Raises SourceError. Cancelled, it stops the query at the server and waits for that 0.2 s at most."""
        params = {name: list(value) if isinstance(value, tuple) else value for name, value in statement.params}
        if not yields_points(statement.text):
            return self._events(await self._ask(statement.text, params))
        columns = await self._ask(_by_series(statement.text, statement.labels, self._max_rows), params)
        rows = sum(map(len, columns.get("times", ())))
        if rows > self._max_rows:
            raise SourceOverloaded(self.name, f"more than {self._max_rows} rows (max_rows)")
        if not rows:
            return Frame()
        self._check(columns["times"][0])
        if rows > _INLINE_ROWS:
            return await asyncio.to_thread(_points, columns, statement.labels)
        return _points(columns, statement.labels)

    def _events(self, columns: Columns) -> Frame:
        if columns and "time" not in columns:
            raise SourceRejected(self.name, f"the statement returns no column 'time'; it returns {', '.join(columns)}")
        if not columns:
            return Frame()
        self._check(columns["time"])
        return _events(columns)

    async def ping(self) -> str:
        """The server's version. Raises SourceError."""
        before_ms = base.wall_ms()
        columns = await self._ask("SELECT version() AS version, toUnixTimestamp64Milli(now64(3)) AS now_ms", {})
        self.skew_s = base.skew_s(columns["now_ms"][0], before_ms)
        return f"ClickHouse {columns['version'][0]}"

    async def _ask(self, text: str, params: dict[str, Any]) -> Columns:
        query_id = str(uuid4())
        try:
            with translate(self.name, ERRORS):
                return await self._link.query(query_id, text, params)
        except asyncio.CancelledError:
            await self._stop(query_id)
            raise

    async def _stop(self, query_id: str) -> None:
        # A task of its own: neither a second cancellation nor a server that leaves the kill unanswered may hold the caller up.
        kill = asyncio.create_task(self._link.kill(query_id))
        self._kills.add(kill)
        kill.add_done_callback(self._kills.discard)
        await asyncio.wait({kill}, timeout=_KILL_WAIT_S)

    def _check(self, times: Sequence[Any]) -> None:
        if not all(isinstance(time, int) for time in times[:1]):
            raise SourceRejected(self.name, "the column `time` is no integer; write toUnixTimestamp64Milli(...) AS time")


def _by_series(text: str, labels: Sequence[str], max_rows: int) -> str:
    """The statement, limited, a row a series: a label's text crosses over once and not with each point, and the server makes a
    float of any number, Decimal above all, far faster than Python does."""
    names = ", ".join(f'"{label}"' for label in labels)
    # The catalogue's own text; its values are bound.
    limited = f"SELECT * FROM (\n{unsorted(text)}\n) LIMIT {max_rows + 1}"  # noqa: S608
    columns = "groupArray(time) AS times, groupArray(ifNull(toFloat64(value), nan)) AS values"
    if not labels:
        return f"SELECT {columns} FROM ({limited}) HAVING count() > 0"  # noqa: S608
    return f"SELECT {names}, {columns} FROM ({limited}) GROUP BY {names}"  # noqa: S608


def _points(columns: Columns, labels: Sequence[str]) -> Frame:
    times = [np.array(at, np.int64) for at in columns["times"]]
    return points(columns, labels, times, [np.array(values, np.float64) for values in columns["values"]])


def _events(columns: Columns) -> Frame:
    time = np.array(columns["time"], dtype=np.int64)
    order = np.argsort(time, kind="stable")
    text = {name: tuple(_text(cells[row]) for row in order) for name, cells in columns.items() if name != "time"}
    if not len(time):
        return Frame(text=text)
    return Frame(time[order], np.full(len(time), np.nan), ((),), (0, len(time)), text)


def _text(cell: Any) -> str | None:
    if cell is None:
        return None
    return ",".join(str(item) for item in cell) if isinstance(cell, list | tuple) else str(cell)
