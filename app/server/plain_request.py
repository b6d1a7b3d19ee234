"""Reading one whole HTTP/1.1 request without a parser, where a look at the bytes is enough.

It reads less than the parser does, never more or otherwise: whatever is unusual is left to the parser.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FIRST_LINE = re.compile(rb"(?:GET|HEAD|POST|OPTIONS) (/[A-Za-z0-9/_.~-]*)(?:\?([!-\"$-~]*))? HTTP/1\.1\r\n")
#: The parser gives these a meaning beyond a head and a body of the stated length.
_SPECIAL_HEADERS = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection"))
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,8}")
_PRINTABLE = bytes(range(32, 127))
#: names of headers as they came -> in small letters; callers send the same few
_NAMES: dict[bytes, bytes] = {}
_MAX_NAMES = 1000


class PlainRequest(NamedTuple):
    """A request: its path, its query string, its headers by their names in small letters, its body."""

    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes


def read_plain_request(data: bytes) -> PlainRequest | None:
    """The bytes as exactly one plain request, head and body; None where only a parser can tell."""
    first = _FIRST_LINE.match(data)
    end = data.find(b"\r\n\r\n")
    if first is None or end < 0:
        return None
    head = data[first.end() : end]
    lines = head.split(b"\r\n")
    # No control character, no byte above ASCII, and no line end but these.
    if head.translate(None, _PRINTABLE) != b"\r\n" * (len(lines) - 1):
        return None
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        known = _NAMES.get(name) or _learn_name(name)
        if known is None or not colon:
            return None
        headers[known] = value.lstrip(b" ")
    # RFC 9112, 3.2: exactly one Host. Of any other header, too, two are left to the parser.
    if len(headers) < len(lines) or b"host" not in headers or not _SPECIAL_HEADERS.isdisjoint(headers):
        return None
    return PlainRequest(first[1], first[2] or b"", headers, data[end + 4 :]) if _is_whole(headers, len(data) - end - 4) else None


def _learn_name(name: bytes) -> bytes | None:
    """A header's name in small letters; None for what is no name, such as that of a folded line."""
    if _TOKEN.fullmatch(name) is None:
        return None
    small = name.lower()
    if len(_NAMES) < _MAX_NAMES:
        _NAMES[name] = small
    return small


def _is_whole(headers: dict[bytes, bytes], body_bytes: int) -> bool:
    """Whether the head announces a body of that length, and the connection stays open."""
    # Options may stand side by side: `close, TE` closes, too.
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return False
    stated = headers.get(b"content-length", b"0")
    return _LENGTH.fullmatch(stated) is not None and int(stated) == body_bytes
