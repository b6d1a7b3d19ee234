"""Configuration, catalogue and provisioning: plain files, saved under the paths that they have.

Files with passwords or keys in plain text are not saved unless that was asked for: a backup goes where its original would not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from app.backup import disk
from app.backup.archive import Archive
from app.backup.kind import Draft, InFolder
from app.backup.manifest import DATA, Backup, KindName, Manifest
from app.backup.placing import Step, put
from app.backup.settings import ConfigBackup
from app.errors import BackupError

#: Never saved: what other programs make anew, and what restoring has put aside.
_NEVER = ("__pycache__", "*.pyc", "*.before-*", ".*.restoring-*", "node_modules", ".git", ".venv")
_MOST_BYTES = 64 << 20
_WORDS = rb"(?:password|passwd|secret|secret_key|token|api_key)"
# What is empty or `...`, or is put in from elsewhere ($VAR, ${VAR}, <...>, {{ }}, a program's values["NAME"]), is no secret.
_VALUE = rb"""["']?(?!null\b|none\b|[~$<{*]|\.{3}|[\w.]+\[["']\w+["']\])[^\s"',}#;]+"""
_SECRETS = (
    re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    # key: value, key = value, "key": "value"; not in a comment
    re.compile(rb"^[^#;\n]*?" + _WORDS + rb"""["']?[ \t]*[:=][ \t]*""" + _VALUE, re.IGNORECASE | re.MULTILINE),
    # ClickHouse's users.xml, Redis' ACL file
    re.compile(rb"<password>[^<]+</password>", re.IGNORECASE),
    re.compile(rb"^user\s[^\n]*\s>\S+", re.MULTILINE),
)
#: where provisioning/make_secrets.py puts what is nothing but a password, a file each
_FOLDER = "secrets"


class ConfigKind(InFolder):
    """Files and folders."""

    name: KindName = "config"
    reminder = "secrets that stand in the environment are not in it; keep them where secrets are kept"

    def __init__(self, settings: ConfigBackup, roots: Sequence[Path]) -> None:
        self._settings = settings
        self._roots = roots

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Copy them."""
        chosen, left_out = self._chosen(archive.folder)
        if not chosen:
            raise BackupError("config: there is no file to save; set backup.config.include")
        if not self._settings.secrets:
            _refuse_secrets(chosen)
        for file in chosen:
            disk.copy_file(file, part / DATA / _saved_as(file))
        return Draft(versions={}, left_out=tuple(str(file) for file in left_out))

    def look(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """Nothing but the bytes, which are compared anyway."""
        assert files is not None  # noqa: S101  they are in the folder
        return {"files": sum(1 for file in files.rglob("*") if file.is_file())}

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Put them where they were, or below the folder `to`."""
        steps = [
            Step(backup.path / DATA / path, Path(to, path) if to else _original(path), saved)
            for path, saved in manifest.files.items()
        ]
        yield from put(backup.name, steps, (), force)
        if manifest.left_out:
            yield f"not in this backup: {', '.join(manifest.left_out)}"

    def _chosen(self, archive: Path) -> tuple[list[Path], list[Path]]:
        chosen: set[Path] = set()
        left_out: set[Path] = set()
        for root in (*self._roots, *self._settings.include):
            root = root.absolute()
            if not root.exists():
                raise BackupError(f"config: {root}: there is no such file or folder")
            found = [path for path in ([root] if root.is_file() else sorted(root.rglob("*"))) if path.is_file()]
            for file in found:
                relative = file.relative_to(root.parent)
                if file.is_relative_to(archive.absolute()) or _matches(relative, _NEVER):
                    continue
                (left_out if _matches(relative, self._settings.exclude) else chosen).add(file)
        return sorted(chosen - left_out), sorted(left_out)


def _matches(path: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatch(word, pattern) for pattern in patterns for word in (*path.parts, path.as_posix()))


def _refuse_secrets(files: Sequence[Path]) -> None:
    found = [str(file) for file in files if _has_secret(file)]
    if found:
        raise BackupError(
            f"config: passwords or keys in plain text in {', '.join(found)}: put them into the environment, leave the files out"
            " (backup.config.exclude), or say that they are to be saved (backup.config.secrets: true)"
        )


def _has_secret(file: Path) -> bool:
    if file.stat().st_size > _MOST_BYTES:
        raise BackupError(f"config: {file} is larger than {_MOST_BYTES >> 20} MiB: this is no configuration")
    content = file.read_bytes()
    return _FOLDER in file.parent.parts or any(secret.search(content) for secret in _SECRETS)


def _saved_as(file: Path) -> str:
    drive = file.drive.replace(":", "").strip("\\/").replace("\\", "/")
    return PurePosixPath(f"drive-{drive}" if drive else "", *file.parts[1:]).as_posix()


def _original(path: str) -> Path:
    first, *rest = PurePosixPath(path).parts
    return Path(f"{first.removeprefix('drive-')}:/", *rest) if first.startswith("drive-") else Path("/", path)
