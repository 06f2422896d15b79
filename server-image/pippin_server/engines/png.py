"""PNGs of 8 bits of red, green and blue, out of lines that are filtered already."""

from __future__ import annotations

import struct
import zlib

_MARK = b"\x89PNG\r\n\x1a\n"


def png(width: int, height: int, lines: bytes, level: int) -> bytes:
    """`lines`: of each row what it was filtered by, then the bytes; `level`: of compression."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(lines, level)
    return _MARK + _chunk(b"IHDR", head) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
