"""The process behind ClickHouseServer: ClickHouse's HTTP interface on the embedded engine.

Each request runs on an engine connection of its own, so queries run side by side and their settings do not mix. The engine takes
no query ids: ours stands in a comment before the statement, and `query_id` in a KILL QUERY is looked up there. As the real server
does with `cancel_http_readonly_queries_on_client_close`, a query is killed when its client goes away.

Besides ClickHouse's paths there is `/test`: GET gives what is running and what was counted, POST sets the faults.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import chdb

_ID = re.compile(r"^/\* id=(\S+) \*/")
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)\.")
#: Parameters of a request that are no settings of the engine.
_TRANSPORT = {
    *("query", "query_id", "database", "default_format", "user", "password", "session_id", "session_timeout", "compress"),
    *(
        "wait_end_of_query",
        "buffer_size",
        "client_protocol_version",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
    ),
    *("send_progress_in_http_headers", "cancel_http_readonly_queries_on_client_close", "quota_key", "role"),
}
_STATUS = {516: 403, 497: 403, 62: 400, 47: 404, 60: 404, 46: 404, 81: 404, 202: 500}


class Engine:
    """The embedded engine on one folder, its queries in flight, and the faults that are switched on."""

    def __init__(self, folder: str, password: str, backups: str = "") -> None:
        self.folder = folder
        self._spec = f"{folder}?config-file={_with_backups(backups)}" if backups else folder
        self.password = password
        self.faults: dict[str, Any] = {}
        self.kills = 0
        self.in_flight = 0
        #: statements, pings and the driver's own questions aside
        self.asked = 0
        self.peak = 0
        self._lock = threading.Lock()
        self._keep = self._connect()

    def _connect(self) -> Any:
        return chdb.connect(self._spec)  # type: ignore[no-untyped-call]  # chdb has no types

    def run(self, query_id: str, sql: str, request: dict[str, str]) -> bytes:
        """The answer in the format that the statement names. Raises RuntimeError with ClickHouse's message."""
        if re.match(r"\s*KILL\s", sql, re.IGNORECASE):
            self.kills += 1
            sql = re.sub(r"\bquery_id\b", r"extract(query, '^/\\* id=(\\S+) \\*/')", sql.replace("\\", "\\\\"))
        sql = _with_replicas(sql, self.faults.get("replicas"))
        connection = self._connect()
        try:
            for statement in _session(request, self.faults):
                connection.query(statement)
            params = {name[len("param_") :]: value for name, value in request.items() if name.startswith("param_")}
            answer = connection.query(f"/* id={query_id} */ {sql}", request.get("default_format", "TabSeparated"), params=params)
            return bytes(answer.bytes() or b"")
        finally:
            connection.close()

    def counted(self, query_id: str, sql: str, request: dict[str, str]) -> bytes:
        """As `run`, counted among the queries in flight."""
        with self._lock:
            self.asked += "version()" not in sql and "system." not in sql and not re.match(r"\s*KILL\s", sql, re.IGNORECASE)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
        try:
            return self.run(query_id, sql, request)
        finally:
            with self._lock:
                self.in_flight -= 1

    def running(self) -> dict[str, str]:
        """The queries that the engine is working on: id -> statement."""
        connection = self._connect()
        try:
            lines = connection.query("SELECT query FROM system.processes FORMAT JSONCompactEachRow").bytes().decode().splitlines()
        finally:
            connection.close()
        statements = (json.loads(line)[0] for line in lines)
        return {found[1]: statement for statement in statements if (found := _ID.match(statement))}

    def state(self) -> dict[str, Any]:
        """What `/test` shows."""
        return {"running": self.running(), "kills": self.kills, "peak": self.peak, "asked": self.asked}


def _with_backups(folder: str) -> Path:
    """The server's configuration with a disk `backups` in that folder, to which BACKUP may write."""
    file = Path(folder).with_suffix(".xml")
    disk = f"<disks><backups><type>local</type><path>{folder}/</path></backups></disks>"
    allowed = "<backups><allowed_disk>backups</allowed_disk></backups>"
    file.write_text(f"<clickhouse><storage_configuration>{disk}</storage_configuration>{allowed}</clickhouse>", encoding="utf-8")
    return file


def _with_replicas(sql: str, replicas: Any) -> str:
    """The statement with these facts in place of `system.replicas`, which has no rows without a keeper; "denied": no grant."""
    if not replicas or "system.replicas" not in sql:
        return sql
    if replicas == "denied":
        raise RuntimeError("Code: 497. DB::Exception: default: Not enough privileges. (ACCESS_DENIED)")
    columns = "currentDatabase() AS database, {delay_s} AS absolute_delay, {cut_off} AS is_readonly".format(**replicas)
    return sql.replace("system.replicas", f"(SELECT {columns})")


def _session(request: dict[str, str], faults: dict[str, Any]) -> Iterator[str]:
    if request.get("database"):
        yield f"USE `{request['database']}`"
    yield from (f"SET {name} = {value}" for name, value in faults.get("profile", {}).items())
    if faults.get("readonly"):
        yield "SET readonly = 1"
    for name, value in request.items():
        if name not in _TRANSPORT and not name.startswith("param_"):
            quoted = value.replace("\\", "\\\\").replace("'", "\\'")
            yield f"SET {name} = '{quoted}'"


@contextmanager
def _statement(query: str, body: bytes) -> Iterator[str]:
    """The statement of a request. The engine takes text only, so a Parquet file in the body becomes a file that it names."""
    text, magic, rest = body.partition(b"PAR1")
    sql = "\n".join(part for part in (query, text.decode()) if part)
    if not magic:
        yield sql
        return
    with NamedTemporaryFile(suffix=".parquet") as file:
        file.write(magic + rest)
        file.flush()
        yield re.sub(r"\bFORMAT\s+Parquet\s*$", f"FROM INFILE '{file.name}' FORMAT Parquet", sql)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine: Engine

    def do_GET(self) -> None:
        """Ping, state, or a query in the URL."""
        path = urlsplit(self.path).path
        if path == "/ping":
            self._send(200, b"Ok.\n")
        elif path == "/test":
            self._send(200, json.dumps(self.engine.state()).encode())
        else:
            self._query(b"")

    def do_POST(self) -> None:
        """A query in the body (alone, or as a form), or faults."""
        body = (
            self.rfile.read(int(self.headers.get("Content-Length") or 0)) if "Content-Length" in self.headers else self._chunks()
        )
        if urlsplit(self.path).path == "/test":
            self.engine.faults = json.loads(body)
            self.engine.peak = 0
            self._send(200, b"")
        else:
            self._query(body)

    def _chunks(self) -> bytes:
        body = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            body += self.rfile.read(size)
            self.rfile.readline()
        if body:
            self.rfile.readline()
        return body

    def _query(self, body: bytes) -> None:
        request = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        if not self._allowed(request):
            message = "Code: 516. DB::Exception: default: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)"
            self._send(403, message.encode(), {"X-ClickHouse-Exception-Code": "516"})
            return
        if self.headers.get_content_type() == "multipart/form-data":
            request |= self._form(body)
            body = b""
        time.sleep(self.engine.faults.get("delay_s", 0))
        with _statement(request.get("query", ""), body) as sql:
            self._answer(sql, request)

    def _allowed(self, request: dict[str, str]) -> bool:
        given = request.get("password", self.headers.get("X-ClickHouse-Key", ""))
        scheme, _, basic = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            given = base64.b64decode(basic).decode().partition(":")[2]
        return bool(given == self.engine.faults.get("password", self.engine.password))

    def _form(self, body: bytes) -> dict[str, str]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + body).get_payload()
        names = [part.get_param("name", header="content-disposition") for part in parts]  # type: ignore[union-attr]  # multipart
        texts = [part.get_payload(decode=True).decode() for part in parts]  # type: ignore[union-attr]  # multipart
        return dict(zip(names, texts, strict=True))  # type: ignore[arg-type]  # form fields have names

    def _answer(self, sql: str, request: dict[str, str]) -> None:
        query_id = request.get("query_id") or str(uuid4())
        headers = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Timezone": "UTC"}
        try:
            answer = self._watched(query_id, sql, request)
        except RuntimeError as problem:
            code = int(found[1]) if (found := _CODE.search(str(problem))) else 1002
            self._send(_STATUS.get(code, 500), str(problem).encode(), headers | {"X-ClickHouse-Exception-Code": str(code)})
            return
        found = _FORMAT.search(sql)
        if answer or found:
            headers["X-ClickHouse-Format"] = found[1] if found else request.get("default_format", "TabSeparated")
        self._send(200, answer, headers)

    def _watched(self, query_id: str, sql: str, request: dict[str, str]) -> bytes:
        """Run the query and kill it when the client goes away, where it asked for that."""
        done: list[Any] = []

        def work() -> None:
            try:
                done.append(self.engine.counted(query_id, sql, request))
            except RuntimeError as problem:
                done.append(problem)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        cancels = request.get("cancel_http_readonly_queries_on_client_close") == "1"
        while worker.is_alive():
            worker.join(0.02)
            if cancels and not self.engine.faults.get("ignores_leaving") and self._left():
                self.engine.run("-", f"KILL QUERY WHERE query_id = '{query_id}' ASYNC", {})
                self.engine.kills -= 1
                worker.join()
        if isinstance(done[0], RuntimeError):
            raise done[0]
        return bytes(done[0])

    def _left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """The answer in chunks, as the real server sends it; the fault `truncate` leaves after that share of the body."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        share = self.engine.faults.get("truncate") if self.path != "/test" else None
        sent = body if share is None else body[: int(len(body) * share)]
        self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) if sent else b"")
        if share is None:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def handle(self) -> None:
        """Serve until either side closes; a client that left is nothing to report."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Serve the folder of the first argument on the port of the second (0: any), print the port once ready; end with stdin.

    The third is the password, the fourth the folder of the disk `backups` (empty: there is none).
    """
    folder, port, password, backups = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    Handler.engine = Engine(folder, password, backups)
    # The engine's first KILL takes a quarter of a second; a server that has been up for a while has that behind it.
    Handler.engine.run("-", "KILL QUERY WHERE query_id = 'none' ASYNC", {})
    Handler.engine.kills = 0
    server = _Server(("127.0.0.1", port), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
