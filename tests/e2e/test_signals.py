"""Signals that mean "reload" elsewhere do no harm; a stop, and a terminal that is closed, end in good order."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.stores import free_port

ROOT = Path(__file__).parents[2]
RELOADS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


def answers(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False, timeout=5).status_code == 200
    return False


def wait_for(happened: Any, what: str, seconds: float = 30.0) -> None:
    ends_s = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends_s, what
        time.sleep(0.05)


def command_of(folder: Path, port: int) -> list[str]:
    """To serve without any store."""
    (folder / "catalog").mkdir()
    (folder / "catalog" / "empty.yaml").write_text("group: none\ntitle: None\nmetrics: {}\n", encoding="utf-8")
    settings = {"http": {"port": port, "lame_duck_s": 0}, "agent": {"port": None}, "catalog": str(folder / "catalog")}
    file = folder / "bridge.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    return [sys.executable, "-m", "app", "serve", "--config", str(file)]


@contextmanager
def serving(folder: Path, **how: Any) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    port, log = free_port(), folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command_of(folder, port), cwd=ROOT, stdout=output, stderr=output, **how)
    try:
        wait_for(lambda: answers(port), f"it does not answer, see {log}")
        yield process, port, log
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("number", RELOADS, ids=lambda number: number.name)
def test_a_signal_to_reload_leaves_the_bridge_as_it_is_and_is_logged_in_one_line(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as (process, port, log):
        before = log.read_text().count("\n")
        process.send_signal(number)
        wait_for(lambda: number.name in log.read_text(), "it is not logged")
        assert (answers(port), process.poll(), log.read_text().count("\n") - before) == (True, None, 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_what_the_parent_has_switched_off_stays_off(tmp_path: Path) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with serving(tmp_path, preexec_fn=nohup) as (process, port, log):
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: "SIGUSR1" in log.read_text(), "it is not logged")
        assert (answers(port), "SIGHUP" in log.read_text()) == (True, False)


def test_a_bridge_whose_terminal_is_closed_stops_in_good_order(tmp_path: Path) -> None:
    port = free_port()
    command = command_of(tmp_path, port)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(command[0], command)  # noqa: S606  the child of a fork
    wait_for(lambda: answers(port), "it does not answer")
    os.kill(child, signal.SIGHUP)
    time.sleep(0.3)
    assert answers(port)  # the terminal is there
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("before", [None, ignore_interrupts], ids=["in the foreground", "as a background job"])
def test_a_demo_that_is_stopped_while_it_fills_its_stores_leaves_no_server_behind(tmp_path: Path, before: Any) -> None:
    command = [sys.executable, "-m", "app", "demo", "--folder", str(tmp_path / "data"), "--port", str(free_port())]
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen([*command, "--scale", "3"], cwd=ROOT, stdout=output, stderr=output, preexec_fn=before)
    redis = tmp_path / "data" / "redis" / "redis.log"
    wait_for(lambda: redis.exists() and "Ready to accept" in redis.read_text(), "Redis does not start")
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(60) == 130, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait(10)
    assert "User requested shutdown" in redis.read_text() or "Received SIGTERM" in redis.read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
