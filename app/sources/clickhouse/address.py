"""Where ClickHouse is: one server, several nodes with the same data, or the engine inside this process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from app.sources.base import SourceConfig

_PORT = 8123
_NODE = re.compile(r"(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^\s:/@\[\]]+)(?::(?P<port>\d{1,5}))?")


class NodeAddress(NamedTuple):
    """Where one server is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ClickHouseAddress(SourceConfig):
    """Where ClickHouse is. `interface: chdb` runs the embedded engine on the folder `path` instead (one folder per process).

    The driver goes through the proxy that HTTP_PROXY or HTTPS_PROXY names unless NO_PROXY lists the host; there is no switch.
    """

    interface: Literal["http", "chdb"] = Field("http", description="chdb: the engine inside this process, on the folder `path`")
    host: str = Field("127.0.0.1", description="the server's address")
    port: int = Field(_PORT, ge=1, le=65535, description="the server's HTTP port")
    hosts: tuple[str, ...] = Field(
        (),
        max_length=16,
        description="several nodes that have the same data, in order of preference, each `HOST` or `HOST:PORT`, in place of "
        "`host` and `port`; where one does not answer the next one is asked",
    )
    max_delay_s: int = Field(
        30, ge=1, le=3600, description="how far a replica may lag; with `hosts`, one that lags more is asked last, and marked"
    )
    database: str = Field("trade_system", description="the database")
    username: str = Field("default", description="the user")
    password: SecretStr = Field(SecretStr(""), description="the user's password")
    tls: bool = Field(False, description="true: connect with TLS")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    compress: bool = Field(False, description="true: compressed answers; useful on slow links only")
    path: Path | None = Field(None, description="the embedded engine's folder")
    max_execution_time_s: float = Field(
        4.0, gt=0, le=300, description="after this time the server gives up; keep it below attempt_timeout_s"
    )
    max_memory_bytes: int = Field(1_000_000_000, ge=1_000_000, description="memory that one statement may use at the server")

    @field_validator("hosts")
    @classmethod
    def _hosts_are_addresses(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        addresses = [_parse_node(text) for text in hosts]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f"{address} is there twice; name each node once")
        return hosts

    @property
    def nodes(self) -> tuple[NodeAddress, ...]:
        """The servers, the preferred one first."""
        return tuple(map(_parse_node, self.hosts)) or (NodeAddress(self.host, self.port),)

    @property
    def one_process_only(self) -> bool:
        """The embedded engine locks its folder."""
        return self.interface == "chdb"

    @model_validator(mode="after")
    def _one_way_is_given(self) -> Self:
        if self.hosts and (both := sorted({"host", "port"} & self.model_fields_set)):
            raise ValueError(f"hosts: stands in place of {' and '.join(both)}; remove {'them' if len(both) > 1 else both[0]}")
        if self.hosts and self.interface == "chdb":
            raise ValueError("hosts: has no meaning with `interface: chdb` (the engine inside this process)")
        return self

    @model_validator(mode="after")
    def _path_is_given(self) -> Self:
        if self.interface == "chdb" and self.path is None:
            raise ValueError("path: is needed with `interface: chdb` (the embedded engine's folder)")
        return self


def _parse_node(text: str) -> NodeAddress:
    """The address in one entry of `hosts`. Raises ValueError."""
    found = _NODE.fullmatch(text)
    port = int(found["port"] or _PORT) if found else 0
    if found is None or not 1 <= port <= 65535:
        # An address with a user and a password in it must not be shown.
        shown = "one with @" if "@" in text else repr(text)
        raise ValueError(f"{shown} is no node; write HOST or HOST:PORT, an IPv6 address as [::1]:8123")
    return NodeAddress(found["host"].strip("[]"), port)
