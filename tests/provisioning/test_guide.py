"""The operator's guide: every file, command, alert and heading that it or somebody else names is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from app.__main__ import parser as bridge_parser
from tests.provisioning.agreements import ROOT
from winsvc.__main__ import parser as winsvc_parser

GUIDE = ROOT / "provisioning" / "README.md"
#: Folders of the repository whose files the guide speaks of.
OURS = ("provisioning", "scripts", "requirements", "winsvc", "dashboards", "app", "tests")
#: What is made by a command of the guide, so that it is in no checkout.
MADE = ("provisioning/secrets",)


def text() -> str:
    return GUIDE.read_text(encoding="utf-8")


def anchors(markdown: str) -> set[str]:
    """A heading's anchor, as it is made where the guide is read."""
    plain = re.sub(r"^```.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(markdown: str) -> list[str]:
    """The links to headings and files that are not there."""
    links = re.findall(r"\]\(([^)]+)\)", markdown)
    there = anchors(markdown)
    return [link for link in links if (link[1:] not in there if link.startswith("#") else not (GUIDE.parent / link).exists())]


def missing_files(markdown: str) -> list[str]:
    """The repository's files that are named and are not in it."""
    words = re.findall(rf"(?<![\w./\\-])(?:\.[/\\])?((?:{'|'.join(OURS)})[/\\][\w.*/\\-]*\w\*?)", markdown)
    paths = {word.replace("\\", "/") for word in words}
    return sorted(path for path in paths if not path.startswith(MADE) and not any(_found(path)))


def _found(path: str) -> Iterable[Path]:
    # `provisioning/thanos/$unit` and the like end before the variable
    return ROOT.glob(path) if "*" in path else [ROOT / path] if (ROOT / path).exists() else []


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


def test_every_link_leads_somewhere() -> None:
    assert dead_links(text()) == []
    assert dead_links("# A b\n[x](#a-b) [y](#b) [z](tls/README.md) [w](tls/none.md)") == ["#b", "tls/none.md"]


def test_every_file_that_the_guide_names_is_in_the_repository() -> None:
    assert missing_files(text()) == []
    assert missing_files("`scripts/venv.sh` .\\winsvc\\install.ps1 `app/none.py` provisioning/clickhouse/users.d/*.ini") == [
        "app/none.py",
        "provisioning/clickhouse/users.d/*.ini",
    ]


@pytest.mark.parametrize(("program", "least"), [("bridge", 15), ("winsvc", 6)])
def test_every_command_of_ours_is_understood(program: str, least: int) -> None:
    parse = bridge_parser().parse_args if program == "bridge" else winsvc_parser().parse_args
    called = commands(
        text(), r"(?:bin/bridge|bridge(?= (?:backup|restore|key|check|sync)))" if program == "bridge" else "-m winsvc"
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
    named = {call[0] for call in commands(text(), "make")}
    assert named
    assert named <= targets


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


def test_who_points_at_the_guide_points_at_a_heading_that_is_there() -> None:
    files = [file for file in (ROOT / "provisioning").rglob("*") if file.suffix in {".yml", ".yaml", ".json", ".ini"}]
    said = [
        re.findall(r'provisioning/README\.md(?:, \\?"([^"\\]+)|#([\w-]+))', file.read_text(encoding="utf-8")) for file in files
    ]
    wanted = {anchor or next(iter(anchors(f"# {heading}"))) for found in said for heading, anchor in found}
    assert wanted <= anchors(text())


def test_every_port_of_the_guides_table_is_one_that_is_agreed_on() -> None:
    from tests.provisioning.test_agreements import LOOPBACK  # the one list of ports

    table = text().partition("\n## Ports and paths\n")[2].partition("\n| path |")[0]
    named = {int(port) for port in re.findall(r"\b(\d{4,5})\b", table)}
    assert named == LOOPBACK.keys() - {5432}
