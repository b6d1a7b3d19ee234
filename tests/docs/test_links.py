"""Every link and every file that a page names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, dead_links, missing_files


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_and_every_file_of_a_page_is_there(page: Path) -> None:
    markdown = page.read_text(encoding="utf-8")
    assert (dead_links(page, markdown), missing_files(markdown)) == ([], [])


def test_every_path_of_the_architecture_is_there() -> None:
    text = (ROOT / "app" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./<>-]+(?:\.(?:py|md|toml|sql)|/))`", text)) - {"docs/", "sources/<kind>/"}
    mapped = set(re.findall(r"^(\w+(?:/|\.py))(?= {2,})", text, re.MULTILINE))
    assert len(named) > 30
    assert len(mapped) > 15
    assert [path for path in sorted(named | mapped) if not ((ROOT / "app" / path).exists() or (ROOT / path).exists())] == []


def test_a_dead_link_and_a_missing_file_are_found() -> None:
    page = ROOT / "docs" / "README.md"
    markdown = (
        "# A b\n[a](#a-b) [b](#b) [c](ask.md#filters) [d](ask.md#none) [e](none.md) `app/none.py` docs/*.none `scripts/venv.sh`"
    )
    assert dead_links(page, markdown) == ["#b", "ask.md#none", "none.md"]
    assert missing_files(markdown) == ["app/none.py", "docs/*.none"]


def test_the_contents_list_every_page() -> None:
    contents = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)\)", contents))


def test_the_readme_is_short_and_shows_a_picture() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    assert re.findall(r"!\[[^\]]{20,}\]\(docs/images/", readme)


def test_the_files_that_point_at_a_heading_of_the_manual_point_at_one_that_is_there() -> None:
    """Comments and alert texts write `docs/operate.md, "What to do when"`."""
    folders = [ROOT / name for name in ("provisioning", "app", "dashboards", "demo", "winsvc")]
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in {".yml", ".yaml", ".json", ".ini", ".py"}]
    found = {
        (page, heading)
        for file in files
        for page, heading in re.findall(r'docs/([\w-]+\.md)(?:, \\?"([^"\\]+))?', file.read_text(encoding="utf-8"))
    }
    assert ("operate.md", "What to do when") in found
    for page, heading in found:
        markdown = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert not heading or anchors(f"# {heading}") <= anchors(markdown), (page, heading)
