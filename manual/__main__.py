"""`python -m manual [--check]`: write the generated files (pages of `docs/`, `cluster.sql`), or name those that are outdated."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.catalog import Catalogue, load_folder
from app.config import read_settings
from manual.cluster_schema import cluster_schema
from manual.metrics_page import metrics_page
from manual.settings_page import settings_page

ROOT = Path(__file__).parents[1]
#: the folder that the generated files are written into
TARGET = ROOT
CLICKHOUSE = ROOT / "provisioning" / "clickhouse"


def catalogue() -> Catalogue:
    """The catalogue that comes with the bridge."""
    return load_folder(ROOT / "provisioning" / "catalog", read_settings(ROOT / "provisioning" / "bridge.yaml").kinds)


def pages() -> Mapping[str, str]:
    """Each generated file by its path."""
    return {
        "docs/metrics.md": metrics_page(catalogue()),
        "docs/settings.md": settings_page(),
        "provisioning/clickhouse/cluster.sql": cluster_schema((CLICKHOUSE / "schema.sql").read_text(encoding="utf-8")),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or compare; 1 when a page is not current."""
    parser = argparse.ArgumentParser(prog="python -m manual", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name each page that is not current, exit with 1")
    check = parser.parse_args(arguments).check
    changed = {name: text for name, text in pages().items() if not is_current(TARGET / name, text)}
    for name, text in changed.items():
        if not check:
            (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
            (TARGET / name).write_text(text, encoding="utf-8")
        print(f"{name}: {'not current; run `make docs`' if check else 'written'}")
    return 1 if check and changed else 0


def is_current(page: Path, text: str) -> bool:
    """Whether the file has this very text."""
    return page.exists() and page.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
