"""A source that is switched off. The catalogue's reads of it are accepted, and every fetch says that it is off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from pydantic import ConfigDict

from app.errors import SourceUnavailable
from app.model import Fetch, Frame, Statement
from app.sources.base import Ask, Read, SourceConfig

#: the kind of a source that is off, or whose configured kind does not exist
OFF: Literal["off"] = "off"


class OffConfig(SourceConfig):
    """`clickhouse: {enabled: false}`: there is none here. Other keys of its connection are ignored."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["off"] = OFF
    enabled: Literal[False] = False

    def build(self, name: str) -> NoReturn:
        """Raise SourceUnavailable: sources that are not enabled are never built."""
        raise SourceUnavailable(name, "is switched off")


class OffRead(Read):
    """A read of a source whose kind is not known. It is accepted as it is."""

    model_config = ConfigDict(extra="ignore")

    def statement(self, ask: Ask) -> Statement:
        """A Statement that is never sent."""
        return Statement(self.source, ask.metric, "", (), ask.range, ask.by, ask.where, self, ask.now_ms)


def switched_off(name: str) -> Fetch:
    """The fetch of a source that is off."""

    async def fetch(_: Statement) -> Frame:
        raise SourceUnavailable(name, "is switched off in the configuration (enabled: false)")

    return fetch


def with_kind(source: Any) -> Any:
    """A source as the file has it; one that is off gets the kind `off`. Raises ValueError where it is both off and on."""
    connect = source.get("connect") if isinstance(source, Mapping) else None
    if not isinstance(source, Mapping) or not isinstance(connect or {}, Mapping):
        return source
    said = [one["enabled"] for one in (source, connect or {}) if "enabled" in one]
    off = [_is_off(one) for one in said]
    if len(set(off)) > 1:
        raise ValueError("`enabled` and `connect.enabled` say different things; one of them is enough")
    if not any(off):
        return source
    return {**source, "enabled": False, "connect": {"kind": OFF, **(connect or {}), "enabled": False}}


def _is_off(value: Any) -> bool:
    return value is False or str(value).lower() in ("false", "no", "off", "0", "n", "f")
