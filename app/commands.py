"""What each command of the command line does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from app import backup
from app.auth import new_key
from app.catalog import Catalogue, load_folder
from app.config import Settings, read_settings, settings_from
from app.contracts.grammar import instant_ms
from app.dashboard_check import check_folder
from app.demo import DemoOptions, running_demo
from app.errors import BadQuery
from app.haproxy import reconnect
from app.main import build_sync, check_sources, create_app, now_ms
from app.shedding import protocol
from app.sources.redis import RedisConfig
from app.sync import SyncCall
from app.telemetry import Telemetry, set_up_logging

_log = logging.getLogger("bridge")
_SWITCH_S = 0.0005
#: where the repository has them, seen from its root
DASHBOARDS = Path("provisioning/grafana/dashboards")


def serve(config: Path | None) -> int:
    """Run the bridge until it is told to stop."""
    settings = read_settings(config)
    refuse_taken_ports(settings)
    set_up_logging(settings.log_level, settings.log_style)
    server = build_server(settings)
    # What is there now stays: the collector need not look at it again and again, 50 ms each time.
    gc.collect()
    gc.freeze()
    _stop_in_good_order()
    server.run()
    gc.unfreeze()  # else what DuckDB would clear away at the end is reported as leaked
    return 0 if server.started else 1


def refuse_taken_ports(settings: Settings) -> None:
    """Say so before anything is begun. Raises BadQuery."""
    for key, host, port in (
        ("http", settings.http.host, settings.http.port),
        ("agent", settings.agent.host, settings.agent.port),
    ):
        _refuse_taken_port(f"{key}.port", port or 0, host)


def _stop_in_good_order() -> None:
    """uvicorn raises the signal that stopped it once more when it is done; a stop that went well is no death by a signal."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


class LameDuckServer(uvicorn.Server):
    """A server that serves on for a while after it was told to stop, not ready any more: the load balancer turns away first.

    The second signal stops it at once.
    """

    def __init__(self, config: uvicorn.Config, lame_duck_s: float, begin: Callable[[], None]) -> None:
        super().__init__(config)
        self._lame_duck_s = lame_duck_s
        self._begin = begin
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came in."""
        loop, self._loop = self._loop, None
        if loop is None or not self._lame_duck_s:
            super().handle_exit(sig, frame)
            return
        self._begin()
        loop.call_soon_threadsafe(loop.call_later, self._lame_duck_s, super().handle_exit, sig, frame)


def build_server(settings: Settings) -> LameDuckServer:
    """The HTTP server of these settings; `handle_exit` stops it in good order, from any thread."""
    # A DuckDB thread that builds its columns must not keep the event loop waiting for Python's usual 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    http = settings.http
    app = create_app(settings)

    def begin() -> None:
        app.state.operations.draining = True
        _log.info("told to stop: not ready any more, stopping in %gs", http.lame_duck_s)

    return LameDuckServer(
        uvicorn.Config(
            app,
            host=http.host,
            port=http.port,
            timeout_keep_alive=http.keep_alive_s,
            timeout_graceful_shutdown=http.graceful_stop_s,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            http=protocol(app.state.admission, app.state.hot, app.state.keys),
        ),
        http.lame_duck_s,
        begin,
    )


def demo(arguments: argparse.Namespace) -> int:
    """Run the bridge with embedded stores and a simulated feed (or, without the feed, on the user's own stores)."""
    if arguments.no_feed:
        return serve(arguments.config)
    if not 1 <= arguments.scale <= 100:
        raise BadQuery(f"--scale: {arguments.scale} is not allowed; allowed: 1 to 100")
    _refuse_taken_port("--port", arguments.port)
    set_up_logging("warning", "text")
    options = DemoOptions(folder=arguments.folder, seed=arguments.seed, instances=arguments.scale, say=_say)
    return asyncio.run(_demo(options, arguments.port))


def _refuse_taken_port(key: str, port: int, host: str = "127.0.0.1") -> None:
    """Say so before anything is begun. An address that is not this host's is left to the server to refuse."""
    reached = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else host  # noqa: S104  compared, not bound
    with socket.socket(socket.AF_INET6 if ":" in reached else socket.AF_INET) as probe:
        probe.settimeout(1)
        taken = False
        with contextlib.suppress(OSError):
            taken = bool(port) and probe.connect_ex((reached, port)) == 0
        if taken:
            raise BadQuery(f"{key}: {port} is taken by another program; name a free one, for example {port + 1}")


async def _demo(options: DemoOptions, port: int) -> int:
    async with running_demo(options) as running:
        values = {"http": {"port": port, "lame_duck_s": 0}, "agent": {"port": None}, "sources": running.sources}
        server = build_server(settings_from(values, "demo"))
        _stop_in_good_order()  # the stores have to be ended too
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():  # noqa: ASYNC110  uvicorn offers a flag, no event
            await asyncio.sleep(0.02)
        if not serving.done():
            _say(*running.facts, *_welcome(port))
        await asyncio.wait((serving, running.feed), return_when=asyncio.FIRST_COMPLETED)
        if running.feed.done() and not serving.done():
            _log.error("the simulated feed has died; stopping", exc_info=running.feed.exception())
            server.should_exit = True
        await serving
    return 0 if server.started else 1


def _welcome(port: int) -> tuple[str, ...]:
    url = f"http://127.0.0.1:{port}"
    return (
        "",
        f"The bridge answers at {url}. Try, in another terminal:",
        "",
        f"  curl '{url}/v1/rows?metric=open_trades&from=now-1h&step=60s&by=account'",
        f"  curl '{url}/v1/rows?metric=equity,balance&from=now-5m&format=csv'",
        f"  curl '{url}/v1/rows?metric=slippage&from=now-24h&step=1h&by=broker&where=symbol=EURUSD'",
        f"  curl '{url}/health/sources'",
        "",
        "Grafana: add a data source of type JSON (simpod-json-datasource) with URL",
        f"  {url}/json",
        "or of type Infinity with base URL",
        f"  {url}",
        "and take a query URL of /v1/rows (parser backend, root selector rows). Stop with Ctrl-C.",
    )


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def check(config: Path | None, catalog: Path | None, dashboards: Path | None, connect: bool) -> int:
    """Check configuration, catalogue and dashboards offline; with `connect` also ask each source."""
    settings = read_settings(config)
    catalogue = load_folder(catalog or settings.catalog_folder, settings.kinds)
    _say(
        f"configuration: ok, {len(settings.sources)} sources",
        f"catalogue: ok, {len(catalogue.metrics)} metrics, {len(catalogue.events)} events, {len(catalogue.labels)} labels",
        _dashboards(dashboards, catalogue, shipped=catalog is None and settings.catalog is None),
        f"time limits: ok, {_ladder(settings)}",
        f"backend sync: {settings.sync.url}"
        if settings.sync.url
        else "backend sync: off (no sync.url): nobody is told of an outage",
        f"shared answers: {_tier(settings)}",
        *backup.line(settings.backups),
        f"state folder: {settings.state or 'none: nothing is kept over a restart'}",
    )
    if not connect:
        return 0
    health = asyncio.run(check_sources(settings))
    for name, facts in health.items():
        _say(
            f"{name}: {facts['answer']} ({facts['latency_ms']} ms)"
            if facts["up"]
            else f"{name}: DOWN: {facts['error'].removeprefix(f'{name}: ')}"
        )
    return 0 if all(facts["up"] for facts in health.values()) else 1


def _dashboards(folder: Path | None, catalogue: Catalogue, shipped: bool) -> str:
    if folder is None and not DASHBOARDS.is_dir():
        return f"dashboards: not checked, there is no {DASHBOARDS} here (--dashboards FOLDER)"
    if folder is None and not shipped:
        return f"dashboards: not checked, those of {DASHBOARDS} are for the catalogue that is shipped (--dashboards FOLDER)"
    found = check_folder(folder or DASHBOARDS, catalogue)
    return f"dashboards: ok, {found.dashboards} with {found.targets} questions to the bridge"


def _ladder(settings: Settings) -> str:
    totals = [source.policy.total_timeout_s for source in settings.sources.values()]
    return f"source {max(totals, default=0):g}s < request {settings.request.budget_s:g}s; set Grafana's and HAProxy's above that"


def _tier(settings: Settings) -> str:
    tier = settings.tier
    return f"redis {tier.host}:{tier.port}" if tier.host else "off (no tier.host): each replica asks for itself"


def sync(config: Path | None, source: str | None, from_: str, to: str) -> int:
    """Tell the backend by hand to fill Redis again; one call for each server."""
    settings = read_settings(config)
    servers: dict[str, list[str]] = {}
    for name, found in settings.sources.items():
        if isinstance(found.connect, RedisConfig) and source in (None, name):
            servers.setdefault(f"{found.connect.host}:{found.connect.port}", []).append(name)
    if not servers:
        redis = [name for name, found in settings.sources.items() if isinstance(found.connect, RedisConfig)]
        raise BadQuery(f"--source: {source} is no Redis source; allowed: {', '.join(redis) or 'none is configured'}")
    moment_ms = now_ms()
    begin_ms, end_ms = (instant_ms(text, name, moment_ms, moment_ms) for text, name in ((from_, "--from"), (to, "--to")))
    backend = build_sync(settings, Telemetry())
    for server, names in servers.items():
        call = SyncCall("manual", server, tuple(sorted(names)), begin_ms, end_ms, None, None, None, None, None)
        status = asyncio.run(backend.deliver_now(call))
        _say(f"{server} ({', '.join(names)}): the backend answered {status}; idempotency key {call.idempotency_key}")
    return 0


def haproxy(address: str, backend: str, servers: list[str]) -> int:
    """Make HAProxy connect anew to replicas, one after the other."""
    for server in servers:
        _say(*asyncio.run(reconnect(address, backend, server)))
    return 0


def key(name: str) -> int:
    """Make a key: the key itself to stdout, once, and what the configuration gets."""
    made, digest = new_key()
    _say(
        made,
        "",
        "This is the key; it is shown this once. Into the configuration goes its hash:",
        f"  auth: {{keys: {{{name}: {{sha256: {digest}}}}}}}",
        "or into the environment:",
        f"  BRIDGE_AUTH__KEYS__{name.upper()}__SHA256={digest}",
        "Requests send it as:",
        "  Authorization: Bearer <key>",
    )
    return 0
