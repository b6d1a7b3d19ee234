"""The daily schedule: read by the tools that will read it, and every command line in it is one that the bridge understands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from datetime import date, timedelta
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

from app.__main__ import parser
from app.server.settings import HttpSettings
from winsvc.plan import SECRETS

PROVISIONING = Path(__file__).parents[2] / "provisioning"
UNITS = sorted((PROVISIONING / "systemd").glob("bridge*.[st]*"))
TASK = PROVISIONING / "windows" / "backup-task.ps1"
BRIDGE = "/opt/bridge/.venv/bin/bridge"


def values(unit: str, key: str) -> list[str]:
    """What a unit says of a key."""
    text = (PROVISIONING / "systemd" / unit).read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they are, but for the program, which is not installed here."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(BRIDGE, "/bin/true"))
    return tmp_path


def test_systemd_reads_the_units_without_a_word(units: Path) -> None:
    command = ["systemd-analyze", "verify", *(str(units / unit.name) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [unit.name for unit in UNITS] == ["bridge-backup.service", "bridge-backup.timer", "bridge.service"]


@pytest.mark.parametrize(("unit", "most"), [("bridge.service", 1.7), ("bridge-backup.service", 2.9)])
def test_the_services_may_do_little_else_than_their_work(units: Path, unit: str, most: float) -> None:
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(units / unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None
    assert float(found[1]) <= most


def test_the_timer_starts_the_service_of_its_name_every_day() -> None:
    (when,) = values("bridge-backup.timer", "OnCalendar")
    command = ["systemd-analyze", "calendar", "--iterations=2", when]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": os.environ["PATH"]}
    ).stdout
    days = [date.fromisoformat(day) for day in re.findall(r"(?:Next elapse|Iter. #2): \w+ (\S+)", said)]
    assert (days[1] - days[0], values("bridge-backup.timer", "Unit")) == (timedelta(days=1), [])


def test_the_command_lines_of_the_units_are_understood() -> None:
    units = [(PROVISIONING / "systemd" / unit).read_text() for unit in ("bridge.service", "bridge-backup.service")]
    lines = [line for unit in units for line in re.findall(rf"{BRIDGE} ([^;|\n]+)", unit)]
    asked = [parser().parse_args(shlex.split(line)) for line in lines]
    assert [(one.command, getattr(one, "what", None), str(one.config)) for one in asked] == [
        ("serve", None, "/etc/bridge/bridge.yaml"),
        ("backup", "all", "/etc/bridge/bridge.yaml"),
        ("backup", "verify", "/etc/bridge/bridge.yaml"),
    ]


@pytest.mark.parametrize(("saved", "verified", "ends"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_what_was_saved_is_verified_also_when_a_kind_could_not_be_saved(
    tmp_path: Path, saved: int, verified: int, ends: int
) -> None:
    program = tmp_path / "bridge"
    program.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/asked\n[ "$2" = all ] && exit {saved}\nexit {verified}\n')
    program.chmod(0o755)
    text = (PROVISIONING / "systemd" / "bridge-backup.service").read_text().replace("\\\n", "")
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    command = shlex.split(line.replace(BRIDGE, str(program)).replace("$$", "$"))
    assert subprocess.run(command, check=False).returncode == ends
    assert (tmp_path / "asked").read_text().split() == ["all", "verify"]


def second(unit: str) -> dict[str, str]:
    """What the drop-in of a second one sets; of a key that is given twice the last."""
    text = (PROVISIONING / "systemd" / unit).read_text()
    return dict(re.findall(r"^(\w+)=(.+)$", text, re.MULTILINE))


def test_the_second_replica_of_a_host_is_another_one(units: Path) -> None:
    """The copy and its drop-in, as the operator's guide installs them."""
    (units / "bridge-2.service").write_text((units / "bridge.service").read_text())
    (units / "bridge-2.service.d").mkdir()
    (units / "bridge-2.service.d" / "second.conf").write_text((PROVISIONING / "systemd" / "bridge-2.conf").read_text())
    command = ["systemd-analyze", "verify", str(units / "bridge-2.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = second("bridge-2.conf")
    ports = dict(word.split("=") for word in said["Environment"].split())
    balancer = (PROVISIONING / "haproxy" / "haproxy.cfg").read_text()
    assert re.search(rf"presetenv LB_BRIDGE_2 +127\.0\.0\.1:{ports['BRIDGE_HTTP__PORT']}\n", balancer)
    assert re.search(rf"presetenv LB_BRIDGE_2_AGENT +{ports['BRIDGE_AGENT__PORT']}\n", balancer)
    assert said["WorkingDirectory"] == f"/var/lib/{said['StateDirectory']}" != values("bridge.service", "WorkingDirectory")[0]


def test_systemd_waits_longer_than_the_bridge_takes_to_stop() -> None:
    http = HttpSettings()
    assert float(values("bridge.service", "TimeoutStopSec")[0]) > http.lame_duck_s + http.graceful_stop_s


def wrong(script: str) -> list[str]:
    """Where PowerShell's grammar does not follow a script."""

    def errors(node: Node) -> list[str]:
        here = [f"line {node.start_point[0] + 1}: {(node.text or b'').decode()[:60]}"] if node.is_error or node.is_missing else []
        return here + [found for child in node.children for found in errors(child)]

    return errors(Parser(Language(tree_sitter_powershell.language())).parse(script.encode()).root_node)


def test_the_windows_task_and_the_script_that_it_runs_are_powershell() -> None:
    text = TASK.read_text()
    inner = re.search(r'@"\n(.*?)\n"@', text, re.DOTALL)
    assert inner is not None
    plain = re.sub(r"(?<!`)\$(\w+)", r"\1", inner[1]).replace("`", "")
    assert (wrong(text), wrong(plain), wrong("if (") != []) == ([], [], True)


def test_the_command_lines_of_the_windows_task_are_understood() -> None:
    lines = re.findall(r"^& '\$Python' -m app (.*)$", TASK.read_text(), re.MULTILINE)
    asked = [parser().parse_args(shlex.split(line.replace("$Keep", "14"))) for line in lines]
    assert [(one.command, one.what, one.keep) for one in asked] == [("backup", "all", 14), ("backup", "verify", None)]


def test_the_windows_task_looks_where_the_installation_puts_things() -> None:
    given = dict(re.findall(r'^    \[string\] \$(\w+) = "\$env:ProgramData\\TDS\\(\S+)",$', TASK.read_text(), re.MULTILINE))
    install = (PROVISIONING.parent / "winsvc" / "install.ps1").read_text()
    assert "Join-Path $env:ProgramData 'TDS'" in install
    assert (given["Config"], given["Environment"]) == (r"bridge\bridge.yaml", rf"bridge\{SECRETS}")
    program = r".venv\Scripts\python.exe"
    assert f"Join-Path $Root '{program}'" in install
    assert f"(Split-Path -Parent (Split-Path -Parent $PSScriptRoot)) '{program}'" in TASK.read_text()
