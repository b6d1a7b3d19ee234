"""The command line of a running service. It imports nothing heavy, because the service control manager is waiting."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from winsvc.logs import Rotation


def add_service_options(parser: argparse.ArgumentParser, supervises: bool) -> None:
    """The options of `run` (the bridge) or `supervise` (another program)."""
    parser.add_argument("--name", required=True)
    if supervises:
        parser.add_argument("--folder", type=Path, required=True)
        add_patience_options(parser)
        parser.add_argument("program", nargs="+")
    else:
        parser.add_argument("--config", type=Path, required=True)
    add_log_options(parser)


def add_patience_options(parser: argparse.ArgumentParser) -> None:
    """The options for waiting for a program."""
    parser.add_argument(
        "--restart", type=float, default=5.0, help="seconds before the first restart; doubled for each further one"
    )
    parser.add_argument("--grace", type=float, default=20.0, help="seconds from the request to end to the end by force")


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """The options for the size of the log."""
    parser.add_argument("--log-bytes", type=int, default=Rotation().file_bytes, help="of one file of the log")
    parser.add_argument("--log-files", type=int, default=Rotation().files, help="of the log that are kept")


def service_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The parsed command line. `folder` has the configuration; relative paths in it start there."""
    parser = argparse.ArgumentParser(prog="winsvc")
    commands = parser.add_subparsers(dest="command", required=True)
    add_service_options(commands.add_parser("run"), supervises=False)
    add_service_options(commands.add_parser("supervise"), supervises=True)
    arguments = parser.parse_args(argv)
    if arguments.command == "run":
        arguments.folder = arguments.config.parent
    return arguments
