"""What is provisioned, running: two real bridges and two real Prometheus behind a real HAProxy, by the committed files."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from demo.filling import fill_prometheus
from tests.servers.askers import Load, client, load
from tests.servers.balancer import ROOT, Balancer, bridges, make_certificates
from tests.servers.fleet import Fleet, settings
from tests.servers.prometheus import PrometheusServer
from tests.servers.world import Stores, minutes

PROVISIONED = ROOT / "provisioning" / "prometheus"
#: What the askers, and Prometheus, show the bridges; OTHER is another caller's.
KEY, OTHER = "a-key-of-the-tests", "another-key-of-the-tests"
AUTH = {"keys": {f"key{number}": {"sha256": hashlib.sha256(key.encode()).hexdigest()} for number, key in enumerate((KEY, OTHER))}}
BEARER = {"Authorization": f"Bearer {KEY}"}


class ProvisionedPrometheus(PrometheusServer):
    """A node of the pair, by the committed configuration; only whom it scrapes is the test's."""

    def __init__(self, folder: Path, replica: str) -> None:
        super().__init__(folder, 0, 15)
        shutil.copytree(PROVISIONED, folder, dirs_exist_ok=True)
        (folder / "secrets").mkdir()
        (folder / "secrets" / "bridge.key").write_text(KEY, encoding="utf-8")
        self._options = ["--enable-feature=expand-external-labels"]
        self._environment = {"TDS_CLUSTER": "test", "TDS_REPLICA": replica}
        self._targets = folder / "targets"

    def options(self, line: str, environment: Mapping[str, str]) -> None:
        """These options in place of the usual ones, but for where its files and its port are."""
        own = ("--config.file=", "--storage.tsdb.path=", "--web.listen-address=")
        self._options = [option for option in line.split() if not option.startswith(own)]
        self._environment = dict(environment)

    def get(self, path: str) -> Any:
        """What its API says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=5) as answer:
            return json.load(answer)["data"]

    def scrapes(self, targets: Mapping[str, list[int]]) -> None:
        """The ports of each job; jobs that are not named have nobody."""
        for file in self._targets.glob("*.yml"):
            found = [f"127.0.0.1:{port}" for port in targets.get(file.stem, [])]
            file.write_text(yaml.safe_dump([{"targets": found}]), encoding="utf-8")


@dataclass(frozen=True)
class Stack:
    """All of it. `trust` knows the authority that signed HAProxy's certificate."""

    balancer: Balancer
    fleet: Fleet
    prometheus: tuple[ProvisionedPrometheus, ProvisionedPrometheus]
    certificates: Path
    trust: ssl.SSLContext


@contextmanager
def running_stack(folder: Path, stores: Stores) -> Iterator[Stack]:
    """The stack over these stores; the bridges ask Prometheus through HAProxy."""
    certificates = make_certificates(folder / "tls")
    nodes = (_node(folder / "p1", stores), _node(folder / "p2", stores))
    named = {f"LB_PROMETHEUS_{number}": f"127.0.0.1:{node.port}" for number, node in enumerate(nodes, 1)}
    balancer = Balancer(folder / "lb", certificates)
    fleet = Fleet(folder, 2, lambda _: settings(stores, {"prometheus": balancer.prometheus_port}, auth=AUTH))
    balancer.set(**named, **bridges(*fleet.ports))
    for node in nodes:
        scraped = [http for http, _ in fleet.ports]
        node.scrapes({"bridge": scraped, "haproxy": [balancer.stats_port], "prometheus": [one.port for one in nodes]})
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        stack.enter_context(balancer)
        stack.enter_context(fleet)
        _wait_until_up(balancer)
        trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        yield Stack(balancer, fleet, nodes, certificates, trust)


def _wait_until_up(balancer: Balancer, within_s: float = 15.0) -> None:
    """Until HAProxy has seen both bridges: it was there before them."""
    ends_s = time.monotonic() + within_s
    while not all(row["status"].startswith("UP") for row in balancer.stats().values()):
        assert time.monotonic() < ends_s, balancer.stats()
        time.sleep(0.05)


def _node(folder: Path, stores: Stores) -> ProvisionedPrometheus:
    fill_prometheus(stores.world, folder, minutes(stores.world, stores.until_ms))
    return ProvisionedPrometheus(folder, folder.name)


def other_balancer(folder: Path, stack: Stack, *replicas: tuple[int, int], **more: Any) -> Balancer:
    """Another HAProxy in front of the same bridges, or of others, with other variables."""
    return Balancer(folder, stack.certificates, **bridges(*(replicas or stack.fleet.ports)), **more)


def say(text: str) -> None:
    """For whoever runs `pytest -s`: what was counted."""
    sys.stdout.write(f"\n  {text}\n")


def told(asked: Load) -> str:
    """What the askers got, in numbers."""
    return f"{asked.asked} asked, {len(asked.failed)} kinds of failure, slowest {asked.worst_s:.2f} s"


@asynccontextmanager
async def asking(stack: Stack, **rows: str) -> AsyncIterator[Load]:
    """Askers at the balancer while the block runs; `rows` is what half of them ask."""
    async with load(stack.balancer.url, rows or None, BEARER, stack.trust) as asked:
        yield asked


def session(stack: Stack, url: str) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    """A client with a key that trusts the made authority."""
    return client(url, stack.trust, BEARER)


def up(stack: Stack, server: str) -> Callable[[], bool]:
    """Whether HAProxy thinks that a bridge is up."""
    return lambda: stack.balancer.stats()[server]["status"].startswith("UP")
