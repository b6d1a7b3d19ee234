"""The same bridge behind two servers: one keeps finished responses and looks before the parser, the other does neither."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.catalog import load
from app.config import settings_from
from app.main import Service, build_operations, compose_service
from tests.contracts.app_under_test import CPU, HISTORY, KINDS, LIVE, NOW, PNL, TEXT, UNHURRIED, Scripted, settings
from tests.server.raw import RawClient
from tests.servers.listening import listening

HOUR_MS = 3_600_000
GOOD = {"rts": LIVE, "duckdb": HISTORY, "clickhouse": PNL, "prometheus": CPU}
ROWS = "/v1/rows?metric=equity&by=account&from=now-1h"
#: each response to ROWS has two parts: history and live edge
PARTS = 2


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now_ms = NOW

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class TwoWays:
    """Clients of both servers, and what is behind them."""

    clock: Clock
    sources: dict[str, Scripted]
    service: Service
    short: RawClient
    whole: RawClient

    def heal(self) -> None:
        """Every source answers again, and its circuit is closed."""
        for name, answer in GOOD.items():
            self.sources[name].answer = answer
            self.service.operations.guards[name].breaker.probe_passed()

    @property
    def hits(self) -> float:
        """Parts of responses that came from the cache."""
        exposed = self.service.operations.telemetry.exposition().decode()
        return sum(map(float, re.findall(r'bridge_cache_hits_total\{how="ready",source="\w+"\} (\S+)', exposed)))


@asynccontextmanager
async def two_ways(auth: Mapping[str, Any] | None = None, keep_alive_s: int = 5, **http: Any) -> AsyncIterator[TwoWays]:
    """Both servers; `http` are settings of that name."""
    values = settings(auth, **http).model_dump(mode="json")
    for source in values["sources"].values():
        source["policy"] |= {"fresh_s": 10, "stale_s": 900} | UNHURRIED
    clock, sources = Clock(), {name: Scripted(name) for name in KINDS}
    chosen, keeps_nothing = (
        settings_from(values | {"request": {"budget_s": 30, **more}}, "test") for more in ({}, {"ready_bytes": 0})
    )
    operations = build_operations(chosen, load({"catalogue.yaml": TEXT}, KINDS), sources, clock)
    for name, answer in GOOD.items():
        sources[name].answer = answer
    service, whole = compose_service(chosen, operations), compose_service(keeps_nothing, operations)
    more = {"lifespan": "off", "server_header": False, "timeout_graceful_shutdown": 1, "timeout_keep_alive": keep_alive_s}
    async with (
        listening(service.app, http=service.http_protocol, **more) as port,
        listening(whole.app, http=parser_only(whole.http_protocol), **more) as whole_port,
    ):
        two = TwoWays(clock, sources, service, RawClient(port), RawClient(whole_port))
        yield two
        await two.short.close()
        await two.whole.close()


def parser_only(protocol: type[HttpToolsProtocol]) -> type[HttpToolsProtocol]:
    """The protocol without its look before the parser."""
    return type("ParserOnly", (protocol,), {"_is_idle": lambda _: False})


def panel(now_ms: int, *targets: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The body of a panel over the last hour."""
    return {
        "targets": [{"refId": chr(ord("A") + index), **target} for index, target in enumerate(targets)],
        "range": {"from": now_ms - HOUR_MS, "to": now_ms},
        "maxDataPoints": 60,
        **more,
    }
