"""MPEG audio, layers 1 to 3: a row of frames, each with its own rate, counted one by one.

So the length is right with and without a header of the encoder's, at a constant and at a variable
rate, and when the file was cut short.
"""

from __future__ import annotations

from typing import NamedTuple

#: Kilobits a second by index, for MPEG 1 layers 1, 2, 3, and MPEG 2 layer 1, then 2 and 3.
_RATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = (44100, 48000, 32000)
#: Encoders' own headers, which lie in the first frame and make no sound.
_HEADERS = (b"Xing", b"Info", b"VBRI")
_HEADER_WITHIN = 64
#: A damaged frame is looked past for so many bytes.
_SEARCHED = 64 * 1024


class _Frame(NamedTuple):
    size: int
    seconds: float


def matches(content: bytes) -> bool:
    return content[:3] == b"ID3" or _frame(content, 0) is not None


def seconds(content: bytes) -> float:
    """All frames together."""
    at, total, first = _tag(content), 0.0, True
    while at + 4 <= len(content):
        frame = _frame(content, at)
        if frame is None:
            at = _next(content, at + 1)
            continue
        if at + frame.size > len(content):
            break
        beginning = content[at : at + _HEADER_WITHIN]
        if not (first and any(mark in beginning for mark in _HEADERS)):
            total += frame.seconds
        at, first = at + frame.size, False
    return total


def _tag(content: bytes) -> int:
    """Where an ID3v2 tag ends: its length has seven bits a byte."""
    if content[:3] != b"ID3":
        return 0
    size = 0
    for byte in content[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _frame(content: bytes, at: int) -> _Frame | None:
    """The frame that begins there."""
    if len(content) < at + 4 or content[at] != 0xFF or content[at + 1] & 0xE0 != 0xE0:
        return None
    one, two = content[at + 1], content[at + 2]
    version, layer = one >> 3 & 3, 4 - (one >> 1 & 3)
    rate, hertz, padding = two >> 4, two >> 2 & 3, two >> 1 & 1
    if version == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return None
    kind = 1 if version == 3 else 2
    bits = _RATES[kind, layer][rate - 1] * 1000
    frequency = _HERTZ[hertz] >> (3 - version if version else 2)
    samples = 384 if layer == 1 else 576 if (layer, kind) == (3, 2) else 1152
    slot = 4 if layer == 1 else 1
    size = (samples * bits // (8 * slot * frequency) + padding) * slot
    return _Frame(size, samples / frequency)


def _next(content: bytes, at: int) -> int:
    """Where the next frame begins that another follows; the end, when there is none near."""
    end = min(len(content), at + _SEARCHED)
    while 0 <= (at := content.find(b"\xff", at, end)):
        frame = _frame(content, at)
        if frame is not None and _frame(content, at + frame.size) is not None:
            return at
        at += 1
    return len(content)
