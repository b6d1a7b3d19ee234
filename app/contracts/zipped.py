"""A body compressed once whose end is another one each time: gzip (RFC 1952) of both, the end as it is in a stored block.

The first piece ends on a full flush, so what follows needs nothing of it but its checksum, which goes on counting.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

#: gzip, deflate, no name and no time, fastest, from an unknown system
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
#: of a stored block (RFC 1951, 3.2.4)
_MOST = 0xFFFF
_RAW = -15
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Zipped:
    """The first piece: compressed, its CRC-32, its length."""

    start: bytes
    crc: int
    length: int

    def followed(self, tail: bytes) -> bytes:
        """The whole, with this behind the first piece."""
        size = (self.length + len(tail)) & 0xFFFFFFFF
        return b"".join((self.start, *_stored(tail), struct.pack("<II", zlib.crc32(tail, self.crc), size)))


def compressed(start: bytes) -> Zipped:
    """The first piece, compressed."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    return Zipped(_HEAD + packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH), zlib.crc32(start), len(start))


def _stored(tail: bytes) -> list[bytes]:
    cuts = range(0, len(tail), _MOST) or (0,)
    pieces = [tail[first : first + _MOST] for first in cuts]
    last = len(pieces) - 1
    return [struct.pack("<BHH", place == last, len(piece), len(piece) ^ 0xFFFF) + piece for place, piece in enumerate(pieces)]
