"""`make clean` removes what was made here, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from demo.folder import STORES, hold_emptied

ROOT = Path(__file__).parents[2]


def clean(folder: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    return subprocess.run(["make", "-s", "clean"], cwd=folder, capture_output=True, text=True, check=False)


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name != "Makefile")


def test_a_demos_stores_and_a_made_venv_go_and_files_beside_them_stay(tmp_path: Path) -> None:
    with hold_emptied(tmp_path / "demo-data"):
        for store in STORES:
            (tmp_path / "demo-data" / store).mkdir()
    (tmp_path / "demo-data" / "notes.txt").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / "python.stamp").touch()
    done = clean(tmp_path)
    assert (done.returncode, done.stderr, left(tmp_path)) == (0, "", ["demo-data", "demo-data/notes.txt"])
    (tmp_path / "demo-data" / "notes.txt").unlink()
    assert (clean(tmp_path).returncode, left(tmp_path)) == (0, [])


def test_a_folder_of_that_name_that_no_demo_has_made_stays(tmp_path: Path) -> None:
    (tmp_path / "demo-data" / "redis").mkdir(parents=True)
    done = clean(tmp_path)
    assert (done.returncode, left(tmp_path)) == (0, ["demo-data", "demo-data/redis"])
    assert "no demo has made" in done.stdout


def test_a_venv_that_make_has_not_made_stays(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    done = clean(tmp_path)
    assert (done.returncode, left(tmp_path)) == (2, [".venv", ".venv/bin", ".venv/bin/python"])
    assert "it stays" in done.stdout
