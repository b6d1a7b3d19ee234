"""The PowerShell scripts: read by PowerShell's grammar, and compared with what they call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

from winsvc.__main__ import parser

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "winsvc").glob("*.ps1"))
_AUTOMATIC = {"args", "erroractionpreference", "lastexitcode", "psscriptroot", "pscmdlet", "_", "true", "false", "null"}


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def tree_of(script: str) -> Node:
    return Parser(Language(tree_sitter_powershell.language())).parse(script.encode()).root_node


def faults(script: str) -> list[str]:
    """Where the grammar does not accept the script."""
    wrong = [node for node in nodes(tree_of(script)) if node.is_error or node.is_missing]
    return [
        f"line {node.start_point[0] + 1}: {'missing ' + node.type if node.is_missing else 'not PowerShell'}" for node in wrong
    ]


def undefined(script: str) -> set[str]:
    """The variables that are used and never given a value: under strict mode the script stops there."""
    tree = tree_of(script)
    named = {text(node).lstrip("$@{").rstrip("}").lower() for node in nodes(tree) if node.type == "variable"}
    given = {text(node).split("=")[0].strip().lower() for node in nodes(tree) if node.type == "assignment_expression"}
    given |= {text(name).lower() for node in nodes(tree) if node.type == "script_parameter" for name in node.children[-1:]}
    given |= set(re.findall(r"foreach \((\$\w+) in", script.lower())) | set(re.findall(r"\](\$\w+)", script.lower()))
    return {name for name in named if f"${name}" not in given and not name.startswith("env:") and name not in _AUTOMATIC}


def text(node: Node) -> str:
    assert node.text is not None
    return node.text.decode()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_scripts_are_powershell_and_use_no_variable_that_nobody_sets(script: Path) -> None:
    content = script.read_text(encoding="utf-8")
    assert faults(content) == []
    assert undefined(content) == set()
    assert content.isascii(), "Windows PowerShell 5.1 reads a file without a mark in the machine's own code page"


def test_the_check_of_the_scripts_finds_a_missing_brace_and_a_misspelt_variable() -> None:
    content = (ROOT / "winsvc" / "install.ps1").read_text(encoding="utf-8")
    assert faults(content.replace("        return 'update'\n    }\n", "        return 'update'\n")) != []
    assert undefined(content.replace("'--data' $Data '--remote'", "'--data' $Dta '--remote'")) == {"dta"}


def winsvc_calls() -> list[list[str]]:
    """What the scripts tell `python -m winsvc`, a word in the place of each variable."""
    said = "\n".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    calls = re.findall(r"(?:Invoke-Winsvc|-m winsvc) ([a-z$'][^|\n]*)", said)
    return [[re.sub(r"^\$verb$", "install", word).strip("'") for word in call.split()] for call in calls]


def test_every_call_of_the_scripts_is_one_that_winsvc_understands() -> None:
    calls = winsvc_calls()
    assert {call[0] for call in calls} == {"check", "install", "remove", "start", "status", "stop"}
    for call in calls:
        parser().parse_args(call)
    with pytest.raises(SystemExit):
        parser().parse_args([*calls[0], "--no-such-option"])


def test_every_file_that_the_scripts_take_from_the_repository_is_there_or_made_by_them() -> None:
    said = "\n".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    named = {path.replace("\\", "/") for path in re.findall(r"Join-Path \$Root '([^']+)'", said)}
    taken = {path for path in named if not path.startswith(".venv")}
    files = {"provisioning/bridge.yaml", "provisioning/grafana/grafana.ini", "requirements/windows.lock"}
    assert taken == {*files, "provisioning/grafana"}
    assert {path for path in files if not (ROOT / path).is_file()} == set()


def test_grafana_on_windows_is_told_where_the_dashboards_are() -> None:
    provider = (ROOT / "provisioning" / "grafana" / "dashboards" / "provider.yaml").read_text(encoding="utf-8")
    [variable] = set(re.findall(r"path: \$(\w+)", provider))
    assert f'"{variable}=$provisioning"' in SCRIPTS[0].read_text(encoding="utf-8")


def test_the_windows_lock_has_pywin32_and_the_versions_of_the_lock_that_linux_runs() -> None:
    windows, linux = (dict(_pins(ROOT / "requirements" / name)) for name in ("windows.lock", "run.lock"))
    assert windows.keys() - linux.keys() == {"pywin32"}
    assert {name for name in linux if name not in windows} == {"uvloop"}
    assert {name: pins for name, pins in windows.items() if name in linux and not set(pins) <= set(linux[name])} == {}


def _pins(lock: Path) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==([^ ;]+)", lock.read_text(), re.M):
        found.setdefault(name, []).append(version)
    yield from found.items()
