"""`bridge demo`: the bridge with embedded stores and a simulated trade feed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from app.cli.output import print_lines
from app.cli.serve import build_server, refuse_taken_port, serve, survive_own_stop_signal
from app.cli.signals import ignore_reloads
from app.config import DEFAULT_URL, settings_from
from app.errors import BadQuery
from app.telemetry import set_up_logging
from demo import MOST_DAYS, MOST_INSTANCES, DemoOptions, running_demo

_log = logging.getLogger("bridge")


def demo(arguments: argparse.Namespace) -> int:
    """Run the bridge with embedded stores and a simulated feed (or, without the feed, on the user's own stores)."""
    if arguments.no_feed:
        return serve(arguments.config)
    for name, most in (("scale", MOST_INSTANCES), ("days", MOST_DAYS)):
        if not 1 <= (given := getattr(arguments, name)) <= most:
            raise BadQuery(f"--{name}: {given} is not allowed; allowed: 1 to {most}")
    refuse_taken_port("--port", arguments.port)
    set_up_logging("warning", "text")
    # A SIGTERM while the stores are being filled must end their servers too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    ignore_reloads()
    options = DemoOptions(arguments.folder, arguments.seed, arguments.scale, arguments.days, print_lines)
    return asyncio.run(_serve_demo(options, arguments.port))


def _interrupt(*_: object) -> None:
    # A shell starts a background job with SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


async def _serve_demo(options: DemoOptions, port: int) -> int:
    async with running_demo(options) as running:
        values = {"http": {"port": port, "lame_duck_s": 0}, "agent": {"port": None}, "sources": running.sources}
        server = build_server(settings_from(values, "demo"))
        survive_own_stop_signal()  # the stores have to be stopped afterwards
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():  # noqa: ASYNC110  uvicorn offers a flag, no event
            await asyncio.sleep(0.02)
        if not serving.done():
            print_lines(*running.facts, *_welcome_lines(port))
        await asyncio.wait((serving, running.feed), return_when=asyncio.FIRST_COMPLETED)
        if running.feed.done() and not serving.done():
            _log.error("the simulated feed has died; stopping", exc_info=running.feed.exception())
            server.should_exit = True
        await serving
    return 0 if server.started else 1


def _welcome_lines(port: int) -> tuple[str, ...]:
    url = f"http://127.0.0.1:{port}"
    return (
        "",
        f"The bridge answers at {url}. Try, in another terminal:",
        "",
        f"  curl '{url}/v1/rows?metric=open_trades&from=now-1h&step=60s&by=account'",
        f"  curl '{url}/v1/rows?metric=equity,balance&from=now-5m&format=csv'",
        f"  curl '{url}/v1/rows?metric=slippage&from=now-24h&step=1h&by=broker&where=symbol=EURUSD'",
        f"  curl '{url}/health/sources'",
        f"  {_command_name()} query equity --from now-1h --by account --format table"
        f"{'' if url == DEFAULT_URL else f' --url {url}'}",
        "",
        "Grafana: add a data source of type JSON (simpod-json-datasource) with URL",
        f"  {url}/json",
        "or of type Infinity with base URL",
        f"  {url}",
        "and the query URL /v1/rows (parser backend, root selector rows). Stop with Ctrl-C.",
    )


def _command_name() -> str:
    """How to call the command line here: `bridge` beside Python if it is installed, else `python -m app`."""
    command = Path(sys.executable).with_name("bridge")
    words = [str(command)] if command.is_file() else [sys.executable, "-m", "app"]
    with contextlib.suppress(ValueError):
        words[0] = str(Path(words[0]).relative_to(Path.cwd()))
    return " ".join(words)
