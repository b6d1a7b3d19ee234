"""What is set on Windows for a service, as data: the exact commands, in their order. Nothing in this file runs anything.

`python -m winsvc install ... --print` shows them; tests/winsvc/test_plan.py has them whole.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import PureWindowsPath

BRIDGE, GRAFANA = "TDSBridge", "TDSGrafana"
#: beside a service's configuration: lines NAME=value for its environment
SECRETS = "secrets.env"
#: after the first and the second failure in a day 5 s later, then every 30 s
RESTARTS = "restart/5000/restart/5000/restart/30000"
#: the only one that a program needs that opens files and sockets: it walks through folders that it may not list
PRIVILEGES = "SeChangeNotifyPrivilege"
#: how long Windows waits for the drain when the machine is shut down
PRESHUTDOWN_MS = 20_000

_SYSTEM, _ADMINISTRATORS, _USERS = "*S-1-5-18", "*S-1-5-32-544", "*S-1-5-32-545"
_SERVICES = r"HKLM\SYSTEM\CurrentControlSet\Services"


@dataclass(frozen=True, slots=True)
class Step:
    """One command. One that need not succeed clears away what may not be there."""

    command: tuple[str, ...]
    must: bool = True

    def __str__(self) -> str:
        return subprocess.list2cmdline(self.command)


@dataclass(frozen=True, slots=True)
class Opening:
    """A hole in the firewall: these ports, for these addresses."""

    ports: tuple[int, ...]
    remote: str = "LocalSubnet"


@dataclass(frozen=True, slots=True)
class Service:
    """One service: what starts it, and what it may touch. Its account is its own and has no password."""

    name: str
    title: str
    description: str
    image: tuple[str, ...]
    #: its configuration, its secrets; it may read there
    folder: PureWindowsPath
    #: and write there
    writes: tuple[PureWindowsPath, ...]
    #: where else it may read: the snapshots of DuckDB
    reads: tuple[PureWindowsPath, ...] = ()
    opening: Opening | None = None

    @property
    def account(self) -> str:
        """The virtual account."""
        return rf"NT SERVICE\{self.name}"


def installing(service: Service, program: PureWindowsPath, messages: PureWindowsPath) -> list[Step]:
    """The steps from nothing to a service that can be started. `messages`: the DLL with the Event Log's texts."""
    created = Step(("sc.exe", "create", service.name, "binPath=", _image(service), "type=", "own", "start=", "auto"))
    return [created, *updating(service, program, messages)]


def updating(service: Service, program: PureWindowsPath, messages: PureWindowsPath) -> list[Step]:
    """The steps from any state of the service to the one that is wanted."""
    return [*_controlled(service), *_journal(service, messages), *_rights(service, program), *_firewall(service)]


def removing(service_name: str) -> list[Step]:
    """The steps that take the service away; its files stay."""
    return [
        Step(("sc.exe", "delete", service_name)),
        Step(("reg.exe", "delete", _event_key(service_name), "/f"), must=False),
        Step(("netsh.exe", "advfirewall", "firewall", "delete", "rule", f"name={service_name}"), must=False),
    ]


def _image(service: Service) -> str:
    return subprocess.list2cmdline(service.image)


def _controlled(service: Service) -> list[Step]:
    name = service.name
    key = rf"{_SERVICES}\{name}"
    lines: list[tuple[str, ...]] = [
        ("config", name, "binPath=", _image(service), "start=", "delayed-auto", "depend=", "Tcpip"),
        ("config", name, "obj=", service.account, "DisplayName=", service.title),
        ("description", name, service.description),
        ("failure", name, "reset=", "86400", "actions=", RESTARTS),
        # without the flag only a crash counts as a failure, not a stop with an error
        ("failureflag", name, "1"),
        ("sidtype", name, "unrestricted"),
        ("privs", name, PRIVILEGES),
    ]
    shutdown = ("reg.exe", "add", key, "/v", "PreshutdownTimeout", "/t", "REG_DWORD", "/d", str(PRESHUTDOWN_MS), "/f")
    return [*(Step(("sc.exe", *line)) for line in lines), Step(shutdown)]


def _event_key(name: str) -> str:
    return rf"{_SERVICES}\EventLog\Application\{name}"


def _journal(service: Service, messages: PureWindowsPath) -> list[Step]:
    key = _event_key(service.name)
    return [
        Step(("reg.exe", "add", key, "/v", "EventMessageFile", "/t", "REG_EXPAND_SZ", "/d", str(messages), "/f")),
        Step(("reg.exe", "add", key, "/v", "TypesSupported", "/t", "REG_DWORD", "/d", "7", "/f")),
    ]


def _rights(service: Service, program: PureWindowsPath) -> list[Step]:
    """Nobody but administrators may change what the service runs; its secrets are its own."""
    owned = (f"{_SYSTEM}:(OI)(CI)F", f"{_ADMINISTRATORS}:(OI)(CI)F")
    secrets = (f"{_SYSTEM}:F", f"{_ADMINISTRATORS}:F", f"{service.account}:R")
    return [
        _grant(program, "/inheritance:r", "/grant:r", *owned, f"{_USERS}:(OI)(CI)RX"),
        _grant(service.folder.parent, "/inheritance:r", "/grant:r", *owned),
        _grant(service.folder, "/inheritance:r", "/grant:r", *owned, f"{service.account}:(OI)(CI)RX"),
        _grant(service.folder / SECRETS, "/inheritance:r", "/grant:r", *secrets),
        *(_grant(folder, "/grant:r", f"{service.account}:(OI)(CI)M") for folder in service.writes),
        *(_grant(folder, "/grant", f"{service.account}:(OI)(CI)RX") for folder in service.reads),
    ]


def _grant(path: PureWindowsPath, *rights: str) -> Step:
    return Step(("icacls.exe", str(path), *rights))


def _firewall(service: Service) -> list[Step]:
    """No rule where nothing but this machine is listened to; where there is one, only for these ports and addresses."""
    rule = ("netsh.exe", "advfirewall", "firewall")
    steps = [Step((*rule, "delete", "rule", f"name={service.name}"), must=False)]
    if service.opening is not None:
        ports = ",".join(str(port) for port in service.opening.ports)
        what = ("dir=in", "action=allow", "protocol=TCP", f"localport={ports}", f"program={service.image[0]}")
        whom = (f"remoteip={service.opening.remote}", "profile=domain,private")
        steps.append(Step((*rule, "add", "rule", f"name={service.name}", *what, *whom)))
    return steps
