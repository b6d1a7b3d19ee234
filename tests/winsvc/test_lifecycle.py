"""A service's life, without Windows: what the service control manager would be told, and the bridge at a console."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from demo.stores import free_port
from tests.winsvc.test_supervise import Journal
from winsvc import lifecycle
from winsvc.lifecycle import Exit, Failed, State, run_service


class Scripted:
    """A work that does what a test wants: starts after so many looks, ends after so many, stops or does not."""

    def __init__(self, starts: int = 1, ends: int = 10**6, stops: bool = True, wrong: Exception | None = None) -> None:
        self.stop_s = 0.0
        self._starts, self._ends, self._stops, self._wrong = starts, ends, stops, wrong
        self._looks = 0
        self._told = False

    def start(self) -> None:
        if isinstance(self._wrong, Failed):
            raise self._wrong

    @property
    def started(self) -> bool:
        self._looks += 1
        return self._looks > self._starts

    @property
    def ended(self) -> bool:
        self._looks += 1
        return self._looks > self._ends or (self._told and self._stops)

    def result(self) -> None:
        if self._wrong is not None:
            raise self._wrong

    def ask_to_stop(self) -> None:
        self._told = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_TICK_S", 0.01)
    monkeypatch.setattr(lifecycle, "_OVERTIME_S", 0.1)


def life(work: Scripted, stop_after_s: float | None = None) -> tuple[int, list[State], Journal]:
    stop, journal, states = threading.Event(), Journal(), list[State]()
    if stop_after_s is not None:
        threading.Timer(stop_after_s, stop.set).start()
    code = run_service("X", lambda: work, stop, lambda state, hint_s: states.append(state), journal)
    return code, list(dict.fromkeys(states)), journal


def test_running_is_told_when_it_runs_and_not_before() -> None:
    code, states, journal = life(Scripted(starts=5), stop_after_s=0.2)
    assert (code, states) == (0, [State.STARTING, State.RUNNING, State.STOPPING])
    assert (journal.infos, journal.errors) == (["X has started", "X has stopped in good order"], [])


def test_every_report_but_running_promises_the_next_one_in_time() -> None:
    hints: list[tuple[State, float]] = []
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    run_service("X", Scripted, stop, lambda state, hint_s: hints.append((state, hint_s)), Journal())
    assert {state: hint_s > 0 for state, hint_s in hints} == {State.STARTING: True, State.RUNNING: False, State.STOPPING: True}


def test_a_work_that_ends_by_itself_is_a_failure() -> None:
    code, states, journal = life(Scripted(ends=20))
    assert (code, states) == (Exit.DIED, [State.STARTING, State.RUNNING])
    assert journal.errors == ["X has failed: ended without being told to"]


def test_a_work_that_ends_before_it_runs_was_never_running() -> None:
    code, states, journal = life(Scripted(starts=10**6, ends=5))
    assert (code, states, journal.infos) == (Exit.DIED, [State.STARTING], [])


def test_a_work_that_cannot_begin_gives_its_own_code() -> None:
    code, states, journal = life(Scripted(wrong=Failed(Exit.PORT, "http.port: taken")))
    assert (code, states, journal.errors) == (Exit.PORT, [State.STARTING], ["X has failed: http.port: taken"])


def test_a_work_that_does_not_stop_is_a_failure_after_its_time() -> None:
    code, states, journal = life(Scripted(stops=False), stop_after_s=0.05)
    assert (code, states[-1]) == (Exit.OVERDUE, State.STOPPING)
    assert journal.errors == ["X has failed: told to stop, still running 0.1s later"]


def test_a_stop_that_goes_wrong_is_a_failure() -> None:
    code, _, journal = life(Scripted(wrong=OSError("disk full")), stop_after_s=0.05)
    assert (code, journal.errors) == (Exit.FAILED, ["X has failed: OSError('disk full')"])


def bridge_folder(folder: Path, port: int, extra: str = "") -> Path:
    config = folder / "bridge.yaml"
    sources = Path("provisioning/bridge.yaml").read_text().partition("\nsources:")[2]
    config.write_text(f"http: {{port: {port}, lame_duck_s: 0.5}}\nagent: {{port: null}}\n{extra}sources:{sources}")
    return config


@contextmanager
def console(config: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "winsvc", "debug", "run", "--name", "X", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process
        process.kill()


def test_debug_is_the_service_at_a_console_and_ctrl_c_drains_it(tmp_path: Path) -> None:
    port = free_port()
    with console(bridge_folder(tmp_path, port)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "X has started\n"
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").text == "ready\n"
        process.send_signal(signal.SIGINT)
        _until_not_ready(port)
        assert process.communicate(timeout=20)[0] == "X has stopped in good order\n"
        assert process.returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "logs" / "bridge.log").read_text().splitlines()]
    assert lines[-1]["message"].startswith("Finished server process")


def _until_not_ready(port: int) -> None:
    ends_s = time.monotonic() + 5
    while (status := httpx.get(f"http://127.0.0.1:{port}/readyz").status_code) != 503:
        assert (status, time.monotonic() < ends_s) == (200, True)
        time.sleep(0.02)


def test_a_wrong_secret_is_a_failure_that_names_the_key_and_not_the_secret(tmp_path: Path) -> None:
    config = bridge_folder(tmp_path, free_port())
    (tmp_path / "secrets.env").write_text("BRIDGE_SOURCES__RTS__CONNECT__PASWORD=hunter2\n")
    with console(config) as process:
        said = process.communicate(timeout=20)[0]
    name, right = ("BRIDGE_SOURCES__RTS__CONNECT__" + key for key in ("PASWORD", "PASSWORD"))
    assert said == f"X has failed: {tmp_path / 'secrets.env'}: {name}: sets no key; nearest: {right}\n"
    assert process.returncode == Exit.CONFIG
    assert "hunter2" not in (tmp_path / "logs" / "bridge.log").read_text()


def test_an_end_by_the_servers_own_error_is_a_failure(tmp_path: Path) -> None:
    # an address that is nobody's here: the probe for a taken port finds nothing, the server cannot listen
    config = bridge_folder(tmp_path, free_port())
    config.write_text(config.read_text().replace("http: {", "auth: {open: true}\nhttp: {host: 192.0.2.1, "))
    with console(config) as process:
        assert "X has failed: the HTTP server has ended: SystemExit(" in process.communicate(timeout=20)[0]
    assert process.returncode == Exit.PORT
