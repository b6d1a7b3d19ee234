"""A crafted backup: its manifest says what there is, the configuration says where to. Nothing else is written or removed."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.backup import Backup, KindName, config_files, disk
from app.backup.config_files import _original_path, _saved_as
from app.backup.manifest import DATA, MANIFEST, SavedFile, digest_of, hash_file
from app.backup.placing import Step
from app.errors import BackupError
from tests.backup.desk import Desk
from tests.backup.test_refusals import forged
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.snapshots import SnapshotPublisher

_EVIL = b"* * * * * root evil\n"


def crafted(desk: Desk, backup: Backup, *names: str) -> str:
    """A backup that holds files of these names too, as somebody makes it who can write to the folder of backups."""
    path = desk.archive.folder / "crafted"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(backup.path, path)
    files = dict(backup.manifest().files)
    for name in names:
        file = path / DATA / name
        with suppress(OSError, ValueError):
            if file.resolve().is_relative_to(path.resolve()):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(_EVIL)
        files[name] = hash_file(file) if file.is_file() else SavedFile(size_bytes=len(_EVIL), sha256="0" * 64)
    manifest = json.loads(backup.manifest().to_bytes())
    manifest["files"] = {name: entry.model_dump() for name, entry in files.items()}
    encoded = json.dumps(manifest).encode("utf-8", "surrogatepass")
    (path / MANIFEST).write_bytes(encoded)
    made = desk.archive.folder / f"{backup.kind}-{manifest['taken_at']}-{digest_of(encoded)}"
    shutil.rmtree(made, ignore_errors=True)
    return path.rename(made).name


def all_of(folder: Path, *but: str) -> dict[str, str]:
    """Every path with what it is and holds, but for those that begin so."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != "backups/.bridge-lock" and not name.startswith(but):
            kind = f"to {os.readlink(path)}" if path.is_symlink() else "folder" if path.is_dir() else hash_file(path).sha256
            found[name] = kind
    return found


def below(desk: Desk, name: str) -> str:
    """A name in a backup for a file beside the desk's configuration."""
    return (desk.config.parent / name).relative_to("/").as_posix()


def refused(desk: Desk, backup: str, *more: str) -> str:
    """What is said when it is refused; nothing has changed then."""
    before = all_of(desk.folder)
    done = desk.run("restore", "config", backup, *more)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done
    assert all_of(desk.folder) == before
    return done.err


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
def test_what_a_backup_names_elsewhere_is_not_written_and_nothing_else_of_it_either(desk: Desk, force: tuple[str, ...]) -> None:
    backup = desk.saved("config")
    (desk.config.parent / "catalog" / "empty.yaml").unlink()  # what a restore would bring back
    elsewhere = desk.folder / "cron.d" / "evil"
    said = refused(desk, crafted(desk, backup, elsewhere.relative_to("/").as_posix()), *force)
    assert f"{elsewhere} is not below {desk.config.parent}, " in said
    assert "backup.config.include" in said


def test_what_the_configuration_names_besides_is_restored_and_its_neighbour_is_not(desk: Desk) -> None:
    (desk.folder / "grafana").mkdir()
    (desk.folder / "grafana" / "grafana.ini").write_text("[server]\n")
    desk.settings["config"] = {"include": [str(desk.folder / "grafana" / "grafana.ini")]}
    backup = desk.saved("config")
    (desk.folder / "grafana" / "grafana.ini").unlink()
    neighbour = (desk.folder / "grafana" / "grafana.ini.d").relative_to("/").as_posix()
    refused(desk, crafted(desk, backup, neighbour), "--force")
    done = desk.run("restore", "config", backup.name)
    assert (done.code, (desk.folder / "grafana" / "grafana.ini").read_text()) == (0, "[server]\n")


@pytest.mark.parametrize(
    "name",
    [".git/hooks/post-commit", "__pycache__/evil.pyc", "catalog/.venv/evil.pth", "bridge.yaml.before-x", "node_modules/a/b"],
)
def test_what_is_never_saved_is_never_restored(desk: Desk, name: str) -> None:
    backup = desk.saved("config")
    refused(desk, crafted(desk, backup, below(desk, name)), "--force")


def test_a_file_takes_no_folders_place(desk: Desk) -> None:
    backup = desk.saved("config")
    (desk.config.parent / "more").mkdir()
    (desk.config.parent / "more" / "mine.yaml").write_text("a: 1\n")
    assert "is a folder" in refused(desk, crafted(desk, backup, below(desk, "more")), "--force")


def test_a_link_below_the_configuration_leads_nowhere_else(desk: Desk) -> None:
    backup = desk.saved("config")
    (mine := desk.folder / "mine").mkdir()
    (desk.config.parent / "way").symlink_to(mine)
    refused(desk, crafted(desk, backup, below(desk, "way/evil")), "--force")
    (desk.folder / "new").mkdir()
    (desk.folder / "new" / below(desk, "").split("/")[0]).symlink_to(mine)
    refused(desk, backup.name, "--to", str(desk.folder / "new"), "--force")
    assert list(mine.iterdir()) == []


def test_a_configuration_folder_that_is_a_link_itself_is_restored_through_it(desk: Desk) -> None:
    desk.settings["config"] = {"include": [str(desk.folder / "way")]}
    (real := desk.folder / "real").mkdir()
    (real / "a.ini").write_text("[a]\n")
    (desk.folder / "way").symlink_to(real)
    backup = desk.saved("config")
    (real / "a.ini").unlink()
    done = desk.run("restore", "config", backup.name)
    assert (done.code, done.err) == (0, "")
    assert ((real / "a.ini").read_text(), (desk.folder / "way").is_symlink()) == ("[a]\n", True)


PARTS = [
    "..",
    ".",
    "",
    "a",
    "A",
    "etc",
    "ETC",
    "bridge.yaml",
    "catalog",
    "C:",
    "drive-C",
    "unc-server",
    "\\\\server",
    "~",
    "a\nb",
]
PARTS += ["\udc80", "\x00", "é", "e\u0301", "CON", "a. ", "way", "*"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(st.sampled_from(PARTS), min_size=1, max_size=6), where=st.sampled_from(["", "/", "beside", "below"]))
def test_whatever_a_manifest_names_nothing_goes_but_below_the_configured_folders(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, drawn: list[str], where: str
) -> None:
    root = desk.config.parent
    backup = next(iter(desk.archive.backups("config")), None) or desk.saved("config")
    if not (root / "way").is_symlink():
        (root / "way").symlink_to(desk.folder)
    name = {"beside": below(desk, "../"), "below": below(desk, "") + "/"}.get(where, where) + "/".join(drawn)
    targets: list[Path] = []

    def put(_: str, steps: Sequence[Step], *__: object) -> Iterator[str]:
        """A double: where a mistake in the code would write to this machine, nothing is written."""
        targets.extend(step.target for step in steps)
        return iter(())

    monkeypatch.setattr(config_files, "put_in_place", put)
    made = crafted(desk, backup, name)
    done = desk.run("restore", "config", made, "--force")
    shutil.rmtree(desk.archive.folder / made)
    assert (done.code in (0, 1), done.err.count("\n")) == (True, done.code), (name, done)
    assert all(target.parent.resolve().is_relative_to(root) for target in targets), (name, targets)


def test_a_restore_that_fails_leaves_no_folder_that_it_has_made(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = desk.saved("config")
    copy_file = disk.copy_file

    def full_disk(source: Path, target: Path) -> None:
        """A double: no real disk fails at just the second of two copies."""
        if "empty.yaml" in target.name:
            raise OSError(28, "No space left on device", str(target))
        copy_file(source, target)

    monkeypatch.setattr(disk, "copy_file", full_disk)
    done = desk.run("restore", "config", backup.name, "--to", str(desk.folder / "new" / "deep"))
    assert (done.code, done.out, done.err.count("\n"), (desk.folder / "new").exists()) == (1, "", 1, False)


@pytest.mark.parametrize("name", [b"a:b.yaml", b"a\nb.yaml", b"a\\b.yaml", b"a\xff.yaml", b"a\x7f.yaml"])
def test_a_file_whose_name_no_backup_can_hold_is_told_in_one_line(desk: Desk, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(desk.config.parent) + b"/" + name)).write_text("a: 1\n")
    done = desk.run("backup", "config")
    assert (done.code, done.out, done.err.count("\n"), done.err.startswith("bridge: config: files.")) == (1, "", 1, True), (
        done.err
    )
    desk.settings["config"] = {"exclude": ["a*b.yaml", "a?.yaml"]}
    assert desk.run("backup", "config").code == 0


@pytest.mark.parametrize(
    ("windows", "saved"),
    [("C:/etc/bridge.yaml", "drive-C/etc/bridge.yaml"), ("//server/share/a/b.yaml", "unc-server/share/a/b.yaml")],
)
def test_a_place_on_windows_comes_back_as_what_it_was(windows: str, saved: str) -> None:
    from pathlib import PureWindowsPath

    assert _saved_as(PureWindowsPath(windows)) == saved
    assert _original_path(saved, windows=True) == Path(windows)


@pytest.mark.parametrize(
    "name",
    [
        "drive-bridge.yaml/x",
        "drive-C",
        "etc/passwd",
        "unc-/share/a",
        "drive-C/a/NUL",
        "drive-C/a./b",
        "drive-C/a /b",
        "drive-C/a*",
    ],
)
def test_a_name_that_windows_would_take_for_another_one_is_refused(name: str) -> None:
    with pytest.raises(BackupError, match="is no place on Windows"):
        _original_path(name, windows=True)


def test_a_folder_that_is_called_like_a_drive_stays_itself_elsewhere() -> None:
    assert _original_path("drive-C/etc/a", windows=False) == Path("/drive-C/etc/a")


def test_a_backup_of_grafana_or_duckdb_holds_its_own_files_and_no_other(
    desk: Desk, database: Path, writer: SnapshotPublisher
) -> None:
    from tests.servers import grafana_database as grafana

    grafana.make(database, wal=False)
    writer.insert((1_795_000_000_000, "a1", "b1", 1.0))
    writer.publish(1_795_000_000_000)
    kinds: tuple[KindName, ...] = ("grafana", "duckdb")
    for kind in kinds:
        backup = desk.saved(kind)
        made = crafted(desk, backup, "evil.sh")
        before = desk.state()
        done = desk.run("restore", kind, made, "--force")
        assert (done.code, done.out, "this one differs in evil.sh" in done.err) == (1, "", True), done
        assert desk.state() == before


@pytest.mark.parametrize(
    "place",
    [
        {"disk": "default"},
        {"path": "../secret"},
        {"path": ".."},
        {"path": "somebody-elses"},
        {"path": "bridge-20261128T190000.000Z-full/../../x"},
    ],
    ids=str,
)
def test_a_backup_of_clickhouse_is_looked_for_where_ours_are(
    desk: Desk, history: ClickHouseServer, place: Mapping[str, str]
) -> None:
    backup = desk.saved("clickhouse")
    made = forged(desk, backup, place={**backup.manifest().place, **place})
    done = desk.run("restore", "clickhouse", made.name, "--to", "elsewhere")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done
    assert "elsewhere" not in history.execute("SHOW DATABASES")


def test_pruning_removes_nothing_on_clickhouses_disk_that_is_no_backup_of_ours(desk: Desk, history: ClickHouseServer) -> None:
    assert history.backups is not None
    backup = desk.saved("clickhouse", "--full")
    (history.backups / "somebody-elses").mkdir()
    forged(desk, backup, place={**backup.manifest().place, "path": "somebody-elses"})
    done = desk.run("backup", "clickhouse", "--full", "--keep", "1")
    assert (done.code, (history.backups / "somebody-elses").is_dir()) == (1, True), done
    (history.backups / "somebody-elses").rmdir()


@contextmanager
def odd_prometheus(name: str) -> Iterator[int]:
    """A Prometheus that says that its snapshot has this name."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._send({"status": "success", "data": {"name": name}})

        def do_GET(self) -> None:
            self._send({"status": "success", "data": {"version": "2.42.0"}})

        def _send(self, body: object) -> None:
            encoded = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's own name
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(5)


@pytest.mark.parametrize("name", ["..", ".", "", "../../etc", "wal", "20261128T190000Z-1a/../.."])
def test_a_prometheus_that_names_another_folder_as_its_snapshot_loses_nothing(desk: Desk, name: str) -> None:
    data = desk.folder / "prometheus"
    (data / "snapshots" / "20261127T190000Z-1a2b").mkdir(parents=True)
    (data / "wal").mkdir()
    (data / "wal" / "00000001").write_text("samples")
    with odd_prometheus(name) as port:
        desk.settings["prometheus"] = {"url": f"http://127.0.0.1:{port}", "data": str(data)}
        before = desk.state()
        done = desk.run("backup", "prometheus")
    assert (done.code, "this is no Prometheus' answer" in done.err) == (1, True), done
    assert (desk.state(), (data / "snapshots" / "20261127T190000Z-1a2b").is_dir()) == (before, True)


def test_in_the_folder_of_backups_nothing_of_others_is_emptied_or_overwritten(desk: Desk) -> None:
    folder = desk.archive.folder
    (folder / ".aside").mkdir(parents=True)
    (folder / ".gone-fishing").mkdir()
    (folder / ".part-config").mkdir()
    for name in (".lock", ".aside/a", ".gone-fishing/a", ".part-config/a", "config-notes.txt"):
        (folder / name).write_text("mine")
    desk.saved("config")
    desk.saved("config", "--keep", "1")
    assert desk.run("backup", "verify").code == 0
    for name in (".lock", ".aside/a", ".gone-fishing/a", ".part-config/a", "config-notes.txt"):
        assert (folder / name).read_text() == "mine"


def test_a_lock_that_is_a_link_leads_to_nothing_that_is_overwritten(desk: Desk) -> None:
    desk.archive.folder.mkdir()
    (desk.folder / "mine").write_text("mine")
    (desk.archive.folder / ".bridge-lock").symlink_to(desk.folder / "mine")
    done = desk.run("backup", "config")
    assert (done.code, done.err.count("\n"), (desk.folder / "mine").read_text()) == (1, 1, "mine")
