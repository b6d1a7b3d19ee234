"""The statements that saving and restoring needs, over ClickHouse's HTTP interface."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx

from app.errors import BackupError

_POLL_S = (0.05, 2.0)
_CONNECT_S = 5.0
_QUICK_S = 60.0
# Null-safe: cityHash64(*) of a row with a NULL in it is NULL, and sum() passes over that, so that such rows would not count.
# Stored columns that `*` leaves out are in it.
_HASH = "SELECT count(), sum(cityHash64(tuple(*))) FROM {table} SETTINGS asterisk_include_materialized_columns = 1"
# A view keeps nothing itself, but for a materialized one without a table of its own.
_KEEPS_ROWS = """SELECT name FROM system.tables WHERE database = {database:String} AND NOT startsWith(name, '.inner')
    AND (engine LIKE '%MergeTree' OR engine LIKE '%Log' OR engine = 'Memory'
        OR engine = 'MaterializedView' AND NOT match(create_table_query, '^CREATE MATERIALIZED VIEW \\\\S+ TO '))
    ORDER BY name FORMAT TabSeparatedRaw"""
_MERGING = """SELECT name FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree'
    FORMAT TabSeparatedRaw"""
_VIEWS = """SELECT name FROM system.tables WHERE database = {database:String} AND engine = 'MaterializedView'
    ORDER BY name FORMAT TabSeparatedRaw"""
_MESSAGE = re.compile(r"(?:^Code: \d+\. )?(?:DB::Exception: )?(.*?)(?:\. ?)?(?:, Stack trace.*|\(version .*)?$", re.DOTALL)


def quoted(name: str) -> str:
    """An identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class ClickHouseServer:
    """One server, asked as one user. Raises BackupError with ClickHouse's own reason."""

    def __init__(self, url: str, username: str, password: str, verify: ssl.SSLContext | bool, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        headers = {"X-ClickHouse-User": username, "X-ClickHouse-Key": password}
        self._http = httpx.Client(headers=headers, verify=verify, trust_env=False)

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def ask(self, sql: str, *, long: bool = False, **params: str) -> str:
        """One statement's answer; one that works on rows or files may take as long as a BACKUP."""
        bound = {f"param_{name}": value for name, value in params.items()}
        timeout = httpx.Timeout(self._timeout_s if long else _QUICK_S, connect=_CONNECT_S)
        try:
            answer = self._http.post(self._url, content=sql.encode(), params=bound, timeout=timeout)
        except httpx.HTTPError as problem:
            raise BackupError(f"clickhouse: {self._url}: {str(problem) or type(problem).__name__}") from problem
        if answer.is_error:
            raise BackupError(f"clickhouse: {_reason(answer.text)}")
        return answer.text.rstrip("\n")

    def work(self, statement: str, settings: str = "") -> None:
        """A BACKUP or RESTORE to its end. It runs at the server whatever becomes of the connection; given up, it is stopped."""
        work_id = f"bridge-{uuid4()}"
        more = f", {settings}" if settings else ""
        with self._stopped_on_failure(work_id):
            self.ask(f"{statement} SETTINGS id = {text(work_id)}{more} ASYNC")
            self._await(work_id)

    def _await(self, work_id: str) -> None:
        ends_s, pause_s = time.monotonic() + self._timeout_s, _POLL_S[0]
        while time.monotonic() < ends_s:
            status, _, error = self.ask(
                "SELECT status, error FROM system.backups WHERE id = {id:String} FORMAT TabSeparatedRaw", id=work_id
            ).partition("\t")
            if status in ("BACKUP_CREATED", "RESTORED"):
                return
            if status not in ("CREATING_BACKUP", "RESTORING"):
                raise BackupError(f"clickhouse: {_reason(error) or status or 'it was restarted meanwhile'}")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _POLL_S[1])
        raise BackupError(f"clickhouse: not finished after {self._timeout_s:g}s (backup.clickhouse.timeout_s)")

    @contextmanager
    def _stopped_on_failure(self, work_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            try:
                query = self.ask("SELECT query_id FROM system.backups WHERE id = {id:String}", id=work_id)
                if query:
                    self.ask(f"KILL QUERY WHERE query_id = {text(query)} ASYNC")
            except BackupError:
                pass  # what made it fail is told
            raise

    def tables(self, database: str) -> list[str]:
        """The tables that keep rows."""
        return self.ask(_KEEPS_ROWS, database=database).splitlines()

    def views(self, database: str) -> list[str]:
        """The materialized views: each feeds a table when rows come into another."""
        return self.ask(_VIEWS, database=database).splitlines()

    def stop_merges(self, database: str) -> None:
        """Leave the parts of all tables as they are, until the tables are dropped."""
        tables = self.ask(_MERGING, database=database).splitlines()
        for table in tables:
            self.ask(f"SYSTEM STOP MERGES {quoted(database)}.{quoted(table)}")

    def hashes(self, database: str) -> dict[str, list[str]]:
        """Each table's rows: how many, and the sum of their hashes (which order they are in does not matter)."""
        found = {}
        for table in self.tables(database):
            sql = _HASH.format(table=f"{quoted(database)}.{quoted(table)}")
            found[table] = self.ask(sql, long=True).split("\t")
        return found

    def is_empty(self, database: str) -> bool:
        """Whether there is no such database, or one without tables."""
        return self.ask("SELECT count() FROM system.tables WHERE database = {database:String}", database=database) == "0"


def _reason(answer: str) -> str:
    found = _MESSAGE.match(answer.strip())
    return " ".join((found[1] if found else answer).split())[:300]
