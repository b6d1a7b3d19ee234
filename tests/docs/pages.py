"""The pages of the manual, and what is in them: links, files, code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: every page that is for readers
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "provisioning").rglob("README.md")),
    ROOT / ".github" / "CONTRIBUTING.md",
)
#: folders of the repository whose files the pages name
OURS = ("provisioning", "scripts", "requirements", "winsvc", "dashboards", "app", "tests", "docs", "demo", "manual")
#: what a command of a page makes, so that no checkout has it
MADE = ("provisioning/secrets",)
#: the address that the pages use
ADDRESS = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Fence:
    """A block of code: its language, its text, and the block that follows it with nothing between, which is its output."""

    page: Path
    language: str
    text: str
    output: Fence | None = None

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text.strip().splitlines()[0][:60]}"


def fences(page: Path) -> list[Fence]:
    """The blocks of a page, in order."""
    found = re.findall(
        r"^( *)```(\w+)\n(.*?)^\1```(\n\n(?= *```(?:csv|json|text)))?", page.read_text(encoding="utf-8"), re.M | re.S
    )
    blocks: list[Fence] = []
    for _, language, text, joined in reversed(found):
        blocks.append(Fence(page, language, text, blocks[-1] if joined else None))
    return blocks[::-1]


def fences_of(language: str) -> list[Fence]:
    """The blocks of that language on all pages."""
    return [fence for page in PAGES for fence in fences(page) if fence.language == language]


def commands(fence: Fence) -> list[str]:
    """The lines of a shell block."""
    return [line.strip() for line in fence.text.splitlines() if line.strip()]


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as they are made where the page is read."""
    plain = re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path, markdown: str) -> list[str]:
    """The links of a page to files and headings that do not exist."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", markdown) if not is_link(page, markdown, link)]


def is_link(page: Path, markdown: str, link: str) -> bool:
    """Whether a link leads somewhere in the repository."""
    file, _, anchor = link.partition("#")
    target = page.parent / file
    if file and not target.exists():
        return False
    text = markdown if not file else target.read_text(encoding="utf-8") if target.suffix == ".md" else ""
    return not anchor or anchor in anchors(text)


def missing_files(markdown: str) -> list[str]:
    """The files of the repository that a page names and that do not exist."""
    words = re.findall(rf"(?<![\w./\\-])(?:\.[/\\])?((?:{'|'.join(OURS)})[/\\][\w.*/\\-]*\w\*?)", markdown)
    paths = {word.replace("\\", "/") for word in words}
    return sorted(path for path in paths if not path.startswith(MADE) and not is_file(path))


def is_file(path: str) -> bool:
    """Whether the repository has that path; a pattern must match something."""
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()
