"""How long a recording lasts, by its container's own headers; nothing is decoded.

What a header claims is believed only as far as the file's bytes can bear it out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import frames, isobmff, ogg


class Sound(NamedTuple):
    """What a recording is."""

    container: str
    seconds: float


#: As people call them.
CONTAINERS = ("wav", "mp3", "flac", "m4a", "ogg")


class Unreadable(ValueError):
    """The text completes "the file …"."""


def sound(content: bytes) -> Sound:
    """Raises Unreadable."""
    for name, matches, seconds in _KNOWN:
        if matches(content):
            try:
                found = seconds(content)
            except (ValueError, IndexError, ZeroDivisionError) as error:
                raise Unreadable(f"is a damaged {name}") from error
            if not found > 0:
                raise Unreadable(f"is a {name} without any sound")
            return Sound(name, found)
    raise Unreadable(f"is none of {', '.join(CONTAINERS)}")


def _is_wav(content: bytes) -> bool:
    return content[:4] == b"RIFF" and content[8:12] == b"WAVE"


def _wav(content: bytes) -> float:
    """Bytes of sound over bytes a second. Writers into a pipe leave lengths open, so a piece of
    data ends with the file at the latest."""
    at, rate = 12, 0
    while at + 8 <= len(content):
        kind, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8
        if kind == b"fmt ":
            rate = int.from_bytes(content[at + 8 : at + 12], "little")
        elif kind == b"data":
            return min(size, len(content) - at) / rate
        at += size + size % 2
    return 0.0


def _is_flac(content: bytes) -> bool:
    return content[:4] == b"fLaC"


#: A block of so many samples takes this many bytes at least.
_FLAC_BLOCK_BYTES = 10


def _flac(content: bytes) -> float:
    """STREAMINFO, which comes first: the rate in 20 bits, the samples in 36."""
    info = content[8:42]
    if content[4] & 0x7F or len(info) < 34:
        raise ValueError("no STREAMINFO")
    packed = int.from_bytes(info[10:18], "big")
    rate, samples = packed >> 44, packed & (2**36 - 1)
    block = int.from_bytes(info[2:4], "big")
    if not samples or samples / block * _FLAC_BLOCK_BYTES > len(content) + block:
        raise ValueError("no count of samples, or more than there are bytes for")
    return samples / rate


_Row = tuple[str, Callable[[bytes], bool], Callable[[bytes], float]]
#: MP3 last: it has no mark of its own.
_KNOWN: tuple[_Row, ...] = (
    ("wav", _is_wav, _wav),
    ("flac", _is_flac, _flac),
    ("ogg", ogg.matches, ogg.seconds),
    ("m4a", isobmff.matches, isobmff.seconds),
    ("mp3", frames.matches, frames.seconds),
)
