"""The command line: argument parsing only."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from app import __version__
from app.errors import BridgeError, ConfigError

_URL = "http://127.0.0.1:8080"
#: `app.backup.KINDS`, said again so that the bare command line is there at once
_KINDS = ("grafana", "clickhouse", "prometheus", "duckdb", "config")
#: `app.commands.DASHBOARDS`, likewise
_DASHBOARDS = "provisioning/grafana/dashboards"


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser(
        prog="bridge", description="One Grafana data source over Redis, ClickHouse, DuckDB and Prometheus."
    )
    top.add_argument("--version", action="version", version=f"bridge {__version__}")
    commands_of = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands_of.add_parser("serve", help="run the bridge on the stores of a configuration file")
    _config_option(serve)
    serve.set_defaults(run=_run("commands", "serve", "config"))

    demo = commands_of.add_parser("demo", help="run the bridge with embedded stores and a simulated trade feed")
    demo.add_argument("--folder", type=Path, default=Path("demo-data"), help="where the demo's stores live; wiped at each start")
    demo.add_argument("--seed", type=int, default=7, help="the same seed gives the same market")
    demo.add_argument("--scale", type=int, default=12, metavar="INSTANCES", help="MT5 instances, 1 to 100")
    demo.add_argument("--port", type=int, default=8080)
    demo.add_argument("--no-feed", action="store_true", help="no simulated feed: run on the stores of --config")
    _config_option(demo)
    demo.set_defaults(run=_run("commands", "demo"))

    check = commands_of.add_parser("check", help="check configuration, catalogue and dashboards; every mistake is listed")
    _config_option(check)
    check.add_argument("--catalog", type=Path, help="check this folder of catalogue files in place of the configured one")
    check.add_argument(
        "--dashboards", type=Path, metavar="FOLDER", help=f"Grafana's dashboards (default {_DASHBOARDS}, where there is one)"
    )
    check.add_argument("--connect", action="store_true", help="also ask each source")
    check.set_defaults(run=_run("commands", "check", "config", "catalog", "dashboards", "connect"))

    query = commands_of.add_parser("query", help="ask a running bridge for a metric")
    query.add_argument("metric")
    query.add_argument("--from", dest="from_", default="now-1h", metavar="TIME", help="now-6h, ISO 8601, epoch s or ms")
    query.add_argument("--to", default="now", metavar="TIME")
    query.add_argument("--step", default="auto", help="30s, 5m, 1h or auto")
    query.add_argument("--by", default="", help="labels to keep, separated by commas")
    query.add_argument(
        "--where", action="append", default=[], metavar="LABEL=VALUE", help="may be repeated; = != =~ !~ < <= > >="
    )
    query.add_argument("--format", choices=("table", "json", "csv", "ndjson"), default="table")
    query.add_argument("--url", default=_URL, help=f"the bridge to ask (default {_URL})")
    query.set_defaults(run=_run("questions", "query"))

    sync = commands_of.add_parser("sync", help="tell the backend by hand to fill Redis again")
    sync.add_argument("--source", help="one of the Redis sources (default: every Redis server, one call each)")
    sync.add_argument(
        "--from", dest="from_", default="now-15m", metavar="TIME", help="begin of the window to fill (default now-15m)"
    )
    sync.add_argument("--to", default="now", metavar="TIME")
    _config_option(sync)
    sync.set_defaults(run=_run("commands", "sync", "config", "source", "from_", "to"))

    save = commands_of.add_parser("backup", help="save, verify or list backups of what cannot be made anew")
    save.add_argument(
        "what", choices=(*_KINDS, "all", "verify", "list"), metavar="WHAT", help=f"{', '.join(_KINDS)}, all, verify, list"
    )
    save.add_argument(
        "backup", nargs="?", metavar="BACKUP", help="of verify: a backup's name or a kind (default: the newest of each)"
    )
    save.add_argument("--keep", type=int, metavar="N", help="remove all but the newest N of the kind when the new one is there")
    save.add_argument("--full", action="store_true", help="clickhouse: everything, though a younger full backup is there")
    save.add_argument("--to", type=Path, metavar="FOLDER", help="the folder of backups (default: backup.folder)")
    _config_option(save)
    save.set_defaults(run=_run("saving", "save"))

    back = commands_of.add_parser("restore", help="put a backup in place; the old files are kept beside it")
    back.add_argument("kind", choices=_KINDS, metavar="KIND", help=", ".join(_KINDS))
    back.add_argument("backup", metavar="BACKUP", help="a backup's name or folder, or `latest`")
    back.add_argument("--to", metavar="PLACE", help="another file, folder or database than the configured one")
    back.add_argument("--force", action="store_true", help="replace what is there")
    _config_option(back)
    back.set_defaults(run=_run("saving", "restore"))

    balancer = commands_of.add_parser("haproxy", help="drive the HAProxy in front of the replicas")
    actions = balancer.add_subparsers(dest="action", required=True, metavar="ACTION")
    again = actions.add_parser("reconnect", help="drop HAProxy's connections to replicas; new ones are made at once")
    again.add_argument("servers", nargs="+", metavar="SERVER", help="a server's name in the backend, for example b1")
    again.add_argument("--socket", required=True, help="HAProxy's Runtime API: a unix socket's path, or 127.0.0.1:port")
    again.add_argument("--backend", default="be_bridge")
    again.set_defaults(run=_run("commands", "haproxy", "socket", "backend", "servers"))

    key = commands_of.add_parser("key", help="make a key for who may ask (auth.keys)")
    key.add_argument("name", help="whom it is for, for example grafana")
    key.set_defaults(run=_run("commands", "key", "name"))

    metrics = commands_of.add_parser("metrics", help="list the catalogue")
    _config_option(metrics)
    metrics.set_defaults(run=_run("questions", "metrics", "config"))
    return top


def _run(module: str, command: str, *options: str) -> Callable[[argparse.Namespace], Any]:
    """The command with these options, or with all of them; its module is imported when it is run."""

    def run(arguments: argparse.Namespace) -> Any:
        # What is made while modules are imported stays: looking through it for garbage is a tenth of the time to start.
        gc.disable()
        found = getattr(import_module(f"app.{module}"), command)
        gc.enable()
        return found(*(getattr(arguments, option) for option in options) if options else (arguments,))

    return run


def _config_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, help="the YAML file (default: the one that BRIDGE_CONFIG names, else provisioning/bridge.yaml)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0 when it went well, 1 when it failed, 2 when the configuration or the command line is wrong."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    except BridgeError as failure:
        print(f"bridge: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
