"""The house: what must hold of the repository itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def kept_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_names_a_machines_folder_or_a_registrys_host() -> None:
    folders = "|".join(("root", "home/[a-z]+", "wo" + "rk"))
    hosts = "|".join(("py" + "pi.org", "python" + "hosted", "registry.npm" + "js", "deb.deb" + "ian", "crat" + "es.io"))
    forbidden = re.compile(rf'(^|[\s"=:(])/({folders})/|{hosts}', re.MULTILINE)
    found = {}
    for file in kept_files():
        matches = forbidden.search(file.read_text(encoding="utf-8", errors="replace"))
        if matches:
            found[file.relative_to(ROOT).as_posix()] = matches[0]
    assert found == {}


def test_make_lists_every_target_with_a_line() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    described = re.findall(r"^([a-z-]+):.*## .+$", makefile, re.MULTILINE)
    assert sorted(described) == sorted(phony.split())


def test_every_lock_file_pins_with_hashes_and_names_no_index() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text(encoding="utf-8")
        pinned = re.findall(r"^[a-z0-9._-]+(?:\[[a-z,]+\])?==\S+", text, re.MULTILINE)
        assert (len(pinned) > 20, "://" in text) == (True, False)
        assert text.count("--hash=sha256:") >= len(pinned)


def test_the_driver_of_a_source_is_imported_in_that_sources_files_only() -> None:
    drivers = {
        "redis": "redis",
        "hiredis": "redis",
        "clickhouse_connect": "clickhouse",
        "duckdb": "duckdb",
        "aiohttp": "prometheus",
        "httpx": "none",
    }
    found = []
    for file in (ROOT / "app").rglob("*.py"):
        text, where = file.read_text(encoding="utf-8"), file.relative_to(ROOT / "app").as_posix()
        for driver, kind in drivers.items():
            imported = re.search(rf"^\s*(import|from) {driver}\b", text, re.MULTILINE)
            # `bridge query` is a client of the bridge itself, the sync one of the backend (with the serving process's one HTTP
            # client), the backups of what a server offers to its administrator.
            allowed = where.startswith(f"sources/{kind}/") or (where, driver) in (
                ("cli/query.py", "httpx"),
                ("sync/http.py", "aiohttp"),
                ("backup/clickhouse_server.py", "httpx"),
                ("backup/prometheus.py", "httpx"),
            )
            if imported and not allowed:
                found.append((where, driver))
    assert found == []


def test_version_and_changelog_agree() -> None:
    from app import __version__

    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_command_line_knows_every_kind_of_backup_without_importing_them() -> None:
    from app import __main__
    from app.backup import KINDS
    from app.config import DEFAULT_FILE, DEFAULT_URL
    from app.model import SORT_ORDERS, TOP_BY

    assert __main__._KINDS == KINDS  # noqa: SLF001  it has no other name
    assert (__main__._URL, f"{__main__._FOLDER}/bridge.yaml") == (DEFAULT_URL, DEFAULT_FILE)  # noqa: SLF001
    ranking = (__main__._SORT_ORDERS, __main__._TOP_BY)  # noqa: SLF001  as above
    assert ranking == (SORT_ORDERS, TOP_BY)
    code = "import sys, app.__main__; print(*[name for name in sys.modules if name.startswith(('app.', 'fastapi', 'duckdb'))])"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert set(imported.split()) == {"app.__main__", "app.errors"}


def test_a_command_is_found_in_the_file_of_its_name() -> None:
    from app.__main__ import COMMANDS

    names = {command.name for command in COMMANDS} - {"restore"}  # stands with `backup`
    assert {name for name in names if not (ROOT / "app/cli" / f"{name}.py").is_file()} == set()
