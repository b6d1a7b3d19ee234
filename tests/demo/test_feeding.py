"""The feed into stores that run elsewhere, as their backend's users, who may do no more than that."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from demo.schema import DATABASE, clickhouse_statements
from demo.stores import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import clickhouse_as
from tests.servers.redis_provisioned import ProvisionedRedis

_START_S = 30.0


def configuration(redis: ProvisionedRedis, clickhouse: ClickHouseServer) -> dict[str, Any]:
    who = {"username": "backend", "password": redis.variables["REDIS_BACKEND_PASSWORD"]}
    live = {"connect": {"kind": "redis", "port": redis.port, **who}}
    history = {"connect": {"kind": "clickhouse", "port": clickhouse.port, "password": clickhouse.password}}
    return {"sources": {"rts": live, "rtrs": live, "clickhouse": history}}


@contextmanager
def feeding(folder: Path) -> Iterator[str]:
    """The metrics of a running feed, once it shows them."""
    port = free_port()
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "demo.feeding",
        "--config",
        folder / "bridge.json",
        "--folder",
        folder / "feed",
    ]
    command += ["--instances", "2", "--hours", "1", "--port", str(port)]
    with (folder / "feed.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield page(port, process, folder / "feed.log")
        finally:
            process.terminate()


def page(port: int, process: subprocess.Popen[bytes], log: Path) -> str:
    ends_s = time.monotonic() + _START_S
    while time.monotonic() < ends_s and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def written_to(folder: Path) -> int:
    file = folder / "feed" / "feed.json"
    return int(json.loads(file.read_text())["until_ms"]) if file.exists() else 0


def wait_beyond(folder: Path, at_ms: int) -> None:
    ends_s = time.monotonic() + _START_S
    while written_to(folder) <= at_ms:
        assert time.monotonic() < ends_s, (folder / "feed.log").read_text()
        time.sleep(0.05)


def test_the_feed_fills_stores_of_others_and_goes_on_after_a_restart_without_a_double(tmp_path: Path) -> None:
    history = tmp_path / "history"
    with clickhouse_as("schema", history, tmp_path / "schema") as server:
        for statement in clickhouse_statements():
            server.execute(statement)
    with ProvisionedRedis("rts", tmp_path / "redis") as redis, clickhouse_as("backend", history, tmp_path / "backend") as server:
        (tmp_path / "bridge.json").write_text(json.dumps(configuration(redis, server)))
        with feeding(tmp_path) as metrics:
            wait_beyond(tmp_path, written_to(tmp_path))
        began_ms, stopped_ms = json.loads((tmp_path / "feed" / "feed.json").read_text())["start_ms"], written_to(tmp_path)
        with feeding(tmp_path):
            wait_beyond(tmp_path, stopped_ms + 1000)
        rows = server.execute(f"SELECT count(), uniqExact(trade_id, version) FROM {DATABASE}.trades").split("\t")
        tables = ("account_snapshots", "instance_performance", "host_performance")
        counts = [int(server.execute(f"SELECT count() FROM {DATABASE}.{table}")) for table in tables]
        accounts = redis.client.scard("account_state:index")
    assert "tds_order_responses_total{" in metrics
    assert (rows[0], int(rows[0]) > 20, min(counts) > 300, accounts) == (rows[1], True, True, 4)
    assert json.loads((tmp_path / "feed" / "feed.json").read_text())["start_ms"] == began_ms
    assert (tmp_path / "feed" / "snapshots" / "latest").is_file()
