"""The command line: the table of its commands. What a command does stands in `app/cli/`, in the file of its name."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from app import __version__
from app.errors import BridgeError, ConfigError

# These repeat constants of other modules, which take long to import. A test holds them equal.
#: `app.config.DEFAULT_URL` and the folder of `app.config.DEFAULT_FILE`
_URL = "http://127.0.0.1:8080"
_FOLDER = "provisioning"
#: `app.backup.KINDS`
_KINDS = ("grafana", "clickhouse", "prometheus", "duckdb", "config")
#: `app.check.survey.DASHBOARDS`
_DASHBOARDS = "provisioning/grafana/dashboards"
#: `app.model.SORT_ORDERS` and `app.model.TOP_BY`
_SORT_ORDERS = ("value", "-value", "label")
_TOP_BY = ("last", "max", "min", "sum")


class Option:
    """The arguments of one `add_argument` call."""

    def __init__(self, *flags: str, **how: Any) -> None:
        self.flags, self.how = flags, how


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its options and the function that runs it, or the commands below it."""

    name: str
    help: str
    options: tuple[Option, ...] = ()
    run: Callable[[argparse.Namespace], Any] | None = None
    actions: tuple[Command, ...] = ()


def _run_later(module: str, command: str, *options: str) -> Callable[[argparse.Namespace], Any]:
    """Run `command` of `app.cli.<module>` with these options, or with the whole namespace. The import happens at the run."""

    def run(arguments: argparse.Namespace) -> Any:
        # Objects made by imports live on. Collecting garbage among them would take a tenth of the start.
        gc.disable()
        found = getattr(import_module(f"app.cli.{module}"), command)
        gc.enable()
        return found(*(getattr(arguments, option) for option in options) if options else (arguments,))

    return run


_CONFIG = Option(
    "--config", type=Path, help="the YAML file (default: the one that BRIDGE_CONFIG names, else provisioning/bridge.yaml)"
)
_TO = Option("--to", default="now", metavar="TIME")

COMMANDS = (
    Command(
        "serve",
        "run the bridge on the stores of a configuration file",
        (
            _CONFIG,
            Option("--workers", type=int, metavar="N", help="processes behind the port (default: http.workers, which is 1)"),
        ),
        _run_later("serve", "serve", "config", "workers"),
    ),
    Command(
        "demo",
        "run the bridge with embedded stores and a simulated trade feed",
        (
            Option(
                "--folder",
                type=Path,
                default=Path("demo-data"),
                help="where the demo's stores live: a new or empty folder, or a demo's own; wiped at each start",
            ),
            Option("--seed", type=int, default=7, help="the same seed gives the same market"),
            Option("--scale", type=int, default=12, metavar="INSTANCES", help="MT5 instances of two accounts each, 1 to 500"),
            Option(
                "--days", type=int, default=1, help="of history, 1 to 90; the days before the last one are sampled less often"
            ),
            Option("--port", type=int, default=8080),
            Option("--no-feed", action="store_true", help="no simulated feed: run on the stores of --config"),
            _CONFIG,
        ),
        _run_later("demo", "demo"),
    ),
    Command(
        "check",
        "check configuration, catalogue, dashboards and statements; every mistake is listed",
        (
            _CONFIG,
            Option("--catalog", type=Path, help="check this folder of catalogue files in place of the configured one"),
            Option(
                "--dashboards",
                type=Path,
                metavar="FOLDER",
                help=f"Grafana's dashboards (default {_DASHBOARDS}, where there is one)",
            ),
            Option("--alerts", type=Path, metavar="FOLDER", help="Grafana's alert rules (default: those beside the dashboards)"),
            Option("--connect", action="store_true", help="also ask each source, and let it explain each statement"),
        ),
        _run_later("check", "check", "config", "catalog", "dashboards", "alerts", "connect"),
    ),
    Command(
        "query",
        "ask a running bridge for a metric",
        (
            Option("metric"),
            Option("--from", dest="from_", default="now-1h", metavar="TIME", help="now-6h, ISO 8601, epoch s or ms"),
            _TO,
            Option("--step", default="auto", help="30s, 5m, 1h or auto"),
            Option("--by", default="", help="labels to keep, separated by commas"),
            Option("--where", action="append", default=[], metavar="LABEL=VALUE", help="may be repeated; = != =~ !~ < <= > >="),
            Option("--sort", choices=_SORT_ORDERS, help="the order of the series; write --sort=-value for the highest first"),
            Option(
                "--top", type=int, metavar="N", help="only the first N series of that order (default order: the highest first)"
            ),
            Option("--top-by", choices=_TOP_BY, help="which value of a series is compared (default: last)"),
            Option("--format", choices=("table", "json", "csv", "ndjson"), default="table"),
            Option("--url", help=f"the bridge to ask (default: the one that BRIDGE_URL names, else {_URL})"),
        ),
        _run_later("query", "query"),
    ),
    Command(
        "sync",
        "tell the backend by hand to fill Redis again",
        (
            Option("--source", help="one of the Redis sources (default: every Redis server, one call each)"),
            Option(
                "--from", dest="from_", default="now-15m", metavar="TIME", help="begin of the window to fill (default now-15m)"
            ),
            _TO,
            _CONFIG,
        ),
        _run_later("sync", "sync", "config", "source", "from_", "to"),
    ),
    Command(
        "backup",
        "save, verify or list backups of what cannot be made anew",
        (
            Option(
                "what", choices=(*_KINDS, "all", "verify", "list"), metavar="WHAT", help=f"{', '.join(_KINDS)}, all, verify, list"
            ),
            Option(
                "backup", nargs="?", metavar="BACKUP", help="of verify: a backup's name or a kind (default: the newest of each)"
            ),
            Option("--keep", type=int, metavar="N", help="remove all but the newest N of the kind when the new one is there"),
            Option("--full", action="store_true", help="clickhouse: everything, though a younger full backup is there"),
            Option("--to", type=Path, metavar="FOLDER", help="the folder of backups (default: backup.folder)"),
            _CONFIG,
        ),
        _run_later("backup", "save"),
    ),
    Command(
        "restore",
        "put a backup in place; the old files are kept beside it",
        (
            Option("kind", choices=_KINDS, metavar="KIND", help=", ".join(_KINDS)),
            Option("backup", metavar="BACKUP", help="a backup's name or folder, or `latest`"),
            Option("--to", metavar="PLACE", help="another file, folder or database than the configured one"),
            Option("--force", action="store_true", help="replace what is there"),
            _CONFIG,
        ),
        _run_later("backup", "restore"),
    ),
    Command(
        "snapshots",
        "look after the DuckDB snapshots, for their writer",
        actions=(
            Command(
                "prune",
                "remove old snapshots: all but the newest and what a reader may use",
                (
                    Option("--folder", type=Path, help="the writer's folder (default: the one of the DuckDB source)"),
                    Option("--keep", type=int, default=3, metavar="N", help="how many stay (default 3, at least 2)"),
                    Option("--dry-run", action="store_true", help="only say what would be removed"),
                    _CONFIG,
                ),
                _run_later("snapshots", "prune", "config", "folder", "keep", "dry_run"),
            ),
        ),
    ),
    Command(
        "rollup",
        "publish the newest DuckDB snapshot again, with the roll-ups that long ranges are read from",
        (
            Option("--folder", type=Path, help="the writer's folder (default: the one of the DuckDB source)"),
            Option(
                "--to",
                type=Path,
                metavar="FOLDER",
                help="publish into another folder, which the bridge reads (default: the same)",
            ),
            Option("--anew", action="store_true", help="roll up every hour again, not only those that have changed"),
            _CONFIG,
        ),
        _run_later("rollup", "roll_up", "config", "folder", "to", "anew"),
    ),
    Command(
        "haproxy",
        "drive the HAProxy in front of the replicas",
        actions=(
            Command(
                "reconnect",
                "drop HAProxy's connections to replicas; new ones are made at once",
                (
                    Option("servers", nargs="+", metavar="SERVER", help="a server's name in the backend, for example b1"),
                    Option("--socket", required=True, help="HAProxy's Runtime API: a unix socket's path, or 127.0.0.1:port"),
                    Option("--backend", default="be_bridge"),
                ),
                _run_later("haproxy", "reconnect_servers", "socket", "backend", "servers"),
            ),
        ),
    ),
    Command(
        "key",
        "make a key for who may ask (auth.keys)",
        (Option("name", help="whom it is for, for example grafana"),),
        _run_later("key", "key", "name"),
    ),
    Command(
        "init",
        "write a configuration to begin with",
        (
            Option(
                "folder",
                nargs="?",
                type=Path,
                default=Path(_FOLDER),
                metavar="FOLDER",
                help=f"where to (default {_FOLDER}, where `serve` and `check` look)",
            ),
            Option("--catalog", action="store_true", help="a copy of the catalogue too, to change it"),
        ),
        _run_later("init", "init", "folder", "catalog"),
    ),
    Command("metrics", "list the catalogue", (_CONFIG,), _run_later("metrics", "metrics", "config")),
)


def parser() -> argparse.ArgumentParser:
    """The parser of every command and option."""
    top = argparse.ArgumentParser(
        prog="bridge", description="One Grafana data source over Redis, ClickHouse, DuckDB and Prometheus."
    )
    top.add_argument("--version", action="version", version=f"bridge {__version__}")
    _add_commands(top, "command", COMMANDS)
    return top


def _add_commands(parent: argparse.ArgumentParser, kind: str, commands: Sequence[Command]) -> None:
    subparsers = parent.add_subparsers(dest=kind, required=True, metavar=kind.upper())
    for command in commands:
        made = subparsers.add_parser(command.name, help=command.help)
        for one in command.options:
            made.add_argument(*one.flags, **one.how)
        if command.actions:
            _add_commands(made, "action", command.actions)
        else:
            made.set_defaults(run=command.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 for success, 1 for a failure, 2 for a wrong configuration or command line."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ConfigError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    except BridgeError as failure:
        print(f"bridge: {failure}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 128 + 13  # as if SIGPIPE had ended the program
    except KeyboardInterrupt:
        return 130


def _reader_is_gone() -> bool:
    """Whether the reader of stdout has left (`| head`). If so, discard the rest: Python would complain at exit."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
