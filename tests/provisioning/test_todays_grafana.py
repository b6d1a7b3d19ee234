"""What Grafana 11.5 to 13 want of the provisioned files: pinned plugins, nothing from the internet, one folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.provisioning.agreements import ROOT
from tests.provisioning.alerting import FOLDER
from tests.provisioning.readers import ini

JSON_PLUGIN, INFINITY = "simpod-json-datasource", "yesoreyeram-infinity-datasource"
#: The apps that Grafana 11.5 to 13.2 install at the start unless they are disabled (pkg/setting/setting_plugins.go).
APPS = {f"grafana-{name}-app" for name in ("lokiexplore", "pyroscope", "exploretraces", "metricsdrilldown", "advisor")}
#: Metrics that a Grafana between 9 and 13.3 no longer has.
LOST = ("grafana_datasource_request",)


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def pins(page: str) -> set[tuple[str, str]]:
    """Each plugin with its version, wherever a page or file installs it."""
    return set(re.findall(rf"({JSON_PLUGIN}|{INFINITY})[@ ](\d+\.\d+\.\d+)", page))


@pytest.mark.parametrize("path", ["docs/install.md", "docs/install-windows.md", "docker-compose.yml", "docs/grafana.md"])
def test_the_plugins_have_one_version_wherever_they_are_installed(path: str) -> None:
    assert pins(text(path)) == {(JSON_PLUGIN, "0.6.5"), (INFINITY, "3.11.1")}
    unpinned = re.findall(rf"plugins install (?:{JSON_PLUGIN}|{INFINITY})(?! \d)", text(path))
    assert unpinned == []


def versions_of(page: str) -> dict[str, list[list[str]]]:
    """The matrix of versions of a page: for each Grafana the versions of the two plugins, so that the wording may differ."""
    lines = re.findall(r"^(?:\| |#   )(?=9\.x|\d\d\.)(.*)$", page, re.MULTILINE)
    cells = [re.split(r" *\| *|  +", line) for line in lines]
    return {grafana: [re.findall(r"\d+\.[\dx]+(?:\.\d+)?", cell) for cell in plugins[:2]] for grafana, *plugins in cells}


def test_the_matrix_of_versions_is_one_in_the_readme_the_page_and_the_configuration() -> None:
    found = versions_of(text("docs/grafana.md"))
    assert len(found) == 4
    assert versions_of(text("provisioning/grafana/grafana.ini")) == found
    readme = re.search(r"^1\. Install the plugin .*?docs/grafana\.md#versions", text("README.md"), re.MULTILINE | re.DOTALL)
    assert readme
    best = {plugins[0][-1] for plugins in found.values()} | {
        plugins[1][-1] for grafana, plugins in found.items() if "11." in grafana
    }
    assert set(re.findall(r"\d+\.\d+\.\d+", readme[0])) == best == {"0.6.5", "3.7.1", "3.11.1"}


def test_no_app_is_fetched_and_no_plugin_updates_itself() -> None:
    plugins = ini(text("provisioning/grafana/grafana.ini"))["plugins"]
    assert set(plugins["disable_plugins"].split(",")) == APPS
    assert plugins["preinstall_auto_update"] == "false"


def test_the_switch_that_ignores_the_list_of_plugins_is_never_set_together_with_it() -> None:
    """With `preinstall_disabled`, Grafana installs nothing of `preinstall_sync` either."""
    compose = yaml.safe_load(text("docker-compose.yml"))["x-grafana-environment"]
    assert ("GF_PLUGINS_PREINSTALL_SYNC" in compose, "GF_PLUGINS_PREINSTALL_DISABLED" in compose) == (True, False)
    assert "preinstall_disabled" not in ini(text("provisioning/grafana/grafana.ini"))["plugins"]
    guide = text("docs/install.md") + text("docs/install-windows.md")
    assert ("GF_PLUGINS_PREINSTALL_DISABLED=true" in guide, "PREINSTALL_SYNC" in guide) == (True, False)


def expressions(found: Any) -> Iterator[str]:
    """Every text of a parsed file."""
    if isinstance(found, dict):
        for value in found.values():
            yield from expressions(value)
    elif isinstance(found, list):
        for value in found:
            yield from expressions(value)
    elif isinstance(found, str):
        yield found


def provisioned() -> Iterator[tuple[Path, Any]]:
    """Every rule and dashboard, parsed."""
    for file in (*(ROOT / "provisioning" / "prometheus" / "rules").glob("*.yml"), *FOLDER.glob("alerting/*.yaml")):
        yield file, yaml.safe_load(file.read_text(encoding="utf-8"))
    for file in FOLDER.glob("dashboards/*.json"):
        yield file, json.loads(file.read_text(encoding="utf-8"))


def test_no_rule_and_no_panel_uses_a_metric_that_a_grafana_no_longer_has() -> None:
    files = list(provisioned())
    assert len(files) > 10
    assert [file.name for file, found in files for text in expressions(found) if any(lost in text for lost in LOST)] == []


def test_dashboards_and_alert_rules_are_in_one_folder_found_by_its_title() -> None:
    """Rules are provisioned first, into a folder with an id of Grafana's: whoever asks for another id makes a second folder."""
    [provider] = yaml.safe_load((FOLDER / "dashboards" / "provider.yaml").read_text(encoding="utf-8"))["providers"]
    groups = yaml.safe_load((FOLDER / "alerting" / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    assert {provider["folder"], *(group["folder"] for group in groups)} == {"Trade Distribution System"}
    assert "folderUid" not in provider
    assert {group["orgId"] for group in groups} == {provider["orgId"]}


def test_every_dashboard_has_a_list_of_variables_and_annotations_and_refreshes_as_fast_as_is_allowed() -> None:
    least = ini(text("provisioning/grafana/grafana.ini"))["dashboards"]["min_refresh_interval"]
    for file in FOLDER.glob("dashboards/*.json"):
        one = json.loads(file.read_text(encoding="utf-8"))
        assert (type(one["templating"]["list"]), type(one["annotations"]["list"])) == (list, list), file.name
        assert one["timepicker"]["refresh_intervals"][0] == least, file.name


def test_versions_of_a_rule_are_kept_within_a_limit() -> None:
    limit = ini(text("provisioning/grafana/grafana.ini"))["unified_alerting"]["rule_version_record_limit"]
    assert 0 < int(limit) < 100
