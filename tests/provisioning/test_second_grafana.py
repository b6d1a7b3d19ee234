"""The second Grafana node of one host, as the guide installs it: it waits for the first, and shares no port with it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from demo.stores import free_port
from tests.provisioning.agreements import ROOT
from tests.provisioning.readers import presets
from tests.servers.grafana_node import GrafanaNode

SYSTEMD = ROOT / "provisioning" / "systemd"
#: The parts of the package's unit and of its environment file that matter here (Grafana 11 to 13).
PACKAGED_UNIT = """
[Unit]
Description=Grafana instance
After=network-online.target

[Service]
EnvironmentFile=/etc/default/grafana-server
User=root
Type=notify
Restart=on-failure
RuntimeDirectory=grafana
RuntimeDirectoryMode=0750
ExecStart=/bin/true server --config=${CONF_FILE} --pidfile=${PID_FILE_DIR}/grafana-server.pid cfg:default.paths.data=${DATA_DIR}

[Install]
Alias=grafana.service
WantedBy=multi-user.target
"""
PACKAGED_ENVIRONMENT = {
    "LOG_DIR": "/var/log/grafana",
    "DATA_DIR": "/var/lib/grafana",
    "PLUGINS_DIR": "/var/lib/grafana/plugins",
    "PID_FILE_DIR": "/run/grafana",
}
#: What two nodes of one host must not share, and what they must.
OWN = {"GF_SERVER_HTTP_PORT", "GF_PATHS_DATA", "GF_PATHS_LOGS", "PID_FILE_DIR"}
OWN |= {f"GF_UNIFIED_ALERTING_HA_{which}_ADDRESS" for which in ("LISTEN", "ADVERTISE")}
SHARED = {
    "GF_SECURITY_SECRET_KEY",
    "GF_UNIFIED_ALERTING_HA_PEERS",
    "GF_DATABASE_TYPE",
    "GF_DATABASE_HOST",
    "GF_PATHS_PROVISIONING",
}


def environment(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z_]+=", line))


def first_node() -> dict[str, str]:
    """What the guide's step 9 writes for the first node, over the package's own values."""
    step = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("\n### 9. Grafana\n")[2].partition("\n### ")[0]
    written = re.findall(r"cat >> /etc/default/grafana-server <<ENV\n(.*?)ENV\n", step, re.DOTALL)
    assert len(written) == 2
    own = {"GF_PATHS_DATA": PACKAGED_ENVIRONMENT["DATA_DIR"], "GF_PATHS_LOGS": PACKAGED_ENVIRONMENT["LOG_DIR"]}
    return {**PACKAGED_ENVIRONMENT, **own, **environment("".join(written))}


def second_node() -> dict[str, str]:
    """The same for the second: of the two files of its unit, the later one wins."""
    return {**first_node(), **environment((SYSTEMD / "grafana-server-2.default").read_text(encoding="utf-8"))}


def installed(folder: Path) -> Path:
    """The second node's unit with its two drop-ins, made with the guide's commands."""
    (folder / "grafana-server.service").write_text(PACKAGED_UNIT, encoding="utf-8")
    guide = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    places = f"{folder}/grafana-server.service > {folder}/grafana-server-2.service"
    copied = re.search(r"^sed .*grafana-server-2\.service$", guide, re.MULTILINE)
    assert copied
    command = re.sub(r"/lib/systemd/system/\S+ > \S+", places, copied[0])
    for line in re.findall(r"^install -D .*systemd/system/grafana-server-2\.service\.d/\w+\.conf$", guide, re.MULTILINE):
        command += "\n" + line.replace("/etc/systemd/system", str(folder))
    subprocess.run(["sh", "-e", "-c", command], cwd=ROOT, check=True)
    return folder / "grafana-server-2.service"


def test_systemd_reads_the_second_nodes_unit_without_a_word(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(file.name for file in (tmp_path / "grafana-server-2.service.d").iterdir()) == ["second.conf", "waits.conf"]
    # Two units with one alias: the second could not be enabled.
    assert "Alias" not in unit.read_text(encoding="utf-8")


def collisions(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    """The keys that two nodes of one host must not share, and do."""
    return {key for key in OWN if one[key] == other[key]}


def test_two_nodes_of_one_host_share_the_database_and_no_port_and_no_folder() -> None:
    one, other = first_node(), second_node()
    assert collisions(one, other) == set()
    assert collisions(one, one) == OWN
    assert {key for key in SHARED if one[key] != other[key]} == set()
    listening = [node["GF_UNIFIED_ALERTING_HA_LISTEN_ADDRESS"] for node in (one, other)]
    assert one["GF_UNIFIED_ALERTING_HA_PEERS"].split(",") == listening
    assert [node["GF_UNIFIED_ALERTING_HA_ADVERTISE_ADDRESS"] for node in (one, other)] == listening


def test_haproxy_and_prometheus_find_both_nodes_where_they_listen() -> None:
    balancer = presets((ROOT / "provisioning" / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8"))
    targets = yaml.safe_load((ROOT / "provisioning" / "prometheus" / "targets" / "grafana.yml").read_text(encoding="utf-8"))
    found = [f"127.0.0.1:{node['GF_SERVER_HTTP_PORT']}" for node in (first_node(), second_node())]
    assert [balancer["LB_GRAFANA_1"], balancer["LB_GRAFANA_2"]] == found == targets[0]["targets"]
    assert second_node()["GRAFANA_FIRST"] == f"http://{found[0]}"


def test_its_folders_are_those_that_the_unit_makes() -> None:
    made = dict(re.findall(r"^(\w+Directory)=(\S+)$", (SYSTEMD / "grafana-2.conf").read_text(encoding="utf-8"), re.MULTILINE))
    node = second_node()
    assert {
        "RuntimeDirectory": node["PID_FILE_DIR"].removeprefix("/run/"),
        "StateDirectory": node["GF_PATHS_DATA"].removeprefix("/var/lib/"),
        "LogsDirectory": node["GF_PATHS_LOGS"].removeprefix("/var/log/"),
    } == made


def wait_command(first: str, **numbers: str) -> list[str]:
    """The unit's wait, with other numbers."""
    text = (SYSTEMD / "grafana-waits.conf").read_text(encoding="utf-8").replace("\\\n", "")
    found = re.search(r"^ExecStartPre=-(.*)$", text, re.MULTILINE)
    assert found
    line = found[1].replace("${GRAFANA_FIRST}", first)
    for name, number in numbers.items():
        line, changed = re.subn(rf"--{name.replace('_', '-')} \d+", f"--{name.replace('_', '-')} {number}", line)
        assert changed
    return shlex.split(line)


def test_the_second_node_starts_when_the_first_is_healthy(tmp_path: Path) -> None:
    with GrafanaNode(tmp_path) as first:
        begun_s = time.monotonic()
        assert subprocess.run(wait_command(f"http://{first.address}"), check=False).returncode == 0
        assert time.monotonic() - begun_s < 3


@pytest.mark.parametrize("numbers", [{"retry": "2", "retry_delay": "1"}, {"retry_delay": "1", "retry_max_time": "2"}])
def test_a_first_node_that_never_comes_keeps_the_second_waiting_for_a_limited_time(numbers: dict[str, str]) -> None:
    begun_s = time.monotonic()
    done = subprocess.run(wait_command(f"http://127.0.0.1:{free_port()}", **numbers), check=False, timeout=30)
    took_s = time.monotonic() - begun_s
    assert (done.returncode, 1 < took_s < 10) == (7, True), took_s  # the unit ignores the code: its line begins with a dash


def test_systemd_waits_longer_than_the_wait_and_tries_again_for_ever() -> None:
    text = (SYSTEMD / "grafana-waits.conf").read_text(encoding="utf-8")
    limit_s = int(re.search(r"--retry-max-time (\d+)", text)[1])  # type: ignore[index]  # no wait without a limit
    start_s = int(re.search(r"^TimeoutStartSec=(\d+)min$", text, re.MULTILINE)[1]) * 60  # type: ignore[index]  # the same
    assert start_s > 2 * limit_s
    assert {"Restart=on-failure", "StartLimitIntervalSec=0"} <= set(text.splitlines())
    assert re.search(r"^ExecStartPre=-", text, re.MULTILINE)


@pytest.mark.parametrize("works", [True, False])
def test_the_daily_dump_has_its_name_only_once_it_can_be_read_and_the_newest_are_kept(tmp_path: Path, works: bool) -> None:
    text = (SYSTEMD / "grafana-dump.service").read_text(encoding="utf-8").replace("\\\n", "")
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert found
    line = found[1].replace("$$", "$").replace("%%", "%").replace("/var/backups/grafana", str(tmp_path / "dumps"))
    (tmp_path / "dumps").mkdir()
    for day in range(14):
        (tmp_path / "dumps" / f"grafana-202601{day + 1:02}T021500Z.dump").write_text("old")
    for name, does in {"pg_dump": 'echo new > "${2#--file=}"', "pg_restore": f"exit {0 if works else 1}"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(shlex.split(line), env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False)
    kept = sorted(file.name for file in (tmp_path / "dumps").glob("*.dump"))
    assert (done.returncode == 0, len(kept)) == (works, 14)
    assert kept[0] == ("grafana-20260102T021500Z.dump" if works else "grafana-20260101T021500Z.dump")


def test_systemd_reads_the_dumps_units_without_a_word(tmp_path: Path) -> None:
    units = [SYSTEMD / f"grafana-dump.{kind}" for kind in ("service", "timer")]
    for unit in units:
        (tmp_path / unit.name).write_text(unit.read_text(encoding="utf-8").replace("User=postgres\n", ""), encoding="utf-8")
    command = ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
