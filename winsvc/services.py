"""The descriptions of the services: the bridge, Grafana, and any other program."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from winsvc.logs import Rotation
from winsvc.plan import BRIDGE, GRAFANA, Opening, Service
from winsvc.supervise import Patience

if TYPE_CHECKING:
    from app.config import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """The paths of the checkout, of the services' interpreter, and of the folder of all services' data.

    The interpreter is the one that the virtual environment was made from. The environment's own python.exe is a launcher: it
    starts another process, which the service control manager does not know (event 7039).
    """

    program: PureWindowsPath
    python: PureWindowsPath
    data: PureWindowsPath

    def host_command(self, *arguments: str) -> tuple[str, ...]:
        """The command of a service. With -I no environment variable and no user's folder changes what runs."""
        return (str(self.python), "-I", str(self.program / "winsvc" / "host.py"), *arguments)


def bridge_service(place: Place, name: str, settings: Settings, rotation: Rotation, remote: str) -> Service:
    """The service of a bridge with these settings."""
    folder = place.data / "bridge"
    state = [folder / PureWindowsPath(settings.state)] if settings.state else []
    snapshots = [
        folder / PureWindowsPath(source.connect.snapshots)
        for source in settings.sources.values()
        if source.connect.kind == "duckdb" and source.connect.enabled
    ]
    limits = ("--log-bytes", str(rotation.file_bytes), "--log-files", str(rotation.files))
    return Service(
        name,
        _display_name("TDS bridge", name, BRIDGE),
        "One Grafana data source over Redis, ClickHouse, DuckDB and Prometheus.",
        place.host_command("run", "--name", name, "--config", str(folder / "bridge.yaml"), *limits),
        folder,
        writes=(folder / "logs", *state),
        reads=tuple(snapshots),
        opening=_firewall_opening(settings, remote),
    )


def _display_name(title: str, name: str, usual_name: str) -> str:
    """The name that people see. Windows refuses a second service with the same one (error 1078)."""
    return title if name == usual_name else f"{title} ({name})"


def _firewall_opening(settings: Settings, remote: str) -> Opening | None:
    listening = [(settings.http.host, settings.http.port), (settings.agent.host, settings.agent.port)]
    ports = tuple(port for host, port in listening if port is not None and not _is_loopback(host))
    return Opening(ports, remote) if ports else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def grafana_service(place: Place, name: str, home: PureWindowsPath) -> Service:
    """The service of a Grafana installed in `home`, with this repository's provisioning and its own grafana.ini."""
    folder = place.data / "grafana"
    command = [
        str(home / "bin" / "grafana.exe"),
        "server",
        "--homepath",
        str(home),
        "--config",
        str(folder / "grafana.ini"),
        f"cfg:default.paths.data={folder / 'data'}",
        f"cfg:default.paths.logs={folder / 'logs'}",
        f"cfg:default.paths.plugins={folder / 'data' / 'plugins'}",
        f"cfg:default.paths.provisioning={place.program / 'provisioning' / 'grafana'}",
    ]
    title = _display_name("TDS Grafana", name, GRAFANA)
    return supervised_service(place, name, title, "Grafana, kept running.", folder, command)


def supervised_service(
    place: Place,
    name: str,
    title: str,
    description: str,
    folder: PureWindowsPath,
    command: Sequence[str],
    patience: Patience | None = None,
) -> Service:
    """The service of a program that does not talk to the service control manager. A supervisor keeps it running."""
    patience = patience or Patience()
    waits = ("--restart", f"{patience.restart_s:g}", "--grace", f"{patience.grace_s:g}")
    image = place.host_command("supervise", "--name", name, "--folder", str(folder), *waits, "--", *command)
    return Service(name, title, description, image, folder, writes=(folder / "logs", folder / "data"))
