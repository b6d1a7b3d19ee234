"""How a Redis endpoint is reached: a server, the master that Sentinels name, or a cluster."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from app.sources.base import SourceConfig
from app.sources.redis.addresses import HostPort, join_address, split_address
from app.sources.redis.cluster import ClusterLink
from app.sources.redis.connections import RedisConnections
from app.sources.redis.link import Link
from app.sources.redis.replicas import Replicas
from app.sources.redis.sentinel import SentinelLink
from app.sources.redis.server import ServerLink

#: Sentinels and the reading of a cluster's map answer within this or are taken for down.
_SENTINEL_S = 0.5


class RedisConnect(SourceConfig):
    """The address of one Redis endpoint: a server, a master that Sentinels name, or a cluster. Several sources may share it."""

    kind: Literal["redis"] = Field("redis", description="what the store is")
    host: str = Field("127.0.0.1", description="the server's address; with `cluster` that of any node")
    port: int = Field(6379, ge=1, le=65535, description="the server's port")
    sentinels: tuple[HostPort, ...] = Field(
        (), description="host:port of every Sentinel, in place of host and port: they name the master"
    )
    service: str | None = Field(None, min_length=1, description="the master's name at the Sentinels")
    sentinel_username: str | None = Field(None, description="the user at the Sentinels")
    sentinel_password: SecretStr | None = Field(None, description="the password at the Sentinels; left out: none")
    replica_reads: bool = Field(
        False,
        description="with `sentinels`: closed buckets are read from replicas that have all of them for certain; else, and always "
        "for the present, the master is asked",
    )
    cluster: bool = Field(False, description="true: a Redis Cluster")
    nodes: tuple[HostPort, ...] = Field((), description="with `cluster`, in place of host and port: host:port of some nodes")
    db: int = Field(0, ge=0, description="the database number; a cluster has 0 only")
    username: str | None = Field(None, description="the user (ACL)")
    password: SecretStr | None = Field(None, description="the user's password")
    tls: bool = Field(False, description="true: connect with TLS, to Sentinels too")
    tls_ca_file: str | None = Field(None, description="PEM file of the authorities to trust; left out: the system's")
    prefix: str = Field("", description="goes before every key of the catalogue")
    reply_timeout_s: float = Field(2.0, gt=0, le=30, description="time limit until all replies of one pipeline are in")
    max_members: int = Field(
        20_000, ge=1, le=1_000_000, description="most ids that one index may return; more make the answer partial"
    )

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        if problem := self._address_problem():
            raise ValueError(problem)
        return self

    @property
    def server(self) -> str:
        """What is reached, the same for all sources that reach the same: host:port, `service@` the Sentinels, or the nodes."""
        if self.sentinels:
            return f"{self.service}@{','.join(sorted(self.sentinels))}"
        return ",".join(sorted(self.nodes)) or join_address(self.host, self.port)

    def _address_problem(self) -> str | None:
        """What is wrong with the keys that say where it is."""
        given = self.model_fields_set
        server = " and ".join(key for key in ("host", "port") if key in given)
        if self.sentinels and self.cluster:
            return "sentinels and cluster exclude each other: a cluster fails over by itself"
        if (self.sentinels or self.nodes) and server:
            key = "sentinels" if self.sentinels else "nodes"
            return f"{key} and {server} exclude each other; leave {server} out"
        if self.sentinels and not self.service:
            return "service: is needed with sentinels: the master's name in `sentinel monitor NAME ...`"
        only = [key for key in ("service", "sentinel_username", "sentinel_password") if getattr(self, key) is not None]
        only += ["replica_reads"] if self.replica_reads else []
        if only and not self.sentinels:
            return f"{only[0]}: goes with sentinels only"
        if self.nodes and not self.cluster:
            return "nodes: goes with `cluster: true` only"
        return f"db: {self.db}, but a cluster has database 0 only" if self.cluster and self.db else None


def build_link(name: str, config: RedisConnect) -> Link:
    """The way to the endpoint; nothing is connected yet."""

    def connect(host: str, port: int) -> RedisConnections:
        address = {"host": host, "port": port, "db": config.db, **_login(config.username, config.password)}
        return _connections(name, config, address, config.pool_size, config.connect_timeout_s, config.reply_timeout_s)

    def connect_sentinel(host: str, port: int) -> RedisConnections:
        address = {"host": host, "port": port, **_login(config.sentinel_username, config.sentinel_password)}
        return _connections(name, config, address, 1, min(config.connect_timeout_s, _SENTINEL_S), _SENTINEL_S)

    if config.sentinels:
        sentinels = [connect_sentinel(*split_address(address)) for address in config.sentinels]
        replicas = Replicas(name, connect) if config.replica_reads else None
        return SentinelLink(name, config.service or "", sentinels, connect, replicas)
    if config.cluster:
        seeds = [split_address(address) for address in config.nodes] or [(config.host, config.port)]
        return ClusterLink(name, seeds, connect)
    return ServerLink(name, config.server, connect(config.host, config.port))


def _connections(
    name: str, config: RedisConnect, address: dict[str, Any], size: int, connect_s: float, reply_s: float
) -> RedisConnections:
    if config.tls:
        address["ssl_ca_certs"] = config.tls_ca_file
    return RedisConnections(name, address, tls=config.tls, size=size, connect_s=connect_s, reply_s=reply_s)


def _login(username: str | None, password: SecretStr | None) -> dict[str, str | None]:
    """In redis-py's words."""
    return {"username": username, **({"password": password.get_secret_value()} if password else {})}
