"""A gzip body (RFC 1952) whose beginning is compressed once and whose end differs for each caller.

The beginning ends on a full flush. So the end needs nothing of it but its checksum, and is appended in stored blocks.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

#: gzip, deflate, no name and no time, fastest, from an unknown system
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
#: bytes of a stored block (RFC 1951, 3.2.4)
_BLOCK_BYTES = 0xFFFF
_RAW_DEFLATE = -15
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class GzipPrefix:
    """The beginning of a body: compressed, its CRC-32, its length."""

    compressed: bytes
    crc: int
    length: int

    def append(self, suffix: bytes) -> bytes:
        """The whole gzip body, with this end."""
        return self.compressed + self.render_end(suffix)

    def render_end(self, suffix: bytes) -> bytes:
        """What follows the compressed beginning where the body has this end."""
        size = (self.length + len(suffix)) & 0xFFFFFFFF
        return b"".join((*_stored_blocks(suffix), struct.pack("<II", zlib.crc32(suffix, self.crc), size)))


def compress_prefix(prefix: bytes) -> GzipPrefix:
    """Compress the beginning of a body."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    return GzipPrefix(_HEAD + packer.compress(prefix) + packer.flush(zlib.Z_FULL_FLUSH), zlib.crc32(prefix), len(prefix))


def _stored_blocks(text: bytes) -> list[bytes]:
    cuts = range(0, len(text), _BLOCK_BYTES) or (0,)
    blocks = [text[first : first + _BLOCK_BYTES] for first in cuts]
    last = len(blocks) - 1
    return [struct.pack("<BHH", index == last, len(block), len(block) ^ 0xFFFF) + block for index, block in enumerate(blocks)]
