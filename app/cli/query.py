"""`bridge query`: ask a running bridge for a metric."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from typing import Any

import httpx
from rich.console import Console

from app.cli.tables import print_rows
from app.config import bridge_url, client_key
from app.errors import BadQuery, BridgeError, SourceUnavailable
from app.model import Ranking

_NOTICE = re.compile(r'"([^"]*)";severity=(\w+)')
_STATUS = re.compile(r";status=(\w+)")


def query(arguments: argparse.Namespace) -> int:
    """Ask a running bridge and print the response."""
    asked = {
        "metric": arguments.metric,
        "from": arguments.from_,
        "to": arguments.to,
        "step": arguments.step,
        "by": arguments.by,
        "where": arguments.where,
        "sort": arguments.sort,
        "top": arguments.top,
        "top_by": arguments.top_by,
        "format": "json" if arguments.format == "table" else arguments.format,
    }
    url, setting = bridge_url(arguments.url)
    response = _get_rows(url, setting, {name: value for name, value in asked.items() if value is not None})
    if arguments.format == "table":
        try:
            print_rows(response.json(), Console(), ranking_of(arguments))
        except (ValueError, KeyError, TypeError) as problem:
            raise SourceUnavailable(
                url, f"what answers here ({setting}) is no bridge; name one with --url or BRIDGE_URL"
            ) from problem
    else:
        sys.stdout.write(response.text.rstrip("\n") + "\n")
        sys.stdout.flush()
        sys.stderr.writelines(f"{line}\n" for line in _notice_lines(response))
    return 0


def ranking_of(arguments: argparse.Namespace) -> Ranking:
    """The order of the series that was asked for."""
    return Ranking(arguments.sort, arguments.top, arguments.top_by or "last")


def _get_rows(url: str, setting: str, params: dict[str, Any]) -> httpx.Response:
    """GET /v1/rows. `setting` names where the URL comes from, for the error messages."""
    key = client_key()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(trust_env=False, timeout=30, headers=headers) as client:
            response = client.get(f"{url.rstrip('/')}/v1/rows", params=params)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as problem:
        raise BadQuery(f"{setting}: {url} is no address of a bridge; allowed: http://HOST:PORT or https://HOST:PORT") from problem
    except httpx.HTTPError as problem:
        why = str(problem) or type(problem).__name__
        raise SourceUnavailable(
            url, f"no bridge answers here ({setting}): {why}; start one or name it with --url or BRIDGE_URL"
        ) from problem
    if not response.is_success:
        raise BridgeError(_error_message(response))
    return response


def _notice_lines(response: httpx.Response) -> list[str]:
    """The notices and the status, for stderr: CSV and NDJSON cannot carry them, and stdout may go into a file."""
    lines = [f"{severity}: {text}" for text, severity in _NOTICE.findall(response.headers.get("bridge-notice", ""))]
    if set(_STATUS.findall(response.headers.get("bridge-result", ""))) - {"fresh"}:
        lines.append(f"not everything is fresh: {response.headers['bridge-result']}")
    return lines


def _error_message(response: httpx.Response) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(response.json()["message"])
    return f"{response.url.copy_with(query=None)}: status {response.status_code}"
