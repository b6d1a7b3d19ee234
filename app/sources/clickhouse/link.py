"""The driver's side of the clickhouse source: HTTP (`embedded` has the other way), and the driver's errors as ours.

Limits go with every statement. A statement over a limit fails at the server; it is never cut. A user whose profile is `readonly`
may not change most settings. Those settings are left out, and the profile must have them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import clickhouse_connect
from clickhouse_connect.driver import AsyncClient, Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, InternalError, OperationalError, ProgrammingError
from clickhouse_connect.driver.query import QueryResult
from pydantic import Field, SecretStr, model_validator

from app.errors import (
    SourceDenied,
    SourceError,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
)
from app.sources.base import ErrorTable, SourceConfig

#: The answer to a statement: column name -> cells.
Columns = Mapping[str, Sequence[Any]]

#: How long a KILL QUERY may take.
KILL_S = 1.0


class ClickHouseAddress(SourceConfig):
    """Where ClickHouse is. `interface: chdb` runs the embedded engine on the folder `path` instead (one folder per process).

    The driver goes through the proxy that HTTP_PROXY or HTTPS_PROXY names unless NO_PROXY lists the host; there is no switch.
    """

    interface: Literal["http", "chdb"] = Field("http", description="chdb: the engine inside this process, on the folder `path`")
    host: str = Field("127.0.0.1", description="the server's address")
    port: int = Field(8123, ge=1, le=65535, description="the server's HTTP port")
    database: str = Field("trade_system", description="the database")
    username: str = Field("default", description="the user")
    password: SecretStr = Field(SecretStr(""), description="the user's password")
    tls: bool = Field(False, description="true: connect with TLS")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    compress: bool = Field(False, description="true: compressed answers; useful on slow links only")
    path: Path | None = Field(None, description="the embedded engine's folder")
    max_execution_time_s: float = Field(
        4.0, gt=0, le=300, description="after this time the server gives up; keep it below attempt_timeout_s"
    )
    max_memory_bytes: int = Field(1_000_000_000, ge=1_000_000, description="memory that one statement may use at the server")

    @model_validator(mode="after")
    def _path_is_given(self) -> Self:
        if self.interface == "chdb" and self.path is None:
            raise ValueError("path: is needed with `interface: chdb` (the embedded engine's folder)")
        return self

    @property
    def one_process_only(self) -> bool:
        """The embedded engine locks its folder."""
        return self.interface == "chdb"


_BY_CODE: Mapping[int, type[SourceError]] = {
    159: SourceTimeout,
    **dict.fromkeys((158, 160, 173, 201, 202, 241, 307, 396, 439, 745), SourceOverloaded),
    **dict.fromkeys((192, 193, 194, 195, 291, 497, 516), SourceDenied),
    # its own network, disk, keeper or shutdown; 394: the query was killed, and not by us
    **dict.fromkeys((32, 33, 198, 209, 210, 236, 243, 279, 394, 425, 999), SourceUnavailable),
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


class Link(Protocol):
    """A way to the engine."""

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Columns:
        """Run a query under this id. The answer is empty where no row came back and the engine did not name its columns."""

    async def kill(self, query_id: str) -> None:
        """Stop the query of this id. It raises nothing: the query's own time limit ends it at the server anyway."""

    async def close(self) -> None:
        """Give connections and threads back."""

    async def drop_connections(self) -> None:
        """Close the kept connections; new ones are made when needed."""


class HttpLink:
    """HTTP: one client whose connection pool bounds the queries, and one for kills, so that a kill never queues behind queries.

    A new client asks the server for its version. So the first fetch makes both, for all fetches that wait; where that fails, the
    next fetch makes them. There is no session, because the queries of a session wait for each other. The driver repeats a read
    once where the server has closed a kept connection, and a connect once where it ran out of time.
    """

    def __init__(self, config: ClickHouseAddress) -> None:
        self._config = config
        self._connecting: asyncio.Task[tuple[AsyncClient, AsyncClient]] | None = None

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Columns:
        """See Link."""
        client, _ = await self._connected_clients()
        settings = changeable_settings(client, statement_settings(self._config)) | {"query_id": query_id}
        result = await client.query(text, parameters=params, settings=settings, column_oriented=True)
        if not result.summary.get("query_id"):
            raise ValueError("an answer without ClickHouse's headers: something else answered")
        return columns_of(result)

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
        limit_s = self._config.connect_timeout_s + self._config.max_execution_time_s
        try:
            async with asyncio.timeout(limit_s):
                client = await self._make_client()
                try:
                    return client, await self._make_client()
                except BaseException:
                    await client.close()
                    raise
        except TimeoutError:
            raise TimeoutError(f"no connection within {limit_s:g}s") from None

    async def _make_client(self) -> AsyncClient:
        config = self._config
        return await clickhouse_connect.get_async_client(
            host=config.host,
            port=config.port,
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


def statement_settings(config: ClickHouseAddress) -> dict[str, Any]:
    """The settings of one statement: its limits at the server, and the zone of times that name none."""
    return {
        "session_timezone": "UTC",
        "max_execution_time": config.max_execution_time_s,
        "timeout_overflow_mode": "throw",
        "max_result_rows": config.max_rows,
        "result_overflow_mode": "throw",
        "max_memory_usage": config.max_memory_bytes,
    }


def changeable_settings(client: AsyncClient | Client, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the server knows and lets this user change."""
    known = client.server_settings
    return {name: value for name, value in settings.items() if name in known and not known[name].readonly}
