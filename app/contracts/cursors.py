"""Cursors: the window that all pages belong to, and the last row of the page before.

A page begins after a row, not after a number of rows. So rows that arrive late neither repeat a row nor drop one. A cursor
carries a fingerprint of its request and is refused for any other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Hashable
from dataclasses import dataclass

import msgspec
import orjson

from app.contracts.values import MOST_MS
from app.errors import BadQuery
from app.model import Labels
from app.responses.table import Position

_FINGERPRINT_CHARS = 16
_MOST_RANK = 10**9


class _Wire(msgspec.Struct, array_like=True):
    """What a cursor's text holds. `key` is absent where the series have no asked order, null where a series has no value."""

    mark: str
    from_ms: int
    to_ms: int
    time_ms: int
    rank: int
    labels: Labels
    key: float | None = 0.0


_decoder = msgspec.json.Decoder(_Wire)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The window (epoch ms), and the row after which the page begins."""

    from_ms: int
    to_ms: int
    after: Position


def request_fingerprint(*question: Hashable) -> str:
    """Equal for equal requests. Leave out what does not select rows, such as format and limit."""
    return hashlib.sha256(repr(question).encode("utf-8", "backslashreplace")).hexdigest()[:_FINGERPRINT_CHARS]


def write_cursor(mark: str, cursor: Cursor) -> str:
    """The cursor as text: letters, digits, `-` and `_`."""
    time_ms, rank, labels, key = cursor.after
    order = [key] if key else []  # infinity, of a series without a value, becomes null
    content = orjson.dumps([mark, cursor.from_ms, cursor.to_ms, time_ms, rank, labels, *order])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def read_cursor(text: str, mark: str) -> Cursor:
    """The cursor in a text. Raises BadQuery for any other text, and for a cursor whose fingerprint is not `mark`."""
    try:
        found = _decoder.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
        raise _foreign_cursor(text) from None
    after = Position(found.time_ms, found.rank, found.labels, math.inf if found.key is None else found.key)
    if not (0 <= found.from_ms <= found.to_ms <= MOST_MS and 0 <= after.time_ms <= MOST_MS and 0 <= after.rank <= _MOST_RANK):
        raise _foreign_cursor(text)
    if found.mark != mark:
        raise BadQuery(
            "cursor: it is of another question; allowed: the next_cursor of the page before, with all parameters as they were "
            "(limit, format and time may change)"
        )
    return Cursor(found.from_ms, found.to_ms, after)


def _foreign_cursor(text: str) -> BadQuery:
    return BadQuery(f"cursor: {text[:60]!r} is not one of ours; allowed: the next_cursor of the page before")
