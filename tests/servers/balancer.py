"""The committed haproxy.cfg, not a byte of it changed, in front of whatever a test names: its own variables say where that is."""

from __future__ import annotations

import getpass
import grp
import os
import signal
import subprocess
from pathlib import Path

from demo.stores import free_port
from tests.servers.haproxy import HAProxyServer

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "provisioning" / "haproxy" / "haproxy.cfg"
MAKE_CERTIFICATES = ROOT / "provisioning" / "tls" / "make.sh"
#: An address where nobody is.
NOBODY = "127.0.0.1:9"


def make_certificates(folder: Path, *options: str) -> Path:
    """Certificates by the committed command: their folder."""
    subprocess.run([MAKE_CERTIFICATES, folder, *options], check=True, capture_output=True)
    return folder


class Balancer(HAProxyServer):
    """HAProxy with the committed configuration; `more` sets LB_ variables. The bridge is at `url`, over TLS."""

    # As Debian's unit starts it: a master and its worker, so that it can be reloaded.
    _options = ("-W", "-dW")

    def __init__(self, folder: Path, certificates: Path, **more: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, ())
        self.prometheus_port, self.grafana_port, self.stats_port = free_port(), free_port(), free_port()
        self.certificates = certificates
        self._environment = {
            "LB_BRIDGE_LISTEN": f"127.0.0.1:{self.port}",
            "LB_GRAFANA_LISTEN": f"127.0.0.1:{self.grafana_port}",
            "LB_PROMETHEUS_LISTEN": f"127.0.0.1:{self.prometheus_port}",
            "LB_STATS_LISTEN": f"127.0.0.1:{self.stats_port}",
            "LB_PEERS_LISTEN": f"127.0.0.1:{free_port()}",
            "LB_CERTIFICATE": str(certificates / "haproxy.pem"),
            "LB_CLIENT_CA": str(certificates / "ca.crt"),
            "LB_SOCKET": self.socket_path,
            "LB_USER": getpass.getuser(),
            "LB_GROUP": grp.getgrgid(os.getgid()).gr_name,
            **dict.fromkeys(("LB_BRIDGE_1", "LB_BRIDGE_2", "LB_GRAFANA_1", "LB_GRAFANA_2"), NOBODY),
            **dict.fromkeys(("LB_PROMETHEUS_1", "LB_PROMETHEUS_2"), NOBODY),
            **more,
        }

    def set(self, **more: str) -> None:
        """Further variables, before it is started."""
        self._environment |= more

    def _config(self) -> str:
        return CONFIG.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"https://localhost:{self.port}"

    def reload(self) -> None:
        """As `systemctl reload` does."""
        os.kill(self.pid, signal.SIGUSR2)


def bridges(*ports: tuple[int, int]) -> dict[str, str]:
    """The variables that name these bridges, each an HTTP port and the agent's."""
    named = {f"LB_BRIDGE_{number}": f"127.0.0.1:{http}" for number, (http, _) in enumerate(ports, 1)}
    return named | {f"LB_BRIDGE_{number}_AGENT": str(agent) for number, (_, agent) in enumerate(ports, 1)}
