"""The commands that ask for people at a terminal: a running bridge for a metric, the catalogue for its metrics."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import httpx
from rich.console import Console

from app import terminal
from app.catalog import load_folder
from app.config import asking_key, read_settings
from app.errors import BridgeError, SourceUnavailable


def metrics(config: Path | None) -> int:
    """List the catalogue."""
    settings = read_settings(config)
    catalogue = load_folder(settings.catalog_folder, settings.kinds)
    terminal.print_metrics(catalogue.metrics.values(), Console())
    return 0


def query(arguments: argparse.Namespace) -> int:
    """Ask a running bridge and print the answer."""
    asked = {
        "metric": arguments.metric,
        "from": arguments.from_,
        "to": arguments.to,
        "step": arguments.step,
        "by": arguments.by,
        "where": arguments.where,
        "format": "json" if arguments.format == "table" else arguments.format,
    }
    try:
        key = asking_key()
        with httpx.Client(trust_env=False, timeout=30, headers={"Authorization": f"Bearer {key}"} if key else {}) as client:
            answer = client.get(f"{arguments.url.rstrip('/')}/v1/rows", params=asked)
    except httpx.HTTPError as problem:
        raise SourceUnavailable(
            arguments.url, f"no bridge answers here ({problem}); start one or name it with --url"
        ) from problem
    if answer.is_error:
        raise BridgeError(_message(answer))
    if arguments.format == "table":
        terminal.print_rows(answer.json(), Console())
    else:
        sys.stdout.write(answer.text.rstrip("\n") + "\n")
    return 0


def _message(answer: httpx.Response) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(answer.json()["message"])
    return f"status {answer.status_code}"
