"""The clickhouse source's way to the engine inside this process (chdb).

All handles of the process share one engine and its data, those of the demo's feed among them. **A handle whose query was killed
or failed gives the rest of that query to its next one**: foreign rows, or bytes that the driver reads as an endless length.
Such a handle is closed and never used again. A kill is sent only for a query that still runs. The query is marked first, so
whatever it returns is thrown away together with its handle.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import clickhouse_connect
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from app.sources.clickhouse.address import ClickHouseAddress
from app.sources.clickhouse.link import (
    KILL_S,
    Columns,
    Presence,
    Reply,
    changeable_settings,
    columns_of,
    look_through,
    statement_settings,
)

#: A kill that comes before the query has begun finds nothing, so it is sent again until the query has ended.
_KILL_EVERY_S = 0.02


_Outcome = TypeVar("_Outcome")


class _RunningQuery:
    """Whether one query still runs, and whether its caller still waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self._unwanted = False

    @property
    def is_wanted(self) -> bool:
        """Whether the caller still waits."""
        return not self._unwanted

    @property
    def has_ended(self) -> bool:
        """Whether the engine has finished it."""
        return self._ended

    def abandon(self) -> bool:
        """The caller has left. True when the query can still be killed."""
        with self._lock:
            self._unwanted = True
            return not self._ended

    def finish(self) -> bool:
        """The engine has finished it; no kill can begin after this. True when the caller waited to the end."""
        with self._lock:
            self._ended = True
            return not self._unwanted


class EmbeddedLink:
    """The engine inside this process: `pool_size` threads with a handle each, and one more for kills.

    The engine takes no query ids, so ours is the setting `log_comment`. The engine looks for kills every few milliseconds.
    """

    def __init__(self, config: ClickHouseAddress) -> None:
        self._config = config
        self._workers = ThreadPoolExecutor(config.pool_size, "clickhouse")
        self._killer = ThreadPoolExecutor(1, "clickhouse-kill")
        self._own = threading.local()
        self._handles: set[Client] = set()
        self._running: dict[str, _RunningQuery] = {}

    async def query(self, query_id: str, text: str, params: dict[str, Any]) -> Reply:
        """See Link."""
        query = self._running[query_id] = _RunningQuery()
        running: Future[Columns] = self._workers.submit(self._run_query, query, query_id, text, params)
        # It can be killed until its thread has ended, which may be after its caller has left.
        running.add_done_callback(lambda _: self._running.pop(query_id, None))
        return Reply(await asyncio.wrap_future(running))

    async def look(self, query_id: str) -> Presence:
        """See Link."""
        return await look_through(self, query_id)

    async def kill(self, query_id: str) -> None:
        """See Link."""
        query = self._running.get(query_id)
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + KILL_S
        while query is not None and query.abandon() and loop.time() < ends_s:
            with suppress(ClickHouseError):
                await loop.run_in_executor(self._killer, self._kill_once, query, query_id)
            await asyncio.sleep(_KILL_EVERY_S)

    async def close(self) -> None:
        """See Link."""
        await asyncio.to_thread(self._close_handles)

    async def drop_connections(self) -> None:
        """Nothing: there are no connections."""

    def _run_query(self, query: _RunningQuery, query_id: str, text: str, params: dict[str, Any]) -> Columns:
        if not query.is_wanted:
            raise OperationalError("cancelled before it began")
        return self._with_own_handle(lambda client: self._query_on(client, query, query_id, text, params))

    def _query_on(self, client: Client, query: _RunningQuery, query_id: str, text: str, params: dict[str, Any]) -> Columns:
        settings = changeable_settings(client, statement_settings(self._config)) | {"log_comment": query_id}
        try:
            result = client.query(text, parameters=params, settings=settings, column_oriented=True)
        finally:
            wanted = query.finish()
        if not wanted:
            raise OperationalError("the query was killed")
        return columns_of(result)

    def _kill_once(self, query: _RunningQuery, query_id: str) -> None:
        if not query.has_ended:
            kill = "KILL QUERY WHERE Settings['log_comment'] = {id:String} ASYNC"
            self._with_own_handle(lambda client: client.command(kill, parameters={"id": query_id}))

    def _with_own_handle(self, work: Callable[[Client], _Outcome]) -> _Outcome:
        """Do the work on this thread's handle. Any failure replaces the handle."""
        client: Client = getattr(self._own, "client", None) or self._open_handle()
        try:
            return work(client)
        except BaseException:
            self._replace_handle(client)
            raise

    def _replace_handle(self, spoiled: Client) -> None:
        """Give this thread another handle. It is made first, because the engine ends with its last handle."""
        self._own.client = None
        try:
            with suppress(Exception):  # the failure that brought us here is the one to tell
                self._open_handle()
        finally:
            self._handles.discard(spoiled)
            spoiled.close()

    def _open_handle(self) -> Client:
        client = clickhouse_connect.get_client(interface="chdb", path=str(self._config.path), database=self._config.database)
        self._own.client = client
        self._handles.add(client)
        return client

    def _close_handles(self) -> None:
        for threads in (self._workers, self._killer):
            threads.shutdown(cancel_futures=True)
        for client in self._handles:
            client.close()
