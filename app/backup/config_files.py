"""Configuration, catalogue and provisioning: plain files, saved under their paths.

Files with passwords or keys in plain text are refused by default: a backup is stored in places where its original would not be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from app.backup import disk
from app.backup.archive import Archive
from app.backup.kind import Draft, InFolder
from app.backup.manifest import DATA, Backup, KindName, Manifest
from app.backup.placing import Step, put_in_place
from app.backup.settings import ConfigBackup
from app.errors import BackupError

#: Never saved: files that other programs make again, and files that a restore has moved aside.
_NEVER = ("__pycache__", "*.pyc", "*.before-*", ".*.restoring-*", "node_modules", ".git", ".venv")
_MOST_BYTES = 64 << 20
_WORDS = rb"(?:password|passwd|secret|secret_key|token|api_key)"
# An empty value, `...` and a placeholder ($VAR, ${VAR}, <...>, {{ }}, a program's values["NAME"]) are no secrets.
_VALUE = rb"""["']?(?!null\b|none\b|[~$<{*]|\.{3}|[\w.]+\[["']\w+["']\])[^\s"',}#;]+"""
_SECRETS = (
    re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    # key: value, key = value, "key": "value"; not in a comment
    re.compile(rb"^[^#;\n]*?" + _WORDS + rb"""["']?[ \t]*[:=][ \t]*""" + _VALUE, re.IGNORECASE | re.MULTILINE),
    # ClickHouse's users.xml, Redis' ACL file
    re.compile(rb"<password>[^<]+</password>", re.IGNORECASE),
    re.compile(rb"^user\s[^\n]*\s>\S+", re.MULTILINE),
    # redis.conf and sentinel.conf
    re.compile(rb"^(?:requirepass|masterauth|sentinel[ \t]+(?:auth-pass[ \t]+\S+|sentinel-pass))[ \t]+(?![<\s])\S", re.MULTILINE),
)
#: the folder in which provisioning/make_secrets.py stores passwords, one in each file
_FOLDER = "secrets"


class ConfigKind(InFolder):
    """Files and folders."""

    name: KindName = "config"
    reminder = "secrets that stand in the environment are not in it; keep them where secrets are kept"

    def __init__(self, settings: ConfigBackup, roots: Sequence[Path]) -> None:
        self._settings = settings
        self._roots = roots

    def take(self, part: Path, archive: Archive, full: bool) -> Draft:
        """Copy the files."""
        chosen, left_out = self._choose_files(archive.folder)
        if not chosen:
            raise BackupError("config: there is no file to save; set backup.config.include")
        if not self._settings.secrets:
            _refuse_secrets(chosen)
        for file in chosen:
            disk.copy_file(file, part / DATA / _saved_as(file))
        return Draft(versions={}, left_out=tuple(_path_text(file) for file in left_out))

    def contents_of(self, files: Path | None, place: Mapping[str, str], aside: Path | None) -> dict[str, Any]:
        """The number of files. Their bytes are compared anyway."""
        assert files is not None  # noqa: S101  they are in the folder
        return {"files": sum(1 for file in files.rglob("*") if file.is_file())}

    def restore(self, backup: Backup, manifest: Manifest, to: str | None, force: bool) -> Iterator[str]:
        """Put the files where they were, or below the folder `to`."""
        targets = {path: Path(to, path) if to else _original_path(path) for path in manifest.files}
        self._refuse_foreign(backup, targets.values(), Path(to) if to else None)
        steps = [Step(backup.path / DATA / path, targets[path], saved) for path, saved in manifest.files.items()]
        yield from put_in_place(backup.name, steps, (), force)
        if manifest.left_out:
            yield f"not in this backup: {', '.join(manifest.left_out)}"

    def _refuse_foreign(self, backup: Backup, targets: Iterable[Path], to: Path | None) -> None:
        """Allow only targets below configured folders: anybody who can write to the folder of backups can make a manifest."""
        roots = [to] if to else [*self._roots, *self._settings.include]
        for target in targets:
            if target.is_dir() and not target.is_symlink():
                raise BackupError(f"{backup.name}: {target} is a folder, and a file in the backup; move it away first")
            if not any(_is_below(target, root, _NEVER if to is None else ()) for root in roots):
                where = ", ".join(str(root.absolute()) for root in roots)
                more = "" if to else "; name what else is to be restored in backup.config.include, or say --to FOLDER"
                raise BackupError(f"{backup.name}: {target} is not below {where}, or is nothing that is saved there{more}")

    def _choose_files(self, archive: Path) -> tuple[list[Path], list[Path]]:
        chosen: set[Path] = set()
        left_out: set[Path] = set()
        for root in (*self._roots, *self._settings.include):
            root = root.absolute()
            if not root.exists():
                raise BackupError(f"config: {root}: there is no such file or folder")
            found = [path for path in ([root] if root.is_file() else sorted(root.rglob("*"))) if path.is_file()]
            for file in found:
                relative = file.relative_to(root.parent)
                if file.is_relative_to(archive.absolute()) or _matches_any(relative, _NEVER):
                    continue
                (left_out if _matches_any(relative, self._settings.exclude) else chosen).add(file)
        return sorted(chosen - left_out), sorted(left_out)


def _matches_any(path: Path, patterns: Sequence[str]) -> bool:
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


def _is_below(target: Path, root: Path, never: Sequence[str]) -> bool:
    """Whether the target is the root or below it and does not match `never`. Links in its folder's path are followed."""
    if not target.is_absolute():
        target = target.absolute()
    real = target.parent.resolve() / target.name
    roots = (root.absolute().resolve(), root.absolute().parent.resolve() / root.name)
    return any(real.is_relative_to(one) and not _matches_any(real.relative_to(one.parent), never) for one in roots)


def _path_text(file: Path) -> str:
    """The path as text, even if it is not UTF-8."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _saved_as(file: PurePath) -> str:
    r"""`C:\etc\a` is drive-C/etc/a, `\\server\share\a` is unc-server/share/a."""
    drive = file.drive.strip("\\")
    first = f"unc-{drive}" if file.drive.startswith("\\") else f"drive-{drive.rstrip(':')}" if drive else ""
    return PurePosixPath(first.replace("\\", "/"), *file.parts[1:]).as_posix()


def _original_path(path: str, windows: bool = os.name == "nt") -> Path:
    """Where a file was. Raises BackupError for a name that this system would change."""
    first, *rest = PurePosixPath(path).parts
    if not windows:
        return Path("/", path)
    drive, server = re.fullmatch(r"drive-([A-Za-z])", first), re.fullmatch(r"unc-([\w.-]+)", first)
    if not rest or any(_is_odd(part) for part in rest) or not (drive or server):
        raise BackupError(f"config: {path!r} is no place on Windows; say --to FOLDER")
    return Path(f"{drive[1]}:/", *rest) if drive else Path(f"//{first.removeprefix('unc-')}/{rest[0]}/", *rest[1:])


def _is_odd(name: str) -> bool:
    """Whether Windows would change the name: it drops final dots and blanks, and some names are devices."""
    return name != name.rstrip(". ") or PureWindowsPath(name).is_reserved() or bool(re.search(r'[<>"|?*]', name))
