"""The command line: argument parsing only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from app import __version__, commands
from app.errors import BridgeError, ConfigError

_URL = "http://127.0.0.1:8080"


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser(
        prog="bridge", description="One Grafana data source over Redis, ClickHouse, DuckDB and Prometheus."
    )
    top.add_argument("--version", action="version", version=f"bridge {__version__}")
    commands_of = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands_of.add_parser("serve", help="run the bridge on the stores of a configuration file")
    _config_option(serve)
    serve.set_defaults(run=lambda args: commands.serve(args.config))

    demo = commands_of.add_parser("demo", help="run the bridge with embedded stores and a simulated trade feed")
    demo.add_argument("--folder", type=Path, default=Path("demo-data"), help="where the demo's stores live; wiped at each start")
    demo.add_argument("--seed", type=int, default=7, help="the same seed gives the same market")
    demo.add_argument("--scale", type=int, default=12, metavar="INSTANCES", help="MT5 instances, 1 to 100")
    demo.add_argument("--port", type=int, default=8080)
    demo.add_argument("--no-feed", action="store_true", help="no simulated feed: run on the stores of --config")
    _config_option(demo)
    demo.set_defaults(run=commands.demo)

    check = commands_of.add_parser("check", help="check configuration, catalogue and dashboards; every mistake is listed")
    _config_option(check)
    check.add_argument("--catalog", type=Path, help="check this folder of catalogue files in place of the configured one")
    check.add_argument("--dashboards", type=Path, metavar="FOLDER", help=f"Grafana's dashboards (default {commands.DASHBOARDS})")
    check.add_argument("--connect", action="store_true", help="also ask each source")
    check.set_defaults(run=lambda args: commands.check(args.config, args.catalog, args.dashboards, args.connect))

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
    query.set_defaults(run=commands.query)

    sync = commands_of.add_parser("sync", help="tell the backend by hand to fill Redis again")
    sync.add_argument("--source", help="one of the Redis sources (default: every Redis server, one call each)")
    sync.add_argument(
        "--from", dest="from_", default="now-15m", metavar="TIME", help="begin of the window to fill (default now-15m)"
    )
    sync.add_argument("--to", default="now", metavar="TIME")
    _config_option(sync)
    sync.set_defaults(run=lambda args: commands.sync(args.config, args.source, args.from_, args.to))

    balancer = commands_of.add_parser("haproxy", help="drive the HAProxy in front of the replicas")
    actions = balancer.add_subparsers(dest="action", required=True, metavar="ACTION")
    again = actions.add_parser("reconnect", help="drop HAProxy's connections to replicas; new ones are made at once")
    again.add_argument("servers", nargs="+", metavar="SERVER", help="a server's name in the backend, for example b1")
    again.add_argument("--socket", required=True, help="HAProxy's Runtime API: a unix socket's path, or 127.0.0.1:port")
    again.add_argument("--backend", default="be_bridge")
    again.set_defaults(run=lambda args: commands.haproxy(args.socket, args.backend, args.servers))

    key = commands_of.add_parser("key", help="make a key for who may ask (auth.keys)")
    key.add_argument("name", help="whom it is for, for example grafana")
    key.set_defaults(run=lambda args: commands.key(args.name))

    metrics = commands_of.add_parser("metrics", help="list the catalogue")
    _config_option(metrics)
    metrics.set_defaults(run=lambda args: commands.metrics(args.config))
    return top


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
