"""The exact Windows commands that set up a service, as data. Nothing in this file runs them.

`python -m winsvc install ... --print` shows them, and tests/winsvc/test_plan.py lists them completely.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import PureWindowsPath

BRIDGE, GRAFANA = "TDSBridge", "TDSGrafana"
#: the file beside a service's configuration with lines NAME=value for its environment
SECRETS = "secrets.env"
#: restart 5 s after the first and second failure of a day, and 30 s after each further one
RESTARTS = "restart/5000/restart/5000/restart/30000"
#: the only privilege that opening files and sockets needs: passing through folders that the account may not list
PRIVILEGES = "SeChangeNotifyPrivilege"
#: how long Windows waits for the drain at a shutdown
PRESHUTDOWN_MS = 20_000

_SYSTEM, _ADMINISTRATORS, _USERS = "*S-1-5-18", "*S-1-5-32-544", "*S-1-5-32-545"
_SERVICES = r"HKLM\SYSTEM\CurrentControlSet\Services"


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `must` is False for a command that removes something which may not exist."""

    command: tuple[str, ...]
    must: bool = True

    def __str__(self) -> str:
        return subprocess.list2cmdline(self.command)


@dataclass(frozen=True, slots=True)
class Opening:
    """An opening in the firewall: these ports, for these addresses."""

    ports: tuple[int, ...]
    remote: str = "LocalSubnet"


@dataclass(frozen=True, slots=True)
class Service:
    """One service: its command and its permissions. It has its own account, without a password."""

    name: str
    title: str
    description: str
    image: tuple[str, ...]
    #: its configuration and secrets; it may read there
    folder: PureWindowsPath
    #: the folders that it may write to
    writes: tuple[PureWindowsPath, ...]
    #: other folders that it may read: the snapshots of DuckDB
    reads: tuple[PureWindowsPath, ...] = ()
    opening: Opening | None = None

    @property
    def account(self) -> str:
        """The virtual account."""
        return rf"NT SERVICE\{self.name}"


def install_steps(service: Service, program: PureWindowsPath, messages: PureWindowsPath) -> list[Step]:
    """The steps that create a service. `messages`: the DLL with the Event Log's texts."""
    created = Step(("sc.exe", "create", service.name, "binPath=", _command_line(service), "type=", "own", "start=", "auto"))
    return [created, *update_steps(service, program, messages)]


def update_steps(service: Service, program: PureWindowsPath, messages: PureWindowsPath) -> list[Step]:
    """The steps from any state of the service to the wanted one."""
    return [
        *_control_steps(service),
        *_event_log_steps(service, messages),
        *_permission_steps(service, program),
        *_firewall_steps(service),
    ]


def remove_steps(service_name: str) -> list[Step]:
    """The steps that remove the service; its files stay."""
    return [
        Step(("sc.exe", "delete", service_name)),
        Step(("reg.exe", "delete", _event_key(service_name), "/f"), must=False),
        Step(("netsh.exe", "advfirewall", "firewall", "delete", "rule", f"name={service_name}"), must=False),
    ]


def _command_line(service: Service) -> str:
    return subprocess.list2cmdline(service.image)


def _control_steps(service: Service) -> list[Step]:
    name = service.name
    key = rf"{_SERVICES}\{name}"
    lines: list[tuple[str, ...]] = [
        ("config", name, "binPath=", _command_line(service), "start=", "delayed-auto", "depend=", "Tcpip"),
        ("config", name, "obj=", service.account, "DisplayName=", service.title),
        ("description", name, service.description),
        ("failure", name, "reset=", "86400", "actions=", RESTARTS),
        # Without the flag only a crash counts as a failure, and a stop with an error does not.
        ("failureflag", name, "1"),
        ("sidtype", name, "unrestricted"),
        ("privs", name, PRIVILEGES),
    ]
    shutdown = ("reg.exe", "add", key, "/v", "PreshutdownTimeout", "/t", "REG_DWORD", "/d", str(PRESHUTDOWN_MS), "/f")
    return [*(Step(("sc.exe", *line)) for line in lines), Step(shutdown)]


def _event_key(name: str) -> str:
    return rf"{_SERVICES}\EventLog\Application\{name}"


def _event_log_steps(service: Service, messages: PureWindowsPath) -> list[Step]:
    key = _event_key(service.name)
    return [
        Step(("reg.exe", "add", key, "/v", "EventMessageFile", "/t", "REG_EXPAND_SZ", "/d", str(messages), "/f")),
        Step(("reg.exe", "add", key, "/v", "TypesSupported", "/t", "REG_DWORD", "/d", "7", "/f")),
    ]


def _permission_steps(service: Service, program: PureWindowsPath) -> list[Step]:
    """Only administrators may change the programs, and only they and the service may read its secrets."""
    owned = (f"{_SYSTEM}:(OI)(CI)F", f"{_ADMINISTRATORS}:(OI)(CI)F")
    secrets = (f"{_SYSTEM}:F", f"{_ADMINISTRATORS}:F", f"{service.account}:R")
    return [
        _grant_step(program, "/inheritance:r", "/grant:r", *owned, f"{_USERS}:(OI)(CI)RX"),
        _grant_step(service.folder.parent, "/inheritance:r", "/grant:r", *owned),
        _grant_step(service.folder, "/inheritance:r", "/grant:r", *owned, f"{service.account}:(OI)(CI)RX"),
        _grant_step(service.folder / SECRETS, "/inheritance:r", "/grant:r", *secrets),
        *(_grant_step(folder, "/grant:r", f"{service.account}:(OI)(CI)M") for folder in service.writes),
        *(_grant_step(folder, "/grant", f"{service.account}:(OI)(CI)RX") for folder in service.reads),
    ]


def _grant_step(path: PureWindowsPath, *rights: str) -> Step:
    return Step(("icacls.exe", str(path), *rights))


def _firewall_steps(service: Service) -> list[Step]:
    """A rule for the service's ports and addresses; no rule if it listens on the loopback only."""
    rule = ("netsh.exe", "advfirewall", "firewall")
    steps = [Step((*rule, "delete", "rule", f"name={service.name}"), must=False)]
    if service.opening is not None:
        ports = ",".join(str(port) for port in service.opening.ports)
        what = ("dir=in", "action=allow", "protocol=TCP", f"localport={ports}", f"program={service.image[0]}")
        whom = (f"remoteip={service.opening.remote}", "profile=domain,private")
        steps.append(Step((*rule, "add", "rule", f"name={service.name}", *what, *whom)))
    return steps
