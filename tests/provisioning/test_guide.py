"""The guide to installation and operation: every command and alert that it names is there, and every alert is in it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable

import pytest
import yaml

from app.__main__ import parser as bridge_parser
from tests.provisioning.agreements import ROOT
from tests.provisioning.readers import presets
from tests.provisioning.test_grafana import unknown_variables as unknown_grafana_variables
from winsvc.__main__ import parser as winsvc_parser

GUIDE = tuple(ROOT / "docs" / name for name in ("install.md", "install-windows.md", "operate.md"))


def text() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in GUIDE)


def commands(markdown: str, program: str) -> list[list[str]]:
    """The arguments of every call of a program in the guide's code, up to what the shell does with its answer."""
    code = "\n".join(_code(markdown))
    calls = re.findall(rf"(?:^|[\s/(]){program} +([^;|&\n)#]+)", code, re.MULTILINE)
    return [shlex.split(call.replace("\\", "/")) for call in calls]


def _code(markdown: str) -> list[str]:
    blocks = re.findall(r"^ *```\w+\n(.*?)^ *```", markdown, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^ *```\w+\n.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return [*blocks, *(" ".join(one.split()) for one in re.findall(r"`([^`]+)`", rest))]


def rules() -> Iterable[tuple[str, str]]:
    """Every alert's name, and where it is."""
    for file in sorted((ROOT / "provisioning" / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            yield from ((rule["alert"], file.name) for rule in group["rules"] if "alert" in rule)
    for file in sorted((ROOT / "provisioning" / "grafana" / "alerting").glob("*rules*.yaml")):
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            yield from ((re.split(r": | \(", rule["title"])[0], file.name) for rule in group["rules"])


def unknown(names: Iterable[str], markdown: str) -> list[str]:
    """The alerts of which the guide does not say what to do."""
    what_to_do = markdown.partition("\n## What to do when\n")[2].partition("\n## ")[0]
    return [name for name in names if f"`{name}`" not in what_to_do]


@pytest.mark.parametrize(("program", "least"), [("bridge", 15), ("winsvc", 6)])
def test_every_command_of_ours_is_understood(program: str, least: int) -> None:
    parse = bridge_parser().parse_args if program == "bridge" else winsvc_parser().parse_args
    called = commands(
        text(), r"(?:bin/bridge|bridge(?= (?:backup|restore|key|check|sync|snapshots)))" if program == "bridge" else "-m winsvc"
    )
    asked = [call for call in called if "--help" not in call and "--version" not in call]
    assert len(asked) >= least
    for call in asked:
        # `debug run ...` is `run ...` at a console: winsvc hands the rest on
        parse(call[1:] if call[0] == "debug" else call)


def test_a_command_that_is_not_understood_is_found() -> None:
    (call,) = commands("```sh\n(x; /opt/bridge/.venv/bin/bridge backup all --kep 3)\n```", "bin/bridge")
    with pytest.raises(SystemExit):
        bridge_parser().parse_args(call)


def test_every_make_target_of_the_guide_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {call[0] for call in commands(text(), "make")} <= targets


def test_the_guide_says_what_to_do_at_every_alert() -> None:
    names = dict(rules())
    assert len(names) > 30
    assert unknown(names, text()) == []
    assert unknown(["BridgeDown", "NoSuchAlert"], text()) == ["NoSuchAlert"]


def test_grafana_gets_every_variable_that_its_files_read() -> None:
    """A variable that is not set is an empty address, and nobody says so."""
    folder = ROOT / "provisioning" / "grafana"
    files = [file for kind in ("datasources", "alerting", "dashboards") for file in (folder / kind).glob("*.yaml")]
    lines = [re.sub(r"#.*", "", line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", "\n".join(lines)))
    step = text().partition("\n### 9. Grafana\n")[2].partition("\n### ")[0]
    assert {"BRIDGE_URL", "BRIDGE_KEY", "PROMETHEUS_URL"} <= read
    assert read <= set(re.findall(r"^([A-Z_]+)=", step, re.MULTILINE))


def known_variables() -> set[str]:
    """Every variable of the bridge, of HAProxy's file and of make_secrets.py; NAME stands for a name that a site chooses."""
    bridge = re.findall(r"\bBRIDGE_[A-Z0-9_]+", (ROOT / "docs" / "settings.md").read_text(encoding="utf-8"))
    balancer = presets((ROOT / "provisioning" / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8"))
    keys = {f"BRIDGE_KEY_{name}{kind}" for name in ("GRAFANA", "PROMETHEUS", "OPERATOR") for kind in ("", "_SHA256")}
    return {*bridge, *balancer, *keys, "BRIDGE_URL", "BRIDGE_KEY", "BRIDGE_CONFIG"}


def unknown_variables(markdown: str) -> set[str]:
    """Variables of the bridge and of HAProxy that nobody reads."""
    named = set(re.findall(r"\b(?:BRIDGE|LB)_[A-Z0-9_]+[A-Z0-9]\b", markdown))
    return {
        name
        for name in named
        if re.sub(r"^BRIDGE_(SOURCES|AUTH__KEYS)__[A-Z]+", r"BRIDGE_\1__NAME", name) not in known_variables()
    }


def test_every_variable_that_the_guide_sets_is_one_that_somebody_reads() -> None:
    assert unknown_variables(text()) == set()
    assert unknown_grafana_variables(text().replace("_...", "...")) - {"GF_DATABASE", "GF_UNIFIED_ALERTING_HA"} == set()
    assert unknown_variables("`BRIDGE_HTTP__HOTS`, `LB_GRAFANA_3`, `BRIDGE_SOURCES__RTS__CONNECT__HOST`") == {
        "BRIDGE_HTTP__HOTS",
        "LB_GRAFANA_3",
    }


def test_the_first_steps_proof_fails_where_nothing_was_installed() -> None:
    step = text().partition("\n### 1. Packages and the bridge\n")[2].partition("\n### ")[0]
    proof = shlex.split(_code(step)[0].strip().splitlines()[-1], comments=True)
    assert proof[0] == ".venv/bin/bridge"

    def run(*interpreter: str) -> int:
        command = [sys.executable, *interpreter, "-m", "app", *proof[1:]]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode

    assert run() == 0
    assert run("-S") != 0  # as before anything was installed


def test_the_provisioning_folder_leads_to_the_guide() -> None:
    assert "](../docs/install.md)" in (ROOT / "provisioning" / "README.md").read_text(encoding="utf-8")


def test_every_port_of_the_guides_table_is_one_that_is_agreed_on() -> None:
    from tests.provisioning.test_agreements import LOOPBACK  # the one list of ports

    table = text().partition("\n## Ports and paths\n")[2].partition("\n| path |")[0]
    named = {int(port) for port in re.findall(r"\b(\d{4,5})\b", table)}
    assert named == LOOPBACK.keys()
