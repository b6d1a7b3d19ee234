"""A real Redis Cluster of three masters on loopback ports."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis
from redis.cluster import RedisCluster

from demo.stores import free_port
from tests.servers.redis import RedisServer
from tests.servers.redis_sentinels import wait_until

START_S = 30.0
NODE_TIMEOUT_MS = 2000


class ClusterSite:
    """`with ClusterSite(folder) as site:` starts and joins the nodes. `replicas` more of them hold a copy of each master.

    With `is_whole` the cluster refuses everything while a master is down, as Redis does unless told otherwise.
    """

    def __init__(self, folder: Path, is_whole: bool = False, replicas: int = 0) -> None:
        self.nodes = [_node(folder / f"node-{number}", is_whole) for number in range(3 * (1 + replicas))]
        self._replicas = replicas
        self._stack = ExitStack()

    @property
    def addresses(self) -> list[str]:
        """host:port of each node."""
        return [f"127.0.0.1:{node.port}" for node in self.nodes]

    def connect(self, **more: Any) -> dict[str, Any]:
        """The keys of a source on it."""
        return {"kind": "redis", "cluster": True, "nodes": self.addresses, **more}

    def client(self) -> Any:
        """redis-py's client of the whole. The caller closes it."""
        return RedisCluster(host="127.0.0.1", port=next(node.port for node in self.nodes if node.running))

    def copy_from(self, server: RedisServer) -> None:
        """Every key of a single server, byte for byte."""
        with redis.Redis(server.host, server.port) as source, self.client() as target:
            for key in source.scan_iter(count=1000):
                target.restore(key, 0, source.dump(key), replace=True)

    def node_of(self, key: str) -> RedisServer:
        """The master that has this key."""
        with self.client() as client:
            port = client.get_node_from_key(key).port
        return next(node for node in self.nodes if node.port == port)

    def await_state(self, state: str, *without: RedisServer) -> None:
        """Wait until every node but these says that of the cluster."""
        nodes = [node for node in self.nodes if node not in without]
        said = f"cluster_state:{state}"
        wait_until(lambda: all(said in _cluster_info(node) for node in nodes), START_S, f"the cluster is not {state}")

    def await_replicas(self) -> None:
        """Wait until the replicas have as many keys as the masters."""
        masters, replicas = self.nodes[:3], self.nodes[3:]
        wait_until(lambda: key_count(masters) == key_count(replicas), START_S, "the replicas lag behind")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            command = ["redis-cli", "--cluster", "create", *self.addresses, "--cluster-replicas", str(self._replicas)]
            subprocess.run([*command, "--cluster-yes"], check=True, capture_output=True, timeout=START_S)
            self.await_state("ok")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.close()


def _node(folder: Path, is_whole: bool) -> RedisServer:
    folder.mkdir(parents=True)
    options = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", str(free_port())]
    options += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--repl-diskless-sync-delay", "0"]
    return RedisServer(folder, "", *options, "--cluster-require-full-coverage", "yes" if is_whole else "no")


def key_count(nodes: Sequence[RedisServer]) -> int:
    """How many keys these have together."""
    return sum(node.client.dbsize() for node in nodes)


def _cluster_info(node: RedisServer) -> str:
    info = node.client.execute_command("CLUSTER", "INFO")
    return info if isinstance(info, str) else str(info)
