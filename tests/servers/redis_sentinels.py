"""Three real Sentinels over a master and a replica, which fail over within about two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis

from tests.servers.redis import RedisServer, redis_program

SERVICE = "rts"
#: How long the Sentinels wait before they hold the master for down.
DOWN_AFTER_MS = 1000
#: How long a failover may take on a busy machine, from the kill on.
FAILOVER_S = 30.0

_CONFIG = """
bind 127.0.0.1
port {port}
dir {folder}
sentinel monitor {service} 127.0.0.1 {master} 2
sentinel down-after-milliseconds {service} {down_after_ms}
sentinel failover-timeout {service} 4000
"""


class SentinelServer(RedisServer):
    """One Sentinel. It writes what it learns into its configuration."""

    def __init__(self, folder: Path, master: RedisServer, password: str = "", more: str = "", master_port: int = 0) -> None:
        folder.mkdir(parents=True)
        super().__init__(folder, password)
        self._file = folder / "sentinel.conf"
        text = _CONFIG.format(
            port=self.port,
            folder=folder,
            service=SERVICE,
            master=master_port or master.port,
            down_after_ms=DOWN_AFTER_MS,
        )
        text += f'requirepass "{password}"\n' if password else ""
        self._file.write_text(text + more, encoding="utf-8")

    def _command(self) -> list[str]:
        return [redis_program(), str(self._file), "--sentinel"]


class SentinelSite:
    """`with SentinelSite(folder) as site:` starts all five and waits until they know each other."""

    def __init__(self, folder: Path, password: str = "", sentinel_password: str = "") -> None:
        more = ["--masterauth", password] if password else []
        for name in ("first", "second"):
            (folder / name).mkdir()
        self.first = RedisServer(folder / "first", password, "--repl-diskless-sync-delay", "0", *more)
        of_first = ("--replicaof", "127.0.0.1", str(self.first.port), "--repl-diskless-sync-delay", "0")
        self.second = RedisServer(folder / "second", password, *of_first, *more)
        lines = f'sentinel auth-pass {SERVICE} "{password}"\n' if password else ""
        # Sentinels with a password use the same one to talk to each other.
        lines += f'sentinel sentinel-pass "{sentinel_password}"\n' if sentinel_password else ""
        self.sentinels = [
            SentinelServer(folder / f"sentinel-{number}", self.first, sentinel_password, lines) for number in range(3)
        ]
        self._stack = ExitStack()

    @property
    def addresses(self) -> list[str]:
        """host:port of each Sentinel."""
        return [f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels]

    def connect(self, **more: Any) -> dict[str, Any]:
        """The keys of a source on it."""
        return {"kind": "redis", "sentinels": self.addresses, "service": SERVICE, **more}

    def master_port(self) -> int:
        """The master's port as most Sentinels say it."""
        named = [self._ask(sentinel, "GET-MASTER-ADDR-BY-NAME")[1] for sentinel in self.sentinels if sentinel.running]
        return int(max(set(named), key=named.count))

    def await_failover(self) -> None:
        """Wait until the Sentinels name the second server and it is a master."""
        wait_until(lambda: self.master_port() == self.second.port, FAILOVER_S, "the Sentinels did not fail over")
        wait_until(lambda: self.second.client.info("replication")["role"] == "master", FAILOVER_S, "not promoted")

    def copy_from(self, server: RedisServer) -> None:
        """Every key of another server, byte for byte, at the replica, too."""
        with redis.Redis(server.host, server.port) as source, redis.Redis(self.first.host, self.first.port) as target:
            for key in source.scan_iter(count=1000):
                target.restore(key, 0, source.dump(key), replace=True)
            target.wait(1, 5000)

    def _ask(self, sentinel: RedisServer, question: str) -> Any:
        return sentinel.client.execute_command("SENTINEL", question, SERVICE)

    def _is_ready(self) -> bool:
        known = [sentinel.client.sentinel_master(SERVICE) for sentinel in self.sentinels]
        linked = self.second.client.info("replication")["master_link_status"] == "up"
        return linked and all(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 for state in known)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in (self.first, self.second, *self.sentinels):
                stack.enter_context(server)
            wait_until(self._is_ready, FAILOVER_S, "the Sentinels do not know each other")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()


def wait_until(condition: Callable[[], bool], within_s: float, otherwise: str) -> None:
    """Wait until it is so. Raises TimeoutError."""
    ends = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(otherwise)
        time.sleep(0.05)
