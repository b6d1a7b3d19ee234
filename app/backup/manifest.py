"""What a backup says of itself, and whether its files are still what was saved.

A backup is a folder `<kind>-<UTC time>-<digest>`. The digest is the beginning of its manifest's SHA-256, the manifest has every
file's: so a name stands for every byte, and a base that an incremental backup names is exactly that one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from app.errors import BackupError
from app.sources.base import Strict

KindName = Literal["grafana", "clickhouse", "prometheus", "duckdb", "config"]
KINDS: tuple[KindName, ...] = ("grafana", "clickhouse", "prometheus", "duckdb", "config")
MANIFEST = "manifest.json"
#: Where a backup's own files are in its folder.
DATA = "data"
#: In a part only: what was begun outside of it, for whoever has to clear up after it.
OUTSIDE = "outside.txt"
_DIGEST_CHARS = 16
_NAME = re.compile(rf"({'|'.join(KINDS)})-(\d{{8}}T\d{{6}}\.\d{{3}})Z-([0-9a-f]{{{_DIGEST_CHARS}}})")
_TOLD = 3


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    wrong = not path or pure.is_absolute() or ".." in pure.parts or str(pure) != path or re.search(r"[\\:\x00]", path)
    if wrong:
        raise ValueError(f"{path!r} is no path inside a backup")
    return path


class Entry(Strict):
    """One file as it was saved."""

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Strict):
    """Everything that is known of a backup."""

    format: Literal[1] = 1
    kind: KindName
    taken_at: str
    tool: str
    versions: dict[str, str]
    #: the backup without which this one cannot be restored
    base: str | None = None
    #: where the files are, when they are not in the backup's own folder
    place: dict[str, str] = Field(default_factory=dict)
    files: dict[Annotated[str, AfterValidator(_inside)], Entry]
    #: what a restored copy of it held when it was taken; a restored one must hold the same
    contents: dict[str, Any]
    left_out: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(entry.size_bytes for entry in self.files.values())

    def encoded(self) -> bytes:
        """As it is written."""
        return self.model_dump_json(indent=1).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Backup:
    """One published backup: what its name says, and its manifest when it is asked for."""

    path: Path
    kind: KindName
    taken_ms: int
    digest: str

    @property
    def name(self) -> str:
        """Unique for ever."""
        return self.path.name

    def manifest(self) -> Manifest:
        """Its manifest. Raises BackupError when that is missing, was changed, or is another backup's."""
        try:
            text = (self.path / MANIFEST).read_bytes()
        except OSError as problem:
            raise BackupError(f"{self.name}: {MANIFEST} cannot be read: {problem.strerror}") from problem
        if digest_of(text) != self.digest:
            raise BackupError(f"{self.name}: {MANIFEST} is not the one that was written with it (its SHA-256 is not the name's)")
        try:
            manifest = Manifest.model_validate_json(text)
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_input=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise BackupError(f"{self.name}: {MANIFEST} is none of this program's: {key}: {first['msg']}") from problem
        if (manifest.kind, manifest.taken_at) != (self.kind, stamp(self.taken_ms)):
            raise BackupError(f"{self.name}: {MANIFEST} is of {manifest.kind}, {manifest.taken_at}, not of what the name says")
        return manifest


def digest_of(manifest: bytes) -> str:
    """The part of the name that stands for the manifest."""
    return hashlib.sha256(manifest).hexdigest()[:_DIGEST_CHARS]


def stamp(at_ms: int) -> str:
    """An instant as it stands in names: 20261125T190000.123Z."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y%m%dT%H%M%S") + f".{at_ms % 1000:03d}Z"


def named(path: Path) -> Backup | None:
    """The backup in that folder as far as its name says, None when that is no backup's name."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    try:
        at = datetime.strptime(found[2], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None
    kind = next(kind for kind in KINDS if kind == found[1])
    return Backup(path, kind, round(at.timestamp() * 1000), found[3])


def entries_of(folder: Path) -> dict[str, Entry]:
    """Every file below a folder, hashed."""
    return {path: entry_of(folder / path) for path in sorted(_paths(folder))}


def check_files(who: str, folder: Path, files: Mapping[str, Entry]) -> None:
    """Raises BackupError unless the folder holds exactly these files with exactly these bytes."""
    problems = [*_structure_problems(folder, files)] or [*_content_problems(folder, files)]
    if problems:
        more = f" (and {len(problems) - _TOLD} more)" if len(problems) > _TOLD else ""
        raise BackupError(f"{who}: {'; '.join(problems[:_TOLD])}{more}")


def check_file(who: str, file: Path, entry: Entry) -> None:
    """Raises BackupError unless the file holds exactly the bytes that were saved."""
    if file.is_symlink() or not file.is_file() or entry_of(file) != entry:
        raise BackupError(f"{who}: {file.name} is not what was saved")


def _structure_problems(folder: Path, files: Mapping[str, Entry]) -> Iterator[str]:
    there = _paths(folder)
    for path in sorted(there | files.keys()):
        if path not in there:
            yield f"{path} is missing"
        elif path not in files:
            yield f"{path} does not belong to it"
        elif (folder / path).is_symlink():
            yield f"{path} is a link"
        elif (size := (folder / path).stat().st_size) != files[path].size_bytes:
            yield f"{path} has {size} bytes, {files[path].size_bytes} were saved"


def _content_problems(folder: Path, files: Mapping[str, Entry]) -> Iterator[str]:
    for path, entry in files.items():
        if entry_of(folder / path) != entry:
            yield f"{path} is not what was saved (its SHA-256 differs)"


def _paths(folder: Path) -> set[str]:
    """Files and links, relative, with slashes; links to folders are not followed."""
    found = set()
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found |= {Path(root, name).relative_to(folder).as_posix() for name in (*files, *links)}
    return found


def entry_of(file: Path) -> Entry:
    """A file, hashed."""
    with file.open("rb") as reading:
        return Entry(sha256=hashlib.file_digest(reading, "sha256").hexdigest(), size_bytes=reading.tell())
