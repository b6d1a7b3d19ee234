"""`python -m dashboards [--check]`: write all dashboards and alert rules, or name the files that are not current."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from app.catalog import Catalogue, load_folder
from app.config import read_settings
from dashboards import alerts, bridge, subjects
from dashboards.rule import Json
from dashboards.schema_v2 import as_v2
from dashboards.today import as_json

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "provisioning" / "grafana" / "dashboards"
#: the same dashboards in schema v2; Grafana reads the folder above, a file of this one is imported or kept in Git
FOLDER_V2 = ROOT / "provisioning" / "grafana" / "dashboards-v2"
RULES = ROOT / "provisioning" / "grafana" / "alerting" / "rules.yaml"
TWINS = ROOT / "provisioning" / "prometheus" / "rules"
_RULES_HEAD = "# Made by `make dashboards`; change dashboards/alerts/, where the limits are, not this file.\n"
ALL = (
    subjects.trade_execution,
    subjects.account,
    subjects.instance,
    subjects.backend_sync,
    subjects.performance,
    subjects.system_health,
    bridge.bridge,
)


def catalogue() -> Catalogue:
    """The shipped catalogue."""
    return load_folder(ROOT / "provisioning" / "catalog", read_settings(ROOT / "provisioning" / "bridge.yaml").kinds)


def made() -> Mapping[str, Json]:
    """Subject -> dashboard."""
    known = catalogue()
    return {make.__name__: as_json(make(known).build()) for make in ALL}


def texts(dashboards: Mapping[str, Json]) -> Mapping[str, str]:
    """File name -> JSON text."""
    return {f"{name}.json": json.dumps(one, indent=1, ensure_ascii=False) + "\n" for name, one in dashboards.items()}


def rules(dashboards: Mapping[str, Json]) -> str:
    """Grafana's alert rules as YAML."""
    return _rules_text(alerts.as_grafana(dashboards))


def twins() -> Mapping[Path, str]:
    """Prometheus' alert rules as YAML, by their files."""
    return {TWINS / f"{name}.yml": _rules_text(alerts.as_prometheus(name)) for name in alerts.TWINS}


def _rules_text(made: Json) -> str:
    plain = json.loads(json.dumps(made))  # a copy without shared objects, so that YAML writes no anchors
    return _RULES_HEAD + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=130)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or compare them. Returns 1 if a compared file is not current."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name every file that is not current, exit with 1")
    check = parser.parse_args(arguments).check
    if problems := alerts.problems():
        parser.error("; ".join(problems))
    dashboards = made()
    newer = {name: as_v2(one) for name, one in dashboards.items()}
    files = {FOLDER / name: text for name, text in texts(dashboards).items()}
    files |= {FOLDER_V2 / name: text for name, text in texts(newer).items()} | {RULES: rules(dashboards), **twins()}
    found = {path: text for path, text in files.items() if not _is_current(path, text)}
    for path, text in found.items():
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.parent.name}/{path.name}: {'not current; run `make dashboards`' if check else 'written'}")
    return 1 if check and found else 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
