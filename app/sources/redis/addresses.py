"""host:port as the configuration writes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

_MOST_PORT = 65535


def _check_address(text: str) -> str:
    split_address(text)
    return text


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[IPv6]:port`. Raises ValueError."""
    host, _, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isdecimal() or not 0 < int(port) <= _MOST_PORT or (":" in bare and bare == host):
        raise ValueError(f"{text} is no host:port, such as 10.0.0.5:6379 or [fd00::5]:6379")
    return bare, int(port)


def join_address(host: str, port: int) -> str:
    """host:port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


#: host:port of one server.
HostPort = Annotated[str, AfterValidator(_check_address)]
