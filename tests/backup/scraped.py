"""A Prometheus that scrapes a counter ten times a second."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.servers.prometheus import PrometheusServer


class Target(BaseHTTPRequestHandler):
    """A counter that goes up by one with each scrape."""

    scrapes = 0

    def do_GET(self) -> None:
        Target.scrapes += 1
        body = f"orders_total {Target.scrapes}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A Prometheus that is stopped leaves in the middle; on stderr that would be an error of whatever test comes then."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def target() -> Iterator[int]:
    """What is scraped: its port."""
    server = _Server(("127.0.0.1", 0), Target)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def scraping(folder: Path) -> Iterator[PrometheusServer]:
    """A server with some samples in it."""
    with target() as port:
        server = PrometheusServer(folder, port, 0.1, "--web.enable-admin-api").start()
        ends = time.monotonic() + 15
        while len(samples(server)) < 5 and time.monotonic() < ends:
            time.sleep(0.05)
        try:
            yield server
        finally:
            server.kill()


def samples(server: PrometheusServer) -> dict[float, str]:
    """Every sample of the counter, as it was scraped: time -> value."""
    asked = urlencode({"query": "orders_total[1h]"})
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/v1/query?{asked}", timeout=5) as answer:
        found = json.load(answer)["data"]["result"]
    return dict(found[0]["values"]) if found else {}
