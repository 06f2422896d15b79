"""How large a picture is, by its first bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Picture(NamedTuple):
    """What a file is. Pixels."""

    kind: str
    width: int
    height: int


#: As people call them.
KINDS = ("png", "jpeg", "webp")
#: Of these the first picture is looked at.
MOVING = (*KINDS, "gif")


class Unreadable(ValueError):
    """The text completes "the file …"."""


def picture(content: bytes, kinds: Sequence[str] = KINDS) -> Picture:
    """Raises Unreadable."""
    for kind, mark, size in _KNOWN:
        if kind in kinds and content.startswith(mark[0]) and content[8:12].startswith(mark[1]):
            width, height = size(content)
            if not (width and height):
                raise Unreadable(f"is a damaged {kind}")
            return Picture(kind, width, height)
    raise Unreadable(f"is none of {', '.join(kinds)}")


def _png(content: bytes) -> tuple[int, int]:
    if content[12:16] != b"IHDR" or len(content) < 33:
        return 0, 0
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


#: The segments that tell the size: starts of frames, but not DHT, JPG and DAC among them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(content: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            height, width = content[at + 5 : at + 7], content[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        at += 2 + length
    return 0, 0


def _webp(content: bytes) -> tuple[int, int]:
    kind, body = content[12:16], content[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return _little(body[4:7]) + 1, _little(body[7:10]) + 1
    if kind == b"VP8L":
        bits = _little(body[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF


def _gif(content: bytes) -> tuple[int, int]:
    return _little(content[6:8]), _little(content[8:10])


def _little(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


_Row = tuple[str, tuple[bytes, bytes], Callable[[bytes], tuple[int, int]]]
_KNOWN: tuple[_Row, ...] = (
    ("png", (b"\x89PNG\r\n\x1a\n", b""), _png),
    ("jpeg", (b"\xff\xd8\xff", b""), _jpeg),
    ("webp", (b"RIFF", b"WEBP"), _webp),
    ("gif", (b"GIF8", b""), _gif),
)
