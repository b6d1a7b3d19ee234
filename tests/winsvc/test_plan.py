"""What is set on Windows, command by command: what wine cannot show is shown here as the exact lines."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Any

import pytest

from app.config import settings_from
from winsvc import services
from winsvc.control import Refused, carry_out
from winsvc.logs import Rotation
from winsvc.plan import BRIDGE, GRAFANA, Service, Step, install_steps, remove_steps, update_steps
from winsvc.services import Place

PROGRAM = PureWindowsPath(r"C:\Program Files\TDS bridge")
PLACE = Place(PROGRAM, PureWindowsPath(r"C:\Program Files\Python311\python.exe"), PureWindowsPath(r"C:\ProgramData\TDS"))
MESSAGES = PROGRAM / ".venv" / "Lib" / "site-packages" / "win32" / "servicemanager.pyd"
DUCKDB = {"duckdb": {"connect": {"kind": "duckdb", "snapshots": r"D:\snapshots"}}}


def bridge_steps(**values: Any) -> list[str]:
    settings = settings_from({"sources": DUCKDB, "state": "state", **values}, "test")
    service = services.bridge_service(PLACE, BRIDGE, settings, Rotation(), "10.0.0.5")
    return [str(step) for step in install_steps(service, PROGRAM, MESSAGES)]


IMAGE = (
    r'"\"C:\Program Files\Python311\python.exe\" -I \"C:\Program Files\TDS bridge\winsvc\host.py\" run --name TDSBridge'
    r' --config C:\ProgramData\TDS\bridge\bridge.yaml --log-bytes 10000000 --log-files 8"'
)
EVENTS = r"HKLM\SYSTEM\CurrentControlSet\Services\EventLog\Application\TDSBridge"
PYD = r'"C:\Program Files\TDS bridge\.venv\Lib\site-packages\win32\servicemanager.pyd"'


def test_the_bridge_is_installed_by_exactly_these_commands() -> None:
    assert bridge_steps() == [
        f"sc.exe create TDSBridge binPath= {IMAGE} type= own start= auto",
        f"sc.exe config TDSBridge binPath= {IMAGE} start= delayed-auto depend= Tcpip",
        r'sc.exe config TDSBridge obj= "NT SERVICE\TDSBridge" DisplayName= "TDS bridge"',
        'sc.exe description TDSBridge "One Grafana data source over Redis, ClickHouse, DuckDB and Prometheus."',
        "sc.exe failure TDSBridge reset= 86400 actions= restart/5000/restart/5000/restart/30000",
        "sc.exe failureflag TDSBridge 1",
        "sc.exe sidtype TDSBridge unrestricted",
        "sc.exe privs TDSBridge SeChangeNotifyPrivilege",
        r"reg.exe add HKLM\SYSTEM\CurrentControlSet\Services\TDSBridge /v PreshutdownTimeout /t REG_DWORD /d 20000 /f",
        f"reg.exe add {EVENTS} /v EventMessageFile /t REG_EXPAND_SZ /d {PYD} /f",
        f"reg.exe add {EVENTS} /v TypesSupported /t REG_DWORD /d 7 /f",
        r'icacls.exe "C:\Program Files\TDS bridge" /inheritance:r /grant:r'
        " *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F *S-1-5-32-545:(OI)(CI)RX",
        r"icacls.exe C:\ProgramData\TDS /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F",
        r"icacls.exe C:\ProgramData\TDS\bridge /inheritance:r /grant:r"
        r' *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F "NT SERVICE\TDSBridge:(OI)(CI)RX"',
        r"icacls.exe C:\ProgramData\TDS\bridge\secrets.env /inheritance:r /grant:r"
        r' *S-1-5-18:F *S-1-5-32-544:F "NT SERVICE\TDSBridge:R"',
        r'icacls.exe C:\ProgramData\TDS\bridge\logs /grant:r "NT SERVICE\TDSBridge:(OI)(CI)M"',
        r'icacls.exe C:\ProgramData\TDS\bridge\state /grant:r "NT SERVICE\TDSBridge:(OI)(CI)M"',
        r'icacls.exe D:\snapshots /grant "NT SERVICE\TDSBridge:(OI)(CI)RX"',
        "netsh.exe advfirewall firewall delete rule name=TDSBridge",
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_a_bridge_that_listens_to_this_machine_alone_opens_no_firewall(host: str) -> None:
    assert not [step for step in bridge_steps(http={"host": host}) if "add rule" in step]


def test_a_bridge_that_listens_beyond_opens_its_ports_for_the_load_balancer_only() -> None:
    auth = {"keys": {"grafana": {"sha256": "0" * 64}}}
    steps = bridge_steps(http={"host": "10.0.0.1"}, agent={"host": "0.0.0.0"}, auth=auth)
    assert [step for step in steps if "add rule" in step] == [
        "netsh.exe advfirewall firewall add rule name=TDSBridge dir=in action=allow protocol=TCP localport=8080,8081"
        r' "program=C:\Program Files\Python311\python.exe" remoteip=10.0.0.5 profile=domain,private'
    ]


def test_grafana_is_supervised_with_the_provisioning_of_the_repository() -> None:
    service = services.grafana_service(PLACE, GRAFANA, PureWindowsPath(r"C:\Program Files\GrafanaLabs\grafana"))
    data = r"C:\ProgramData\TDS\grafana"
    assert service.image == (
        r"C:\Program Files\Python311\python.exe",
        "-I",
        r"C:\Program Files\TDS bridge\winsvc\host.py",
        *("supervise", "--name", "TDSGrafana", "--folder", data, "--restart", "5", "--grace", "20", "--"),
        r"C:\Program Files\GrafanaLabs\grafana\bin\grafana.exe",
        *("server", "--homepath", r"C:\Program Files\GrafanaLabs\grafana", "--config", rf"{data}\grafana.ini"),
        rf"cfg:default.paths.data={data}\data",
        rf"cfg:default.paths.logs={data}\logs",
        rf"cfg:default.paths.plugins={data}\data\plugins",
        r"cfg:default.paths.provisioning=C:\Program Files\TDS bridge\provisioning\grafana",
    )
    granted = [str(step) for step in install_steps(service, PROGRAM, MESSAGES) if r"NT SERVICE\TDSGrafana:" in str(step)]
    assert granted == [
        rf"icacls.exe {data} /inheritance:r /grant:r"
        r' *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F "NT SERVICE\TDSGrafana:(OI)(CI)RX"',
        rf'icacls.exe {data}\secrets.env /inheritance:r /grant:r *S-1-5-18:F *S-1-5-32-544:F "NT SERVICE\TDSGrafana:R"',
        rf'icacls.exe {data}\logs /grant:r "NT SERVICE\TDSGrafana:(OI)(CI)M"',
        rf'icacls.exe {data}\data /grant:r "NT SERVICE\TDSGrafana:(OI)(CI)M"',
    ]


def test_an_update_is_an_installation_without_the_creation() -> None:
    service = services.grafana_service(PLACE, GRAFANA, PureWindowsPath(r"C:\grafana"))
    assert update_steps(service, PROGRAM, MESSAGES) == install_steps(service, PROGRAM, MESSAGES)[1:]


def test_a_removal_takes_away_the_service_its_event_source_and_its_firewall_rule() -> None:
    assert [str(step) for step in remove_steps("TDSBridge")] == [
        "sc.exe delete TDSBridge",
        rf"reg.exe delete {EVENTS} /f",
        "netsh.exe advfirewall firewall delete rule name=TDSBridge",
    ]


def test_every_step_that_failed_is_named_and_the_others_are_done_all_the_same() -> None:
    done = []

    def run(command: Any) -> tuple[int, str]:
        done.append(command)
        return {"one": (0, ""), "two": (5, "Access is denied.\n"), "three": (1, "not there")}[command[0]]

    steps = [Step(("two", "a b")), Step(("three",), must=False), Step(("one",))]
    with pytest.raises(Refused) as refused:
        carry_out(steps, run)
    said = 'these commands failed; the others are done:\ntwo "a b"\n    exit code 5: Access is denied.'
    assert (str(refused.value), len(done)) == (said, 3)


@pytest.mark.parametrize("kind", ["bridge", "grafana"])
def test_a_second_node_on_this_host_shares_no_name_and_no_folder_with_the_first(kind: str) -> None:
    def described(name: str, data: str) -> Service:
        place = Place(PROGRAM, PLACE.python, PureWindowsPath(data))
        if kind == "grafana":
            return services.grafana_service(place, name, PureWindowsPath(r"C:\Grafana"))
        return services.bridge_service(place, name, settings_from({"state": "state"}, "test"), Rotation(), "10.0.0.5")

    usual = {"bridge": BRIDGE, "grafana": GRAFANA}[kind]
    first, second = described(usual, r"C:\ProgramData\TDS"), described(f"{usual}2", r"C:\ProgramData\TDS-2")
    # Windows refuses a second service with the same display name.
    assert (first.title, second.title) == (f"TDS {kind if kind == 'bridge' else 'Grafana'}", f"{first.title} ({usual}2)")
    assert {first.folder, *first.writes}.isdisjoint({second.folder, *second.writes})
    assert r"\TDS" + "\\" not in " ".join(second.image), "a path of the first node"
