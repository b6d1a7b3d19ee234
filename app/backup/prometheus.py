"""Prometheus: a snapshot by its admin API, copied out of its data folder.

It is copied, not linked: a linked block would share its bytes on the disk with the original block. The snapshot includes the
newest samples (the head becomes a block). If Thanos ships blocks to a bucket, the bucket is the backup and this one covers the
hours that are not shipped yet. The write-ahead log is never touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from app.backup import disk
from app.backup.archive import Archive
from app.backup.kind import Draft, InFolder
from app.backup.manifest import DATA, OUTSIDE, Backup, KindName, Manifest
from app.backup.placing import Step, put_in_place
from app.backup.settings import PrometheusBackup
from app.errors import BackupError

_PROBE_S = 2.0
# Only a folder with such a name is removed. An empty name or `..` would mean all snapshots or all data.
_SNAPSHOT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{1,16}")
_MAGIC = {"index": b"\xba\xaa\xd7\x00", "chunks": b"\x85\xbd\x40\xdd"}


class PrometheusKind(InFolder):
    """One server's blocks."""

    name: KindName = "prometheus"

    def __init__(self, settings: PrometheusBackup | None) -> None:
        self._settings = settings

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Let Prometheus make a snapshot, copy it, and remove it there."""
        settings = self._require_settings()
        name, version = _make_snapshot(settings)
        disk.write(part / OUTSIDE, name.encode())
        made = settings.data / "snapshots" / name
        if not made.is_dir():
            raise BackupError(
                f"prometheus: it has made the snapshot {name}, but {made} is not there: backup.prometheus.data is not its folder,"
                " or the URL is a load balancer's; remove the snapshot by hand"
            )
        disk.copy(made, part / DATA)
        self.discard(part)
        return Draft(versions={"prometheus": version})

    def discard(self, part: Path) -> None:
        """Remove the snapshot in Prometheus' folder: it would keep deleted blocks on the disk."""
        with suppress(FileNotFoundError):
            name = (part / OUTSIDE).read_text(encoding="ascii")
            if self._settings is not None and _SNAPSHOT.fullmatch(name):
                disk.remove(self._settings.data / "snapshots" / name)
            (part / OUTSIDE).unlink()

    def contents_of(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """Each block's counts of samples and series. promtool opens the blocks too, if it is installed."""
        assert files is not None  # noqa: S101  they are in the folder
        blocks = {folder.name: _block_figures(folder) for folder in sorted(files.iterdir())}
        if not blocks:
            raise BackupError("prometheus: the snapshot is empty: there is no sample in it")
        _ask_promtool(files, aside)
        return {"blocks": blocks}

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Replace the whole data folder."""
        target = Path(to) if to else self._require_settings().data
        if os.path.ismount(target):
            raise BackupError(
                f"prometheus: {target} is a mount point and cannot be replaced: let --storage.tsdb.path name a folder in it"
            )
        _refuse_locked(target)
        if self._settings is not None and target == self._settings.data:
            _refuse_answering(self._settings)
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        yield from put_in_place(backup.name, [Step(backup.path / DATA, target, manifest.files)], (), force)
        yield "start Prometheus on it"

    def _require_settings(self) -> PrometheusBackup:
        if self._settings is None:
            raise BackupError("prometheus: set backup.prometheus.url and backup.prometheus.data")
        return self._settings


def _make_snapshot(settings: PrometheusBackup) -> tuple[str, str]:
    url = str(settings.url).rstrip("/")
    try:
        with _make_client(settings) as client:
            answer = client.post(f"{url}/api/v1/admin/tsdb/snapshot")
            told = answer.json()
            if answer.is_error or told.get("status") != "success":
                hint = "; start it with --web.enable-admin-api" if "admin" in str(told.get("error")).lower() else ""
                raise BackupError(f"prometheus: {url}: {told.get('error') or answer.status_code}{hint}")
            version = client.get(f"{url}/api/v1/status/buildinfo").json()["data"]["version"]
            if not _SNAPSHOT.fullmatch(told["data"]["name"]):
                raise ValueError("its name is none of a snapshot")
            return told["data"]["name"], str(version)
    except httpx.HTTPError as problem:
        raise BackupError(f"prometheus: {url}: no snapshot: {str(problem) or type(problem).__name__}") from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BackupError(f"prometheus: {url}: this is no Prometheus' answer") from problem


def _make_client(settings: PrometheusBackup) -> httpx.Client:
    headers = {"Authorization": f"Bearer {settings.bearer_token.get_secret_value()}"} if settings.bearer_token else {}
    auth = (settings.username, settings.password.get_secret_value() if settings.password else "") if settings.username else None
    timeout = httpx.Timeout(settings.timeout_s, connect=5.0)
    return httpx.Client(headers=headers, auth=auth, timeout=timeout, trust_env=False)


def _block_figures(folder: Path) -> dict[str, int]:
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        if meta["ulid"] != folder.name:
            raise BackupError(f"prometheus: block {folder.name} says that it is {meta['ulid']}")
        _begins_with(folder / "index", _MAGIC["index"])
        for chunks in sorted((folder / "chunks").iterdir()):
            _begins_with(chunks, _MAGIC["chunks"])
        stats = meta["stats"]
        return {
            "samples": stats["numSamples"],
            "series": stats["numSeries"],
            "from_ms": meta["minTime"],
            "to_ms": meta["maxTime"],
        }
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BackupError(f"prometheus: block {folder.name} is not whole: {problem}") from problem


def _begins_with(file: Path, magic: bytes) -> None:
    with file.open("rb") as reading:
        if reading.read(len(magic)) != magic:
            raise ValueError(f"{file.name} is no such file of Prometheus'")


def _ask_promtool(files: Path, aside: Path | None) -> None:
    """Open every block with Prometheus' own code. It may write to the folder, so it gets only the copy aside."""
    promtool = shutil.which("promtool")
    if aside is None or promtool is None:
        return
    command = [promtool, "tsdb", "list", str(files)]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  found on the PATH
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise BackupError(f"prometheus: promtool cannot open it: {reason[-1] if reason else done.returncode}")


def _refuse_answering(settings: PrometheusBackup) -> None:
    """Raise if the server runs. Debian's keeps no lock file, so ask it over HTTP."""
    quick = settings.model_copy(update={"timeout_s": _PROBE_S})
    try:
        with _make_client(quick) as client:
            client.get(f"{str(settings.url).rstrip('/')}/-/ready")
    except httpx.ConnectError:
        return
    except httpx.HTTPError:
        pass  # a server is there, but hangs
    raise BackupError(f"prometheus: a Prometheus answers at {settings.url}; stop it first")


def _refuse_locked(data: Path) -> None:
    """Raise if a Prometheus runs on the folder: by default it holds a lock on the file `lock` in it."""
    if os.name == "nt" or not (data / "lock").is_file():
        return  # Windows does not rename a folder with an open file
    import fcntl

    with disk.os_errors("prometheus"), (data / "lock").open("rb") as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise BackupError(f"prometheus: a Prometheus runs on {data}; stop it first") from problem
