"""The manifest of a backup, and the check of its files against it.

A backup is a folder `<kind>-<UTC time>-<digest>`. The digest is the start of the manifest's SHA-256, and the manifest has the
SHA-256 of every file. So a name identifies every byte, and an incremental backup's base cannot be confused with another.
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

from app.documents.schema import Strict
from app.errors import BackupError

KindName = Literal["grafana", "clickhouse", "prometheus", "duckdb", "config"]
KINDS: tuple[KindName, ...] = ("grafana", "clickhouse", "prometheus", "duckdb", "config")
MANIFEST = "manifest.json"
#: the subfolder with a backup's own files
DATA = "data"
#: In a part only: the name of what was begun outside it, for the clean-up after a killed run.
OUTSIDE = "outside.txt"
_DIGEST_CHARS = 16
_NAME = re.compile(rf"({'|'.join(KINDS)})-(\d{{8}}T\d{{6}}\.\d{{3}})Z-([0-9a-f]{{{_DIGEST_CHARS}}})")
_TOLD = 3


def _path_inside(path: str) -> str:
    pure = PurePosixPath(path)
    wrong = not path or pure.is_absolute() or ".." in pure.parts or str(pure) != path or re.search(r"[\\:\x00-\x1f\x7f]", path)
    if wrong:
        raise ValueError(f"{path!r} is no path inside a backup")
    return path


class SavedFile(Strict):
    """Size and SHA-256 of a file when it was saved."""

    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Strict):
    """All facts about a backup."""

    format: Literal[1] = 1
    kind: KindName
    taken_at: str
    tool: str
    versions: dict[str, str]
    #: the backup without which this one cannot be restored
    base: str | None = None
    #: where the files are, if not in the backup's own folder
    place: dict[str, str] = Field(default_factory=dict)
    files: dict[Annotated[str, AfterValidator(_path_inside)], SavedFile]
    #: figures of a trial restore when it was taken; every later restore must give the same
    contents: dict[str, Any]
    left_out: tuple[str, ...] = ()

    @classmethod
    def create(cls, **values: Any) -> Manifest:
        """The manifest of a new backup. Raises BackupError for a file name that cannot be saved."""
        try:
            # pydantic would replace characters that are not UTF-8.
            for path in values["files"]:
                path.encode()
            return cls(**values)
        except UnicodeEncodeError as problem:
            name = f"files.{ascii(problem.object)[1:-1]}"
            raise BackupError(f"{values['kind']}: {name}: a name that is not UTF-8 cannot be saved") from problem
        except ValidationError as problem:
            raise BackupError(f"{values['kind']}: {_first_problem(problem)}") from problem

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(entry.size_bytes for entry in self.files.values())

    def to_bytes(self) -> bytes:
        """The manifest as its file contains it."""
        return self.model_dump_json(indent=1).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Backup:
    """One published backup: the facts in its name, and its manifest on demand."""

    path: Path
    kind: KindName
    taken_ms: int
    digest: str

    @property
    def name(self) -> str:
        """The folder's name, which is unique."""
        return self.path.name

    def manifest(self) -> Manifest:
        """Read the manifest. Raises BackupError if it is missing, was changed, or belongs to another backup."""
        try:
            text = (self.path / MANIFEST).read_bytes()
        except OSError as problem:
            raise BackupError(f"{self.name}: {MANIFEST} cannot be read: {problem.strerror}") from problem
        if digest_of(text) != self.digest:
            raise BackupError(f"{self.name}: {MANIFEST} is not the one that was written with it (its SHA-256 is not the name's)")
        try:
            manifest = Manifest.model_validate_json(text)
        except ValidationError as problem:
            raise BackupError(f"{self.name}: {MANIFEST} is none of this program's: {_first_problem(problem)}") from problem
        if (manifest.kind, manifest.taken_at) != (self.kind, time_stamp(self.taken_ms)):
            raise BackupError(f"{self.name}: {MANIFEST} is of {manifest.kind}, {manifest.taken_at}, not of what the name says")
        return manifest


def _first_problem(problem: ValidationError) -> str:
    """The first problem in one line of ASCII."""
    first = problem.errors(include_url=False, include_input=False)[0]
    key = ".".join(ascii(part)[1:-1] if isinstance(part, str) else str(part) for part in first["loc"])
    return f"{key}: {first['msg']}"


def digest_of(manifest: bytes) -> str:
    """The digest of the manifest, as in the backup's name."""
    return hashlib.sha256(manifest).hexdigest()[:_DIGEST_CHARS]


def time_stamp(at_ms: int) -> str:
    """An instant as in names: 20261125T190000.123Z."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y%m%dT%H%M%S") + f".{at_ms % 1000:03d}Z"


def backup_in(path: Path) -> Backup | None:
    """The backup in that folder, judged by its name only; None if it is no backup's name."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    try:
        at = datetime.strptime(found[2], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None
    kind = next(kind for kind in KINDS if kind == found[1])
    return Backup(path, kind, round(at.timestamp() * 1000), found[3])


def hash_files(folder: Path) -> dict[str, SavedFile]:
    """Size and SHA-256 of every file below a folder."""
    return {path: hash_file(folder / path) for path in sorted(_paths(folder))}


def check_files(who: str, folder: Path, files: Mapping[str, SavedFile]) -> None:
    """Raise BackupError unless the folder holds exactly these files with exactly these bytes."""
    problems = [*_structure_problems(folder, files)] or [*_content_problems(folder, files)]
    if problems:
        more = f" (and {len(problems) - _TOLD} more)" if len(problems) > _TOLD else ""
        raise BackupError(f"{who}: {'; '.join(problems[:_TOLD])}{more}")


def check_file(who: str, file: Path, entry: SavedFile) -> None:
    """Raise BackupError unless the file holds exactly the bytes that were saved."""
    if file.is_symlink() or not file.is_file() or hash_file(file) != entry:
        raise BackupError(f"{who}: {file.name} is not what was saved")


def _structure_problems(folder: Path, files: Mapping[str, SavedFile]) -> Iterator[str]:
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


def _content_problems(folder: Path, files: Mapping[str, SavedFile]) -> Iterator[str]:
    for path, entry in files.items():
        if hash_file(folder / path) != entry:
            yield f"{path} is not what was saved (its SHA-256 differs)"


def _paths(folder: Path) -> set[str]:
    """The relative paths of files and links, with slashes. Links to folders are not followed."""
    found = set()
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found |= {Path(root, name).relative_to(folder).as_posix() for name in (*files, *links)}
    return found


def hash_file(file: Path) -> SavedFile:
    """Size and SHA-256 of a file."""
    with file.open("rb") as reading:
        return SavedFile(sha256=hashlib.file_digest(reading, "sha256").hexdigest(), size_bytes=reading.tell())
