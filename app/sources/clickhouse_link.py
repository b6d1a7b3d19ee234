"""The driver's side of the clickhouse source: its two ways to the engine, and its errors as ours.

Limits travel with every statement and throw at the server, never cut. A user whose profile is `readonly` may not change most
settings: what the server does not let us set is left out, and the profile has to set it itself (operations.md 4.2).
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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

#: What a statement brings back: column name -> its cells.
Columns = Mapping[str, Sequence[Any]]

#: How long a KILL QUERY may take.
KILL_S = 1.0


class ClickHouseAddress(SourceConfig):
    """Where ClickHouse is. `interface: chdb` runs the embedded engine on the folder `path` instead (one folder per process).

    The driver goes through the proxy that HTTP_PROXY or HTTPS_PROXY names unless NO_PROXY lists the host; there is no switch.
    """

    interface: Literal["http", "chdb"] = "http"
    host: str = "127.0.0.1"
    port: int = Field(8123, ge=1, le=65535)
    database: str = "trade_system"
    username: str = "default"
    password: SecretStr = SecretStr("")
    tls: bool = False
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    compress: bool = Field(False, description="ask for compressed answers; pays on slow links only")
    path: Path | None = Field(None, description="the embedded engine's folder")
    max_execution_time_s: float = Field(4.0, gt=0, le=300, description="after which the server gives up; below the attempt limit")
    max_memory_bytes: int = Field(1_000_000_000, ge=1_000_000, description="what one statement may use at the server")

    @model_validator(mode="after")
    def _path_is_given(self) -> Self:
        if self.interface == "chdb" and self.path is None:
            raise ValueError("path: is needed with `interface: chdb` (the embedded engine's folder)")
        return self


_BY_CODE: Mapping[int, type[SourceError]] = {
    159: SourceTimeout,
    **dict.fromkeys((158, 160, 173, 201, 202, 241, 307, 396, 439, 745), SourceOverloaded),
    **dict.fromkeys((192, 193, 194, 195, 291, 497, 516), SourceDenied),
    # its own network, disk, keeper or shutdown; 394: somebody else killed the query
    **dict.fromkeys((32, 33, 198, 209, 210, 236, 243, 279, 394, 425, 999), SourceUnavailable),
}


def _database_failure(problem: BaseException) -> type[SourceError]:
    """The server's own code decides; without one it was no ClickHouse that answered, or nobody did."""
    code = getattr(problem, "code", None)
    if code is not None:
        return _BY_CODE.get(code, SourceRejected)
    if isinstance(problem, OperationalError):
        return SourceTimeout if isinstance(problem.__cause__, TimeoutError) else SourceUnavailable
    return SourceUnavailable if re.search(r"HTTP status 5\d\d", str(problem)) else SourceGarbled


ERRORS: ErrorTable = {
    DatabaseError: _database_failure,
    # an embedded engine that does not open, a client that was closed
    ProgrammingError: SourceUnavailable,
    # bytes that are not ClickHouse's
    InternalError: SourceGarbled,
    ValueError: SourceGarbled,
    IndexError: SourceGarbled,
    TimeoutError: SourceTimeout,
    ImportError: SourceUnavailable,
    OSError: SourceUnavailable,
}


class Link(Protocol):
    """A way to the engine."""

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Columns:
        """Ask, under an id of our own. Empty when no row came back and the engine did not say which columns there are."""

    async def kill(self, query_id: str) -> None:
        """Stop what runs under that id. Best effort, raises nothing: the statement's own limit ends it at the server anyway."""

    async def close(self) -> None:
        """Give connections and threads back."""

    async def renew(self) -> None:
        """Let go of kept connections; new ones are made when needed."""


class Wire:
    """HTTP: one client whose connection pool bounds the queries, and one for kills, so that a kill never queues behind queries.

    A client asks the server for its version when it is made. So both are made by the first fetch, for all that wait, and again by
    the next one when that failed. There is no session: a session would make its queries wait for each other. The driver repeats
    a read once when the server has closed a kept connection, and a connect once that ran out of time.
    """

    def __init__(self, config: ClickHouseAddress) -> None:
        self._config = config
        self._connecting: asyncio.Task[tuple[AsyncClient, AsyncClient]] | None = None

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Columns:
        """See Link."""
        client, _ = await self._clients()
        settings = _settable(client, _limits(self._config)) | {"query_id": query_id}
        result = await client.query(text, parameters=params, settings=settings, column_oriented=True)
        if not result.summary.get("query_id"):
            raise ValueError("an answer without ClickHouse's headers: something else answered")
        return _columns(result)

    async def kill(self, query_id: str) -> None:
        """See Link."""
        if self._connecting is None or not self._connecting.done():
            return
        with suppress(ClickHouseError, TimeoutError, OSError):
            async with asyncio.timeout(KILL_S):
                _, client = await self._clients()
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

    async def renew(self) -> None:
        """See Link."""
        await self.close()

    async def _clients(self) -> tuple[AsyncClient, AsyncClient]:
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
                client = await self._client()
                try:
                    return client, await self._client()
                except BaseException:
                    await client.close()
                    raise
        except TimeoutError:
            raise TimeoutError(f"no connection within {limit_s:g}s") from None

    async def _client(self) -> AsyncClient:
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


class Embedded:
    """The engine inside this process: `pool_size` threads with a connection each, and one more for kills.

    All connections of the process, the demo feed's among them, share the one engine and its data. The engine takes no query ids,
    so ours travels as `log_comment`. The thread of a killed query is free at the engine's next check, milliseconds later.
    """

    def __init__(self, config: ClickHouseAddress) -> None:
        self._config = config
        self._workers = ThreadPoolExecutor(config.pool_size, "clickhouse")
        self._killer = ThreadPoolExecutor(1, "clickhouse-kill")
        self._own = threading.local()
        self._clients: list[Client] = []

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Columns:
        """See Link."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, self._query, query_id, text, params)

    async def kill(self, query_id: str) -> None:
        """See Link."""
        with suppress(ClickHouseError):
            await asyncio.get_running_loop().run_in_executor(self._killer, self._kill, query_id)

    async def close(self) -> None:
        """See Link."""
        await asyncio.to_thread(self._close)

    async def renew(self) -> None:
        """Nothing: there is no connection that could be cut."""

    def _query(self, query_id: str, text: str, params: dict[str, Any]) -> Columns:
        client = self._client()
        settings = _settable(client, _limits(self._config)) | {"log_comment": query_id}
        return _columns(client.query(text, parameters=params, settings=settings, column_oriented=True))

    def _kill(self, query_id: str) -> None:
        self._client().command("KILL QUERY WHERE Settings['log_comment'] = {id:String} ASYNC", parameters={"id": query_id})

    def _client(self) -> Client:
        client: Client | None = getattr(self._own, "client", None)
        if client is None:
            client = clickhouse_connect.get_client(interface="chdb", path=str(self._config.path), database=self._config.database)
            self._own.client = client
            self._clients.append(client)
        return client

    def _close(self) -> None:
        for threads in (self._workers, self._killer):
            threads.shutdown(cancel_futures=True)
        for client in self._clients:
            client.close()


def _columns(result: QueryResult) -> Columns:
    return dict(zip(result.column_names, result.result_columns, strict=True))


def _limits(config: ClickHouseAddress) -> dict[str, Any]:
    return {
        "max_execution_time": config.max_execution_time_s,
        "timeout_overflow_mode": "throw",
        "max_result_rows": config.max_rows,
        "result_overflow_mode": "throw",
        "max_memory_usage": config.max_memory_bytes,
    }


def _settable(client: AsyncClient | Client, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that the server knows and lets this user change."""
    known = client.server_settings
    return {name: value for name, value in settings.items() if name in known and not known[name].readonly}
