"""A ClickHouse to test against: our own small server on the embedded engine, or the one that BRIDGE_TEST_CLICKHOUSE_URL names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import httpx

from tests.servers import clickhouse_engine

#: The variable that runs the suite against a server of one's own: http://user:password@host:8123
REAL_URL = "BRIDGE_TEST_CLICKHOUSE_URL"


class ClickHouse:
    """A ClickHouse that answers at host and port."""

    host = "127.0.0.1"
    port = 0
    username = "default"
    password = ""

    def __init__(self) -> None:
        # verify: making a TLS context takes longer than most questions
        self._http = httpx.Client(timeout=30, trust_env=False, verify=False)  # noqa: S501  plain HTTP only

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    @property
    def url(self) -> str:
        """Where its HTTP interface is."""
        return f"http://{self.host}:{self.port}"

    def execute(self, sql: str, database: str = "") -> str:
        """Run one statement; its answer as tab-separated text. Raises RuntimeError with ClickHouse's message."""
        credentials = {"X-ClickHouse-User": self.username, "X-ClickHouse-Key": self.password}
        answer = self._http.post(self.url, content=sql.encode(), params={"database": database}, headers=credentials)
        if answer.status_code != 200:
            raise RuntimeError(answer.text.strip())
        return answer.text.rstrip("\n")

    def insert(self, table: str, rows: Iterable[Mapping[str, Any]], database: str = "") -> None:
        """Add rows (column name -> value) to a table."""
        lines = "\n".join(json.dumps(row) for row in rows)
        self.execute(f"INSERT INTO {table} FORMAT JSONEachRow\n{lines}", database)

    def running(self, having: str) -> list[str]:
        """The ids of the queries at work whose statement has this word."""
        where = f"query LIKE '%{having}%' AND query NOT LIKE '%system.processes%'"
        return self.execute(f"SELECT query_id FROM system.processes WHERE {where}").splitlines()


class RealClickHouse(ClickHouse):
    """The server that the variable names."""

    def __init__(self, url: str) -> None:
        super().__init__()
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 8123
        self.username, self.password = unquote(parts.username or "default"), unquote(parts.password or "")


class ClickHouseServer(ClickHouse):
    """Our own server, a process that can be paused, killed and started again with its data on its port."""

    def __init__(self, folder: Path, password: str, backups: Path | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.backups = backups
        self.password = password
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Start, and wait until it answers (about a second)."""
        command = [
            sys.executable,
            clickhouse_engine.__file__,
            str(self.folder),
            str(self.port),
            self.password,
            str(self.backups or ""),
        ]
        # It ends when its standard input does: with this process, however that ends.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        port = self._process.stdout.readline()
        if not port:
            raise RuntimeError("the ClickHouse test server did not start; its reason stands above")
        self.port = int(port)
        return self

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: connections open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def faults(self, **faults: Any) -> None:
        """Switch faults on, all others off: delay_s, truncate (the share of each body to send),
        ignores_leaving (a client that goes away stops nothing), readonly (as a user whose profile says readonly = 1),
        profile (settings that every query begins with),
        password (another one, as after users.xml was changed: no restart, no connection is lost),
        replicas (delay_s and cut_off of a replicated table, or "denied")."""
        self._http.post(f"{self.url}/test", json=faults)

    def state(self) -> dict[str, Any]:
        """running (id -> statement), kills (how many came in), peak (most queries at once since faults were last set)."""
        found: dict[str, Any] = self._http.get(f"{self.url}/test").json()
        return found

    def running(self, having: str) -> list[str]:
        """The ids of the queries at work whose statement has this word."""
        return [query_id for query_id, statement in self.state()["running"].items() if having in statement]

    def kills(self) -> int:
        """How many KILL QUERY came in."""
        return int(self.state()["kills"])

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process = None


def real_clickhouse() -> RealClickHouse | None:
    """The server that BRIDGE_TEST_CLICKHOUSE_URL names, None where it names none."""
    url = os.environ.get(REAL_URL)
    return RealClickHouse(url) if url else None
