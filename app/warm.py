"""Answers over a restart: what is still worth showing is written when the bridge stops and loaded when it starts."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.model import Frame, Statement
from app.policies import Guard
from app.policies.packing import pack, unpack

_log = logging.getLogger(__name__)

_MAGIC = b"bridge-answers-1\n"
_DIGEST = 32
_LENGTH = struct.Struct("<I")
FILE = "answers.bin"


def save(folder: Path, guards: Mapping[str, Guard], oldest_ms: int) -> int:
    """Write the answers asked since then: how many. The file is replaced in one step; nobody else may read it."""
    packed = [_entry(guard, pack(kept.statement, kept.frame)) for guard in guards.values() for kept in guard.cache.answers
              if kept.frame.asked_ms >= oldest_ms]  # fmt: skip
    body = b"".join(packed)
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{FILE}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_MAGIC + hashlib.sha256(body).digest() + body)
    new.replace(folder / FILE)
    return len(packed)


def load(folder: Path, guards: Mapping[str, Guard]) -> int:
    """Give the caches what the file holds: how many answers. A damaged file is ignored with one log line."""
    file = folder / FILE
    try:
        found = list(_read(file.read_bytes()))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as problem:
        _log.warning("the answers of the last run are ignored: %s: %s", file, problem)
        return 0
    loaded = 0
    for name, guard in guards.items():
        mine = [(statement, frame) for mark, statement, frame in found if mark == guard.fingerprint and statement.source == name]
        guard.cache.load(mine)
        loaded += len(mine)
    return loaded


def _entry(guard: Guard, packed: bytes) -> bytes:
    mark = guard.fingerprint.encode()
    return _LENGTH.pack(len(mark)) + mark + _LENGTH.pack(len(packed)) + packed


def _read(content: bytes) -> Iterator[tuple[str, Statement, Frame]]:
    """(fingerprint, question, answer) of each entry. Raises ValueError."""
    if not content.startswith(_MAGIC):
        raise ValueError("not a file of answers")
    digest, body = content[len(_MAGIC) : len(_MAGIC) + _DIGEST], content[len(_MAGIC) + _DIGEST :]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("damaged: its checksum does not match")
    place = 0
    while place < len(body):
        mark, place = _piece(body, place)
        packed, place = _piece(body, place)
        yield mark.decode(), *unpack(packed)


def _piece(body: bytes, place: int) -> tuple[bytes, int]:
    begins = place + _LENGTH.size
    ends = begins + _LENGTH.unpack_from(body, place)[0]
    return body[begins:ends], ends
