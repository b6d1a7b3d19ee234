"""A backup that is not what was saved is found by `verify` and refused by `restore`, before anything is touched: every kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.backup import KINDS, Backup, KindName
from app.backup.manifest import MANIFEST, SavedFile, digest_of
from tests.backup.desk import Desk, flip
from tests.backup.history import rows
from tests.servers.clickhouse import ClickHouseServer

Damage = Callable[[Backup, Path], None]


def largest(files: Path) -> Path:
    return max((path for path in files.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def add(files: Path) -> None:
    files.joinpath("more").write_text("x")


def link_elsewhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def foreign(backup: Backup, files: Path) -> None:
    """The manifest of another backup of the same kind."""
    other = backup.manifest().model_copy(update={"tool": "another"})
    (backup.path / MANIFEST).write_bytes(other.to_bytes())


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a flipped bit": (lambda _, files: flip(largest(files)), "SHA-256 differs"),
    "a missing file": (lambda _, files: largest(files).unlink(), "is missing"),
    "a file cut short": (lambda _, files: truncate(largest(files)), "bytes,"),
    "a file more": (lambda _, files: add(files), "more does not belong to it"),
    "a link": (lambda _, files: link_elsewhere(largest(files)), "is a link"),
    "a foreign manifest": (foreign, "is not the one that was written with it"),
    "no manifest": (lambda backup, _: (backup.path / MANIFEST).unlink(), "cannot be read"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_found_and_nothing_is_touched(everything: Desk, history: ClickHouseServer, kind: KindName) -> None:
    desk = everything
    backup = desk.saved(kind)
    assert history.backups is not None
    files = history.backups / backup.manifest().place["path"] if kind == "clickhouse" else backup.path / "data"
    assert desk.run("backup", "verify", backup.name).code == 0
    kept = shutil.copytree(backup.path, desk.folder / "kept"), shutil.copytree(files, desk.folder / "kept-files")
    for damage, (do, said) in DAMAGES.items():
        do(backup, files)
        before = desk.state(), rows(history)
        verified = desk.run("backup", "verify", backup.name)
        restored = desk.run("restore", kind, backup.name, "--force")
        assert (verified.code, verified.out, said in verified.err) == (1, "", True), (damage, verified)
        assert (restored.code, restored.out, restored.err) == (1, "", verified.err), (damage, restored)
        assert (desk.state(), rows(history)) == before, damage
        for source, target in zip(kept, (backup.path, files), strict=True):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
    assert desk.run("backup", "verify", backup.name).code == 0


def forged(desk: Desk, backup: Backup, **changed: object) -> Path:
    """A backup whose manifest says something else, under the name that goes with it."""
    manifest = backup.manifest().model_copy(update=changed)
    encoded = manifest.to_bytes()
    path = desk.archive.folder / f"{backup.kind}-{manifest.taken_at}-{digest_of(encoded)}"
    shutil.copytree(backup.path, path)
    (path / MANIFEST).write_bytes(encoded)
    return path


@pytest.mark.parametrize("path", ["../../evil", "/etc/evil", "a/../../evil", "C:/evil", "..\\evil", "a//b", "./a", "", "a\x00b"])
def test_a_path_out_of_the_backup_is_refused(desk: Desk, path: str) -> None:
    backup = desk.saved("config")
    entry = SavedFile(size_bytes=1, sha256="0" * 64)
    evil = forged(desk, backup, files={**backup.manifest().files, path: entry})
    before = desk.state()
    done = desk.run("restore", "config", evil.name, "--to", str(desk.folder / "new"), "--force")
    assert (done.code, done.err.count("\n"), "is none of this program's" in done.err) == (1, 1, True), done.err
    assert desk.state() == before


def test_a_backup_of_another_kind_or_under_another_name_is_refused(desk: Desk, database: Path) -> None:
    backup = desk.saved("config")
    other = desk.run("restore", "grafana", backup.name, "--force")
    renamed = backup.path.rename(backup.path.with_name(backup.name.replace("config", "grafana")))
    wrong = desk.run("restore", "grafana", renamed.name, "--force")
    unknown = desk.run("restore", "grafana", "mine.tar.gz")
    assert (other.code, other.err) == (1, f"bridge: {backup.name}: is a backup of config, not of grafana\n")
    assert (wrong.code, "not of what the name says" in wrong.err) == (1, True)
    assert (unknown.code, unknown.err.startswith("bridge: mine.tar.gz: there is no such backup in ")) == (1, True)
    assert list(database.parent.iterdir()) == []


def test_what_a_restored_copy_holds_is_compared_too(desk: Desk) -> None:
    backup = desk.saved("config")
    wrong = forged(desk, backup, contents={"files": 99})
    done = desk.run("backup", "verify", wrong.name)
    assert (done.code, done.err) == (
        1,
        f"bridge: {wrong.name}: restored, it does not hold what was saved: files: {len(backup.manifest().files)}, not 99\n",
    )


def test_a_restore_that_fails_half_way_is_undone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = desk.saved("config")
    for name in ("bridge.yaml", "catalog/empty.yaml"):
        (desk.folder / "new" / desk.config.parent.relative_to("/") / name).parent.mkdir(parents=True, exist_ok=True)
        (desk.folder / "new" / desk.config.parent.relative_to("/") / name).write_text("older")
    before = desk.state()
    rename = Path.rename

    def full_disk(self: Path, target: Path) -> Path:
        """A double: no real disk fails at just the last of four renames."""
        if self.name.startswith(".empty.yaml.restoring-"):
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    done = desk.run("restore", "config", backup.name, "--to", str(desk.folder / "new"), "--force")
    assert (done.code, done.out, done.err.count("\n"), "No space left on device" in done.err) == (1, "", 1, True)
    assert desk.state() == before


def test_restored_files_belong_to_whom_the_old_ones_belonged(desk: Desk, database: Path) -> None:
    from tests.servers import grafana_database as grafana

    grafana.make(database, wal=False)
    desk.saved("grafana")
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(database, owner, -1)
    assert desk.run("restore", "grafana", "latest", "--force").code == 0
    found = database.stat()
    assert (found.st_uid, oct(found.st_mode & 0o777)) == (owner, "0o640")
