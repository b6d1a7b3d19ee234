"""DuckDB itself: a hardened connection to one file, and one statement on one cursor.

No file, network or extension can be reached from SQL, and nothing can be switched back on (DuckDB's "Securing DuckDB").
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

#: How long a cancelled fetch waits for its thread to stop. The interrupt is repeated until then, because one that comes
#: before the engine has begun is lost.
_STOP_S = 0.25
_INTERRUPT_EVERY_S = 0.01
#: steps of `nice`: with ten of them a thread gets a tenth of what another one gets
_LOWER_BY = 10

_CONFIGURED = "SELECT current_setting('TimeZone'), current_setting('lock_configuration')"


def open_hardened(file: Path, memory_limit: str, threads: int, max_execution_time_s: float) -> duckdb.DuckDBPyConnection:
    """A read-only connection. Raises duckdb.Error."""
    connection = duckdb.connect(
        str(file),
        read_only=True,
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_unsigned_extensions": "false",
            "allow_persistent_secrets": "false",
            "python_enable_replacements": "false",
            "memory_limit": memory_limit,
            "threads": str(threads),
            "max_temp_directory_size": "0B",
            "max_execution_time": str(round(max_execution_time_s * 1000)),
        },
    )
    _lock_settings(connection)
    return connection


def _lock_settings(connection: duckdb.DuckDBPyConnection) -> None:
    """Set the zone to UTC, so that times without a zone mean the same on every host; then allow no more settings.

    The connections of a process to one file share their settings, so another connection may have set and locked them already.
    """
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
    if connection.execute(_CONFIGURED).fetchone() != ("UTC", True):
        connection.close()
        raise duckdb.ConnectionException("its settings cannot be set and locked")


def lower_thread_priority() -> None:
    """Let the threads of light statements and of the event loop go before this one. Linux only: elsewhere all are equal."""
    if sys.platform == "linux":
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, min(os.getpriority(os.PRIO_PROCESS, own) + _LOWER_BY, 19))


class CursorCall:
    """One statement on one cursor in one thread. It can be stopped.

    Python's lock is held while the columns are fetched. A thread of low priority must not hold it, since everybody would wait for
    that thread: then `fetching` has the threads that fetch.
    """

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, text: str, params: dict[str, Any], fetching: Executor | None = None
    ) -> None:
        self._cursor = cursor
        self._text = text
        self._params = params
        self._fetching = fetching
        self._unwanted = False

    def run(self) -> dict[str, Any]:
        """Run in the thread; the columns of the answer."""
        try:
            if self._unwanted:
                raise duckdb.InterruptException("stopped before it began")
            answer = self._cursor.execute(self._text, self._params)
            found: dict[str, Any] = self._fetching.submit(answer.fetchnumpy).result() if self._fetching else answer.fetchnumpy()
            return found
        finally:
            self._cursor.close()

    async def stop(self, waiting: asyncio.Future[dict[str, Any]]) -> None:
        """Interrupt until the thread has ended, for `_STOP_S` at most."""
        self._unwanted = True
        waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        ends_s = time.monotonic() + _STOP_S
        while not waiting.done() and time.monotonic() < ends_s:
            # The thread may have closed its cursor just now. That error must not replace the cancellation.
            with suppress(duckdb.Error):
                self._cursor.interrupt()
            await asyncio.wait((waiting,), timeout=_INTERRUPT_EVERY_S)
