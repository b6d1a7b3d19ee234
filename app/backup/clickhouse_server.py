"""The statements for backup and restore, over ClickHouse's HTTP interface."""

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
# The tuple makes it null-safe: cityHash64(*) of a row with a NULL is NULL, and sum() would skip that row.
# The setting includes stored columns that `*` leaves out.
_HASH = "SELECT count(), sum(cityHash64(tuple(*))) FROM {table} SETTINGS asterisk_include_materialized_columns = 1"
# A view stores no rows, except a materialized one without a target table.
_KEEPS_ROWS = """SELECT name FROM system.tables WHERE database = {database:String} AND NOT startsWith(name, '.inner')
    AND (engine LIKE '%MergeTree' OR engine LIKE '%Log' OR engine = 'Memory'
        OR engine = 'MaterializedView' AND NOT match(create_table_query, '^CREATE MATERIALIZED VIEW \\\\S+ TO '))
    ORDER BY name FORMAT TabSeparatedRaw"""
_MERGING = """SELECT name FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree'
    FORMAT TabSeparatedRaw"""
_VIEWS = """SELECT name FROM system.tables WHERE database = {database:String} AND engine = 'MaterializedView'
    ORDER BY name FORMAT TabSeparatedRaw"""
_MESSAGE = re.compile(r"(?:^Code: \d+\. )?(?:DB::Exception: )?(.*?)(?:\. ?)?(?:, Stack trace.*|\(version .*)?$", re.DOTALL)


def quote_identifier(name: str) -> str:
    """The name as an SQL identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote_text(value: str) -> str:
    """The value as an SQL string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class ClickHouseServer:
    """One server, used as one user. Raises BackupError with ClickHouse's own reason."""

    def __init__(self, url: str, username: str, password: str, verify: ssl.SSLContext | bool, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        headers = {"X-ClickHouse-User": username, "X-ClickHouse-Key": password}
        self._http = httpx.Client(headers=headers, verify=verify, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def execute(self, sql: str, *, long: bool = False, **params: str) -> str:
        """Run a statement and return its output. A `long` one, over rows or files, may take as long as a BACKUP."""
        bound = {f"param_{name}": value for name, value in params.items()}
        timeout = httpx.Timeout(self._timeout_s if long else _QUICK_S, connect=_CONNECT_S)
        try:
            answer = self._http.post(self._url, content=sql.encode(), params=bound, timeout=timeout)
        except httpx.HTTPError as problem:
            raise BackupError(f"clickhouse: {self._url}: {str(problem) or type(problem).__name__}") from problem
        if answer.is_error:
            raise BackupError(f"clickhouse: {_error_reason(answer.text)}")
        return answer.text.rstrip("\n")

    def run_backup(self, statement: str, settings: str = "") -> None:
        """Run a BACKUP or RESTORE and wait for its end. It does not depend on the connection; on a failure here it is killed."""
        work_id = f"bridge-{uuid4()}"
        more = f", {settings}" if settings else ""
        with self._stopped_on_failure(work_id):
            self.execute(f"{statement} SETTINGS id = {quote_text(work_id)}{more} ASYNC")
            self._await_end(work_id)

    def _await_end(self, work_id: str) -> None:
        ends_s, pause_s = time.monotonic() + self._timeout_s, _POLL_S[0]
        while time.monotonic() < ends_s:
            status, _, error = self.execute(
                "SELECT status, error FROM system.backups WHERE id = {id:String} FORMAT TabSeparatedRaw", id=work_id
            ).partition("\t")
            if status in ("BACKUP_CREATED", "RESTORED"):
                return
            if status not in ("CREATING_BACKUP", "RESTORING"):
                raise BackupError(f"clickhouse: {_error_reason(error) or status or 'it was restarted meanwhile'}")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _POLL_S[1])
        raise BackupError(f"clickhouse: not finished after {self._timeout_s:g}s (backup.clickhouse.timeout_s)")

    @contextmanager
    def _stopped_on_failure(self, work_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            try:
                query = self.execute("SELECT query_id FROM system.backups WHERE id = {id:String}", id=work_id)
                if query:
                    self.execute(f"KILL QUERY WHERE query_id = {quote_text(query)} ASYNC")
            except BackupError:
                pass  # the first failure is the one to report
            raise

    def tables_with_rows(self, database: str) -> list[str]:
        """The tables that store rows."""
        return self.execute(_KEEPS_ROWS, database=database).splitlines()

    def materialized_views(self, database: str) -> list[str]:
        """The materialized views: each writes to a table when rows come into another."""
        return self.execute(_VIEWS, database=database).splitlines()

    def stop_merges(self, database: str) -> None:
        """Keep the parts of all tables as they are, until the tables are dropped."""
        tables = self.execute(_MERGING, database=database).splitlines()
        for table in tables:
            self.execute(f"SYSTEM STOP MERGES {quote_identifier(database)}.{quote_identifier(table)}")

    def table_hashes(self, database: str) -> dict[str, list[str]]:
        """Each table's row count and the sum of the rows' hashes, which does not depend on their order."""
        found = {}
        for table in self.tables_with_rows(database):
            sql = _HASH.format(table=f"{quote_identifier(database)}.{quote_identifier(table)}")
            found[table] = self.execute(sql, long=True).split("\t")
        return found

    def is_empty(self, database: str) -> bool:
        """Whether the database does not exist or has no tables."""
        return self.execute("SELECT count() FROM system.tables WHERE database = {database:String}", database=database) == "0"


def _error_reason(answer: str) -> str:
    found = _MESSAGE.match(answer.strip())
    return " ".join((found[1] if found else answer).split())[:300]
