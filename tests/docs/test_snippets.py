"""The commands and programs of the manual, run against a bridge over real stores; shown output has the shape of the real one."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from typing import Any

import httpx
import pyarrow.ipc
import pytest

from tests.docs.pages import ADDRESS, ROOT, Fence, commands, fences_of

#: pages whose commands install or operate a site; `tests/provisioning/test_guide.py` looks at those
SITE = ("install.md", "install-windows.md", "operate.md", "CONTRIBUTING.md", "tls", "thanos", "clickhouse")
#: libraries of snippets that are not run, and why; what they ask the bridge for is asked and read all the same
NOT_RUN = {"polars": "it is not among the locked test dependencies; its Arrow answer is read with pyarrow"}

SHELL = [fence for fence in fences_of("sh") if fence.page.name not in SITE and fence.page.parent.name not in SITE]
CURLS = [fence for fence in SHELL if any(line.startswith("curl ") for line in commands(fence))]
OURS = sorted({line for fence in SHELL for line in commands(fence) if line.startswith(".venv/bin/bridge ")})
LIBRARIES = {fence: re.findall(r"^import (pandas|polars|duckdb)\b", fence.text, re.MULTILINE) for fence in fences_of("python")}


def run(command: list[str], text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def same_shape(shown: Any, found: Any) -> bool:
    """Whether two JSON values have the same keys and types; null stands for any value. Errors must be the same."""
    if isinstance(shown, dict) and isinstance(found, dict):
        if "error" in shown and "message" in shown:
            return shown == found
        return shown.keys() == found.keys() and all(same_shape(shown[key], found[key]) for key in shown)
    if isinstance(shown, list) and isinstance(found, list):
        return not shown or (bool(found) and same_shape(shown[0], found[0]))
    numbers = (int, float)
    return (
        shown is None
        or found is None
        or type(shown) is type(found)
        or (isinstance(shown, numbers) and isinstance(found, numbers))
    )


def header_names(text: str) -> set[str]:
    return {line.partition(":")[0].lower() for line in text.splitlines() if ": " in line}


def compare(shown: Fence, found: str) -> None:
    """What a page shows is what the bridge answers, but for the figures."""
    if shown.language == "json":
        assert same_shape(json.loads(shown.text), json.loads(found)), found
    elif shown.language == "csv":
        ours, theirs = list(csv.reader(io.StringIO(shown.text))), list(csv.reader(io.StringIO(found)))
        assert (ours[0], {len(row) for row in ours}, len(theirs) > 1) == (theirs[0], {len(theirs[0])}, True)
    else:
        assert header_names(shown.text) <= header_names(found)


@pytest.mark.parametrize("fence", CURLS, ids=str)
def test_each_curl_of_the_manual_gets_an_answer_of_the_shape_that_is_shown(bridge: str, fence: Fence) -> None:
    for line in commands(fence):
        answer = run(["bash", "-c", f"set -o pipefail; {line.replace(ADDRESS, bridge)}"])
        assert answer.strip(), line
        is_error = '"error":{' in answer
        assert is_error == (fence.output is not None and '"error": {' in fence.output.text), (line, answer)
    if fence.output is not None:
        compare(fence.output, answer)


@pytest.mark.parametrize("command", OURS)
def test_each_command_of_ours_is_one(bridge: str, command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] in ("serve", "sync") or "--connect" in words:
        words = [words[0], "--help"]  # these need stores or a backend of the reader's own
    if words[0] == "query":
        words = ["query", "equity", *words[2:]] if words[1] == "exposure" else words
        words = [word for word in words if word != "symbol" and not (word == "--by" and "symbol" in words)]
        words += ["--url", bridge]
    assert run([sys.executable, "-m", "app", *words]).strip()


def test_each_make_target_of_the_manual_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for fence in SHELL for line in commands(fence) for word in re.findall(r"^make ([a-z-]+)", line)}
    assert {"demo", "docs", "dashboards"} <= named <= targets


def test_every_snippet_is_for_a_library_that_is_run_or_excused() -> None:
    named = {library for found in LIBRARIES.values() for library in found}
    assert named == {"pandas", "duckdb", *NOT_RUN}


@pytest.mark.parametrize("fence", [fence for fence, found in LIBRARIES.items() if not set(found) & NOT_RUN.keys()], ids=str)
def test_each_python_program_of_the_manual_prints_accounts(bridge: str, fence: Fence) -> None:
    assert "ACC1001" in run([sys.executable, "-"], fence.text.replace(ADDRESS, bridge))


@pytest.mark.parametrize("fence", [fence for fence, found in LIBRARIES.items() if set(found) & NOT_RUN.keys()], ids=str)
def test_what_a_program_asks_for_whose_library_is_not_here_is_an_arrow_stream_with_its_columns(bridge: str, fence: Fence) -> None:
    compile(fence.text, fence.page.name, "exec")
    [url] = re.findall(r'"(http://[^"]+)"', fence.text)
    table = pyarrow.ipc.open_stream(httpx.get(url.replace(ADDRESS, bridge), trust_env=False, timeout=20).content).read_all()
    assert (table.schema.names, str(table.schema.field("time").type)) == (
        ["time", "metric", "account", "value"],
        "timestamp[ms, tz=UTC]",
    )


@pytest.mark.parametrize("fence", fences_of("javascript"), ids=str)
def test_each_javascript_program_of_the_manual_prints_rows(bridge: str, fence: Fence) -> None:
    printed = run(["node", "--input-type=module", "-"], fence.text.replace(ADDRESS, bridge))
    assert re.search(r"^\"A\";status=fresh;.*\n\d{4}-\d\d-\d\dT\S+Z \w+ [\d.]+$", printed, re.MULTILINE), printed


@pytest.mark.parametrize("fence", fences_of("powerquery"), ids=str)
def test_what_excel_asks_for_has_the_columns_that_it_types(bridge: str, fence: Fence) -> None:
    [url] = re.findall(r'Web\.Contents\("([^"]+)"', fence.text)
    columns = re.findall(r'\{"(\w+)", type ', fence.text)
    answer = httpx.get(url.replace(ADDRESS, bridge), trust_env=False, timeout=20)
    assert set(columns) <= set(answer.text.splitlines()[0].split(","))


def test_the_readme_shows_the_true_answer_to_a_misspelt_metric(bridge: str) -> None:
    [shown] = [json.loads(fence.text) for fence in fences_of("json") if fence.page.name == "README.md"]
    found = httpx.get(f"{bridge}/v1/rows?metric=equty", trust_env=False, timeout=20)
    assert (found.status_code, found.json()) == (404, shown)


@pytest.mark.parametrize("route", ["/v1/rows?metric=equity", "/v1/events?name=system_events"])
def test_every_parameter_that_a_route_allows_is_on_the_page(bridge: str, route: str) -> None:
    refused = httpx.get(f"{bridge}{route}&zzzzzzzz=1", trust_env=False, timeout=20).json()["message"]
    allowed = set(refused.partition("; allowed: ")[2].split(", ")) - {"account", "broker", "instance"}
    section = (ROOT / "docs" / "ask.md").read_text(encoding="utf-8").partition("\n## Parameters\n")[2].partition("\n## ")[0]
    assert len(allowed) > 8
    assert [name for name in sorted(allowed) if f"`{name}`" not in section] == []


def test_the_shapes_are_compared() -> None:
    assert same_shape({"a": [{"b": 1}], "c": None}, {"a": [{"b": 2.5}, {"b": 3}], "c": "x"})
    assert not same_shape({"a": [{"b": 1}]}, {"a": [{"b": "1"}]})
    assert not same_shape({"a": 1}, {"a": 1, "b": 2})
    assert os.environ.get("CI") is None or NOT_RUN.keys() == {"polars"}
