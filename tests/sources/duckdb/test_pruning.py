"""Old snapshots are removed for their writer: never what a reader may use, never what is not a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.__main__ import main
from app.sources.duckdb.pruning import kept_snapshots, prune_snapshots, removable


def _name(minute: int) -> str:
    return f"snap-20261128T10{minute:02d}00.000Z.duckdb"


def _folder(folder: Path, count: int, pointed: int | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for minute in range(count):
        (folder / _name(minute)).write_bytes(b"x" * 1000)
    if pointed is not None:
        (folder / "latest").write_text(_name(pointed) + "\n", encoding="utf-8")
    return folder


def _names(folder: Path) -> list[str]:
    return [one.file.name for one in kept_snapshots(folder)]


def test_the_newest_stay_and_the_rest_goes(tmp_path: Path) -> None:
    said = list(prune_snapshots(_folder(tmp_path, 10, 9), 3))
    assert _names(tmp_path) == [_name(7), _name(8), _name(9)]
    assert len(said) == 8
    assert said[0] == f"{_name(0)}: removed (0.0 MB)"
    assert said[-1].endswith("3 snapshots are kept")


def test_what_the_pointer_names_stays_with_the_one_before_it_and_all_newer_ones(tmp_path: Path) -> None:
    list(prune_snapshots(_folder(tmp_path, 10, 4), 2))
    assert _names(tmp_path) == [_name(minute) for minute in range(3, 10)]


def test_nothing_else_is_touched(tmp_path: Path) -> None:
    _folder(tmp_path, 5, 4)
    others = [
        "live.duckdb",
        "snap-20261128T100000.000Z.duckdb.wal",
        "snap-old.duckdb",
        "snap-20269928T100000.000Z.duckdb",
        "notes",
    ]
    for name in others:
        (tmp_path / name).write_text("mine", encoding="utf-8")
    (tmp_path / "kept-elsewhere").write_text("mine", encoding="utf-8")
    link, folder = tmp_path / "snap-20251128T100000.000Z.duckdb", tmp_path / "snap-20241128T100000.000Z.duckdb"
    link.symlink_to(tmp_path / "kept-elsewhere")
    folder.mkdir()
    list(prune_snapshots(tmp_path, 2))
    assert all((tmp_path / name).exists() for name in [*others, "kept-elsewhere", "latest"])
    assert (link.is_symlink(), folder.is_dir()) == (True, True)
    assert _names(tmp_path) == [_name(3), _name(4)]


@pytest.mark.parametrize("pointer", ["snap-20261128T115900.000Z.duckdb", "nonsense", ""])
def test_where_the_pointer_names_nothing_that_is_there_nothing_is_removed(tmp_path: Path, pointer: str) -> None:
    _folder(tmp_path, 5)
    (tmp_path / "latest").write_text(pointer, encoding="utf-8")
    with pytest.raises(ValueError, match="nothing was removed"):
        list(prune_snapshots(tmp_path, 2))
    assert len(_names(tmp_path)) == 5


@settings(max_examples=200, deadline=None)
@given(count=st.integers(0, 12), keep=st.integers(2, 15), data=st.data())
def test_whatever_there_is_the_pointed_one_its_forerunner_and_the_newest_stay(
    tmp_path_factory: pytest.TempPathFactory, count: int, keep: int, data: st.DataObject
) -> None:
    pointed = data.draw(st.none() | st.integers(0, count - 1)) if count else None
    folder = _folder(tmp_path_factory.mktemp("snapshots"), count, pointed)
    gone = {one.file.name for one in removable(folder, keep)}
    every = [_name(minute) for minute in range(count)]
    assert gone.isdisjoint(every[-keep:])
    if pointed is not None:
        assert gone.isdisjoint(every[max(pointed - 1, 0) :])
    assert gone == set(every[: len(gone)])


def test_the_command_says_what_it_would_remove_and_then_does_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _folder(tmp_path / "snapshots", 4, 3)
    assert main(["snapshots", "prune", "--folder", str(folder), "--keep", "2", "--dry-run"]) == 0
    assert (len(_names(folder)), "would be removed" in capsys.readouterr().out) == (4, True)
    assert main(["snapshots", "prune", "--folder", str(folder), "--keep", "2"]) == 0
    assert len(_names(folder)) == 2


def test_the_command_takes_the_folder_of_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _folder(tmp_path / "snapshots", 5, 4)
    config = tmp_path / "bridge.yaml"
    config.write_text(f"sources: {{duckdb: {{connect: {{kind: duckdb, snapshots: {folder}}}}}}}", encoding="utf-8")
    assert main(["snapshots", "prune", "--config", str(config)]) == 0
    assert (len(_names(folder)), "3 snapshots are kept" in capsys.readouterr().out) == (3, True)


def test_too_few_to_keep_and_a_folder_that_is_not_there_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshots", "prune", "--folder", str(_folder(tmp_path / "s", 3)), "--keep", "1"]) == 1
    assert "a reader may use the newest 2" in capsys.readouterr().err
    assert main(["snapshots", "prune", "--folder", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
