"""The cache over a restart: written to a file when the bridge stops, loaded when it starts."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.model import Frame, Statement
from app.policies import Guard
from app.policies.cache.answers import CachedFrame
from app.policies.cache.packing import pack, unpack
from app.policies.checked import misfit

_log = logging.getLogger(__name__)

_MAGIC = b"bridge-answers-1\n"
_DIGEST = 32
_LENGTH = struct.Struct("<I")
FILE = "answers.bin"


def save(folder: Path, guards: Mapping[str, Guard], oldest_ms: int) -> int:
    """Write the answers fetched since then; returns how many. The file is replaced atomically; only its owner may read it."""
    packed = [entry for guard in guards.values() for kept in guard.cache.answers
              if kept.asked_ms >= oldest_ms and (entry := _packed_entry(guard, kept)) is not None]  # fmt: skip
    body = b"".join(packed)
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{FILE}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_MAGIC + hashlib.sha256(body).digest() + body)
    new.replace(folder / FILE)
    return len(packed)


def load(folder: Path, guards: Mapping[str, Guard], oldest_ms: int) -> int:
    """Load the answers fetched since then from the file into the caches; returns how many.

    One log line reports a file that is damaged or does not fit.
    """
    file = folder / FILE
    try:
        found = list(_read_entries(file.read_bytes()))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as problem:
        _log.warning("the answers of the last run are ignored: %s: %s", file, problem)
        return 0
    loaded = 0
    for name, guard in guards.items():
        mine = [(statement, frame) for mark, statement, frame in found if mark == guard.fingerprint and statement.source == name]
        guard.cache.load(mine, oldest_ms)
        loaded += len(mine)
    return loaded


def _packed_entry(guard: Guard, kept: CachedFrame) -> bytes | None:
    """An answer as bytes for the file; None if it has texts that cannot be encoded."""
    try:
        packed = pack(kept.statement, kept.frame)
    except UnicodeEncodeError:
        return None
    mark = guard.fingerprint.encode()
    return _LENGTH.pack(len(mark)) + mark + _LENGTH.pack(len(packed)) + packed


def _read_entries(content: bytes) -> Iterator[tuple[str, Statement, Frame]]:
    """Fingerprint, statement and answer of each entry. Raises ValueError."""
    if not content.startswith(_MAGIC):
        raise ValueError("not a file of answers")
    digest, body = content[len(_MAGIC) : len(_MAGIC) + _DIGEST], content[len(_MAGIC) + _DIGEST :]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("damaged: its checksum does not match")
    position = 0
    while position < len(body):
        mark, position = _read_field(body, position)
        packed, position = _read_field(body, position)
        statement, frame = unpack(packed)
        problem = misfit(statement, frame)
        if problem is not None:
            raise ValueError(f"an answer does not fit its question: {problem}")
        yield mark.decode(), statement, frame


def _read_field(body: bytes, position: int) -> tuple[bytes, int]:
    begins = position + _LENGTH.size
    if begins > len(body):
        raise ValueError("damaged: it ends in the middle of an entry")
    ends = begins + _LENGTH.unpack_from(body, position)[0]
    return body[begins:ends], ends
