"""The driver's side of the clickhouse source: HTTP (`embedded` has the other way), and the driver's errors as ours.

Limits go with every statement. A statement over a limit fails at the server; it is never cut. A user whose profile is `readonly`
may not change most settings. Those settings are left out, and the profile must have them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import clickhouse_connect
from clickhouse_connect.driver import AsyncClient, Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, InternalError, OperationalError, ProgrammingError
from clickhouse_connect.driver.query import QueryResult

from app import clock
from app.errors import (
    SourceDenied,
    SourceError,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
)
from app.sources.base import ErrorTable
from app.sources.clickhouse.address import ClickHouseAddress, NodeAddress

#: The answer to a statement: column name -> cells.
Columns = Mapping[str, Sequence[Any]]

#: How long a KILL QUERY may take.
KILL_S = 1.0
#: The server's error code for a query that somebody has killed.
KILLED = 394

_BY_CODE: Mapping[int, type[SourceError]] = {
    159: SourceTimeout,
    **dict.fromkeys((158, 160, 173, 201, 202, 241, 307, 396, 439, 745), SourceOverloaded),
    **dict.fromkeys((192, 193, 194, 195, 291, 497, 516), SourceDenied),
    # its own network, disk, keeper or shutdown; all replicas lag (369); 394: the query was killed, and not by us
    **dict.fromkeys((32, 33, 198, 209, 210, 225, 236, 242, 243, 279, 369, KILLED, 425, 999), SourceUnavailable),
}


def _database_failure(problem: BaseException) -> type[SourceError]:
    """The server's error code decides. Without a code something else answered, or nothing did."""
    code = getattr(problem, "code", None)
    if code is not None:
        return _BY_CODE.get(code, SourceRejected)
    if isinstance(problem, OperationalError):
        return SourceTimeout if isinstance(problem.__cause__, TimeoutError) else SourceUnavailable
    return SourceUnavailable if re.search(r"HTTP status 5\d\d", str(problem)) else SourceGarbled


ERRORS: ErrorTable = {
    DatabaseError: _database_failure,
    # an embedded engine that does not open; a client that was closed
    ProgrammingError: SourceUnavailable,
    # bytes that are not ClickHouse's: a length among them may be any number
    InternalError: SourceGarbled,
    MemoryError: SourceGarbled,
    OverflowError: SourceGarbled,
    ValueError: SourceGarbled,
    IndexError: SourceGarbled,
    TimeoutError: SourceTimeout,
    ImportError: SourceUnavailable,
    OSError: SourceUnavailable,
}


class Reply(NamedTuple):
    """An answer. It has no columns where no row came back and the engine did not name them."""

    columns: Columns
    #: why rows may be missing in it; None where none are
    lag: str | None = None


class Presence(NamedTuple):
    """What a look at the engine brought."""

    #: what answers, and where there are several nodes how each of them is
    text: str
    skew_s: float
    #: what is wrong with one of several nodes; None where all is well
    warning: str | None = None


class Link(Protocol):
    """A way to the engine."""

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Reply:
        """Run a query under this id."""

    async def look(self, query_id: str) -> Presence:
        """Ask what the engine is, under this id."""

    async def kill(self, query_id: str) -> None:
        """Stop the query of this id. It raises nothing: the query's own time limit ends it at the server anyway."""

    async def close(self) -> None:
        """Give connections and threads back."""

    async def drop_connections(self) -> None:
        """Close the kept connections; new ones are made when needed."""


#: The columns that tell what an engine is.
WHAT_ANSWERS = "version() AS version, toUnixTimestamp64Milli(now64(3)) AS now_ms"


class HttpLink:
    """HTTP to one server: one client whose pool bounds the queries, and one for kills, which never queue behind queries.

    A new client asks the server for its version. So the first fetch makes both, for all fetches that wait; where that fails, the
    next fetch makes them. There is no session, because the queries of a session wait for each other. The driver repeats a read
    once where the server has closed a kept connection, and a connect once where it ran out of time.
    """

    def __init__(self, config: ClickHouseAddress, address: NodeAddress, connect_limit_s: float) -> None:
        self._config = config
        self._address = address
        self._connect_limit_s = connect_limit_s
        self._connecting: asyncio.Task[tuple[AsyncClient, AsyncClient]] | None = None

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Reply:
        """See Link."""
        client, _ = await self._connected_clients()
        settings = changeable_settings(client, statement_settings(self._config)) | {"query_id": query_id}
        result = await client.query(text, parameters=params, settings=settings, column_oriented=True)
        if not result.summary.get("query_id"):
            raise ValueError("an answer without ClickHouse's headers: something else answered")
        return Reply(columns_of(result))

    async def look(self, query_id: str) -> Presence:
        """See Link."""
        return await look_through(self, query_id)

    async def kill(self, query_id: str) -> None:
        """See Link."""
        if self._connecting is None or not self._connecting.done():
            return
        with suppress(ClickHouseError, TimeoutError, OSError):
            async with asyncio.timeout(KILL_S):
                _, client = await self._connected_clients()
                await client.command("KILL QUERY WHERE query_id = {id:String} ASYNC", parameters={"id": query_id})

    async def close(self) -> None:
        """See Link."""
        connecting, self._connecting = self._connecting, None
        if connecting is None:
            return
        connecting.cancel()
        await asyncio.wait({connecting})
        if not connecting.cancelled() and connecting.exception() is None:
            for client in connecting.result():
                await client.close()

    async def drop_connections(self) -> None:
        """See Link."""
        await self.close()

    async def _connected_clients(self) -> tuple[AsyncClient, AsyncClient]:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._forget_failure)
        return await asyncio.shield(self._connecting)

    def _forget_failure(self, connecting: asyncio.Task[tuple[AsyncClient, AsyncClient]]) -> None:
        if connecting.cancelled() or connecting.exception() is not None:
            self._connecting = None

    async def _connect(self) -> tuple[AsyncClient, AsyncClient]:
        try:
            async with asyncio.timeout(self._connect_limit_s):
                client = await self._make_client()
                try:
                    return client, await self._make_client()
                except BaseException:
                    await client.close()
                    raise
        except TimeoutError:
            raise TimeoutError(f"no connection within {self._connect_limit_s:g}s") from None

    async def _make_client(self) -> AsyncClient:
        config = self._config
        return await clickhouse_connect.get_async_client(
            host=self._address.host,
            port=self._address.port,
            database=config.database,
            username=config.username,
            password=config.password.get_secret_value(),
            interface="https" if config.tls else "http",
            ca_cert=str(config.ca_file) if config.ca_file else None,
            compress=config.compress,
            connect_timeout=config.connect_timeout_s,
            send_receive_timeout=config.max_execution_time_s + 1,
            connector_limit=config.pool_size,
            query_retries=0,
            autogenerate_session_id=False,
        )


def columns_of(result: QueryResult) -> Columns:
    """The answer, column by column."""
    return dict(zip(result.column_names, result.result_columns, strict=True))


async def look_through(link: Link, query_id: str) -> Presence:
    """The version and the clock of the one engine behind a link."""
    before_ms = clock.wall_ms()
    columns = (await link.query(query_id, f"SELECT {WHAT_ANSWERS}", {})).columns
    return Presence(f"ClickHouse {columns['version'][0]}", clock.skew_s(columns["now_ms"][0], before_ms))


def statement_settings(config: ClickHouseAddress) -> dict[str, Any]:
    """The settings of one statement: its limits at the server, the zone of times that name none, and that a `Distributed` table
    answers from all of its shards, from replicas that do not lag, or not at all."""
    return {
        "session_timezone": "UTC",
        "max_execution_time": config.max_execution_time_s,
        "timeout_overflow_mode": "throw",
        "max_result_rows": config.max_rows,
        "result_overflow_mode": "throw",
        "max_memory_usage": config.max_memory_bytes,
        "skip_unavailable_shards": 0,
        "max_replica_delay_for_distributed_queries": config.max_delay_s,
        "fallback_to_stale_replicas_for_distributed_queries": 0,
    }


def changeable_settings(client: AsyncClient | Client, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the server knows and lets this user change."""
    known = client.server_settings
    return {name: value for name, value in settings.items() if name in known and not known[name].readonly}
