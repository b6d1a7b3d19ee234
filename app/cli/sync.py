"""`bridge sync`: ask the backend by hand to refill Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.cli.output import print_lines
from app.clock import wall_ms
from app.config import Settings, read_settings
from app.contracts.values import instant_ms
from app.errors import BadQuery
from app.main import build_sync
from app.sources.redis.source import RedisConfig
from app.sync import SyncCall
from app.telemetry import Telemetry


def sync(config: Path | None, source: str | None, from_: str, to: str) -> int:
    """Make one call to the backend for each Redis server, or for the server of one source."""
    settings = read_settings(config)
    servers = _sources_by_server(settings, source)
    now_ms = wall_ms()
    begin_ms = instant_ms(from_, "--from", now_ms, now_ms)
    end_ms = instant_ms(to, "--to", now_ms, now_ms, ends=True)
    backend = build_sync(settings, Telemetry())
    for server, names in servers.items():
        call = SyncCall("manual", server, tuple(sorted(names)), begin_ms, end_ms, None, None, None, None, None)
        status = asyncio.run(backend.deliver_now(call))
        print_lines(f"{server} ({', '.join(names)}): the backend answered {status}; idempotency key {call.idempotency_key}")
    return 0


def _sources_by_server(settings: Settings, source: str | None) -> dict[str, list[str]]:
    """The Redis servers (`RedisConnect.server`) and the names of their sources. Raises BadQuery when there is none."""
    redis = {name: found.connect for name, found in settings.sources.items() if isinstance(found.connect, RedisConfig)}
    servers: dict[str, list[str]] = {}
    for name, connect in redis.items():
        if source in (None, name):
            servers.setdefault(connect.server, []).append(name)
    if not servers:
        raise BadQuery(f"--source: {source} is no Redis source; allowed: {', '.join(redis) or 'none is configured'}")
    return servers
