"""A redis-server with the committed settings and users: only its port and folders are a test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import redis

from tests.servers.redis import RedisServer, redis_program

PROVISIONING = Path(__file__).parents[2] / "provisioning"


def make_secrets(folder: Path) -> dict[str, str]:
    """Passwords by the committed command: the variables, and the files in `folder`."""
    command: list[str | Path] = [sys.executable, PROVISIONING / "make_secrets.py", "--env", folder / "env", "--folder", folder]
    subprocess.run(command, check=True, capture_output=True)
    return dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())


class ProvisionedRedis(RedisServer):
    """The server of that name (rts, ris, rtss, rtrs, tier); `client` is its administrator."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)
        self.folder = folder
        self._name = name
        self.variables = make_secrets(folder)
        for file in (PROVISIONING / "redis").glob("*.conf"):
            text = file.read_text(encoding="utf-8")
            (folder / file.name).write_text(text.replace("/etc/redis/", f"{folder}/").replace("/var/lib/redis", str(folder)))
        self.client = self.user("admin")

    def user(self, name: str) -> Any:
        """A client of that user. The caller closes it."""
        password = self.variables[f"REDIS_{name.upper()}_PASSWORD"]
        return redis.Redis(self.host, self.port, username=name, password=password, decode_responses=True, protocol=2)

    def _command(self) -> list[str]:
        return [redis_program(), str(self._folder / f"redis-{self._name}.conf"), "--port", str(self.port)]
