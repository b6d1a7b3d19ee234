"""The look before the leap: every problem in one list."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from demo.stores import free_port
from tests.winsvc.test_lifecycle import bridge_folder
from winsvc.__main__ import run_verb


def test_a_sound_configuration_has_no_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = bridge_folder(tmp_path, free_port())
    (tmp_path / "data" / "snapshots").mkdir(parents=True)
    assert run_verb(["check", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "nothing is in the way\n"


def test_every_problem_is_listed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_server(("127.0.0.1", 0)) as agent:
        ports = [taken.getsockname()[1] for taken in (http, agent)]
        config = bridge_folder(tmp_path, ports[0], "catalog: nowhere\nstate: bridge.yaml/state\n")
        config.write_text(config.read_text().replace("agent: {port: null}", f"agent: {{port: {ports[1]}}}"))
        secrets = tmp_path / "secrets.env"
        secrets.write_text("BRIDGE_LOG_LEVEL=info\n")
        secrets.chmod(0o644)
        assert run_verb(["check", "--config", str(config)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "6 problems:",
        f"{secrets}: may be read by others than its owner; it is for administrators and the service only",
        "nowhere: no catalogue: expected at least one *.yaml file here",
        f"state: {tmp_path}/bridge.yaml/state cannot be written: Not a directory",
        f"sources.duckdb.connect.snapshots: {tmp_path}/data/snapshots is not there or cannot be read",
        f"http.port: {ports[0]} is taken by another program; name a free one, for example {ports[0] + 1}",
        f"agent.port: {ports[1]} is taken by another program; name a free one, for example {ports[1] + 1}",
    ]


def test_the_ports_of_a_service_that_runs_are_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as http:
        config = bridge_folder(tmp_path, http.getsockname()[1])
        (tmp_path / "data" / "snapshots").mkdir(parents=True)
        assert run_verb(["check", "--running", "--config", str(config)]) == 0


def test_a_wrong_configuration_is_told_by_its_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = bridge_folder(tmp_path, free_port(), "log_levl: info\n")
    assert run_verb(["check", "--config", str(config)]) == 1
    assert capsys.readouterr().err == f"1 problem:\n{config}: log_levl: unknown key; nearest: log_level, log_style\n"


def test_the_service_control_manager_is_asked_on_windows_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(["status"]) == 1
    assert capsys.readouterr().err.startswith("there is no service control manager on posix; use `debug`")
