"""The demo empties what a demo has made, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.backup.manifest import hash_files
from app.errors import BadQuery
from demo.folder import MARKER, STORES, hold_emptied
from demo.stores import free_port

ROOT = Path(__file__).parents[2]


def made_by_a_demo(folder: Path) -> Path:
    with hold_emptied(folder):
        for name in STORES:
            (folder / name).mkdir()
            (folder / name / "old").write_text("of the last demo")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_new_or_empty_folder_becomes_a_demos(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "some" / "where"
    if there:
        folder.mkdir(parents=True)
    with hold_emptied(folder):
        assert names(folder) == [MARKER]


def test_the_next_demo_begins_with_empty_stores(tmp_path: Path) -> None:
    folder = made_by_a_demo(tmp_path / "data")
    with hold_emptied(folder):
        assert names(folder) == [MARKER]


def test_what_somebody_put_beside_a_demos_stores_stays(tmp_path: Path) -> None:
    folder = made_by_a_demo(tmp_path / "data")
    (folder / "notes.txt").write_text("mine")
    with hold_emptied(folder):
        assert (names(folder), (folder / "notes.txt").read_text()) == ([MARKER, "notes.txt"], "mine")


def a_file(folder: Path) -> None:
    folder.joinpath("letter.txt").write_text("mine")


def a_hidden_file(folder: Path) -> None:
    folder.joinpath(".git").write_text("mine")


def a_folder_named_as_a_store(folder: Path) -> None:
    folder.joinpath("redis").mkdir()
    folder.joinpath("redis", "dump.rdb").write_text("mine")


def a_marker_that_is_a_folder(folder: Path) -> None:
    folder.joinpath(MARKER).mkdir()


def a_marker_that_is_a_link(folder: Path) -> None:
    folder.parent.joinpath("elsewhere").write_text("mine")
    folder.joinpath(MARKER).symlink_to(folder.parent / "elsewhere")


def a_marker_that_is_a_dead_link(folder: Path) -> None:
    folder.joinpath(MARKER).symlink_to(folder.parent / "nowhere")


FOREIGN = [
    a_file,
    a_hidden_file,
    a_folder_named_as_a_store,
    a_marker_that_is_a_folder,
    a_marker_that_is_a_link,
    a_marker_that_is_a_dead_link,
]


@pytest.mark.parametrize("make", FOREIGN)
def test_a_folder_that_no_demo_has_made_is_refused_and_left_as_it_is(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (folder := tmp_path / "data").mkdir()
    make(folder)
    before = {path.relative_to(tmp_path): path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(BadQuery, match="no demo has made it"), hold_emptied(folder):
        pass
    assert {path.relative_to(tmp_path): path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("kind", ["file", "dead link", "below a file"])
def test_what_is_no_folder_is_refused_and_left_as_it_is(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dead link").symlink_to(tmp_path / "nowhere")
    folder = {"below a file": tmp_path / "file" / "data"}.get(kind, tmp_path / kind)
    with pytest.raises(BadQuery, match=r"--folder: .*name another"), hold_emptied(folder):
        pass
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["dead link", "file"], "mine")


@pytest.mark.parametrize("store", STORES)
def test_a_link_in_a_store_s_place_goes_and_what_it_leads_to_stays(tmp_path: Path, store: str) -> None:
    folder = made_by_a_demo(tmp_path / "data")
    (mine := tmp_path / "mine").mkdir()
    (mine / "letter.txt").write_text("mine")
    (folder / store / "old").unlink()
    (folder / store).rmdir()
    (folder / store).symlink_to(mine)
    with hold_emptied(folder):
        assert names(folder) == [MARKER]
    assert names(mine) == ["letter.txt"]


def test_a_link_within_a_store_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    folder = made_by_a_demo(tmp_path / "data")
    (mine := tmp_path / "mine").mkdir()
    (mine / "letter.txt").write_text("mine")
    (folder / "duckdb" / "more").symlink_to(mine)
    with hold_emptied(folder):
        assert names(folder) == [MARKER]
    assert names(mine) == ["letter.txt"]


def test_a_link_to_a_folder_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    (mine := tmp_path / "mine").mkdir()
    (mine / "letter.txt").write_text("mine")
    (tmp_path / "to mine").symlink_to(mine)
    made_by_a_demo(tmp_path / "data")
    (tmp_path / "to a demo's").symlink_to(tmp_path / "data")
    with pytest.raises(BadQuery, match="no demo has made it"), hold_emptied(tmp_path / "to mine"):
        pass
    with hold_emptied(tmp_path / "to a demo's"):
        assert names(tmp_path / "data") == [MARKER]
    assert names(mine) == ["letter.txt"]


def test_a_second_demo_on_the_same_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    with hold_emptied(tmp_path / "data"):
        (tmp_path / "data" / "redis").mkdir()
        (tmp_path / "data" / "redis" / "redis.log").write_text("of the first")
        with (
            pytest.raises(BadQuery, match=rf"another demo runs on it \(process {os.getpid()}\)"),
            hold_emptied(tmp_path / "data"),
        ):
            pass
        assert (tmp_path / "data" / "redis" / "redis.log").read_text() == "of the first"
    with hold_emptied(tmp_path / "data"):
        assert names(tmp_path / "data") == [MARKER]


@pytest.mark.parametrize("words", [[], ["--folder", "."]], ids=["its default", "named"])
def test_the_command_refuses_a_strangers_folder_with_one_line(tmp_path: Path, words: list[str]) -> None:
    folder = tmp_path if words else tmp_path / "demo-data"
    folder.mkdir(exist_ok=True)
    (folder / "letter.txt").write_text("mine")
    before = hash_files(tmp_path)
    command = [sys.executable, "-m", "app", "demo", "--port", str(free_port()), *words]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n"), "no demo has made it" in done.stderr) == (1, "", 1, True)
    assert hash_files(tmp_path) == before
