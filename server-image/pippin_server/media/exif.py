"""Which way up a picture is shown, as cameras note it (Exif, tag 0x112). Pure."""

from __future__ import annotations

from collections.abc import Iterator

#: As it lies.
UPRIGHT = 1
#: The noted ways in which rows are shown as columns.
TURNED = frozenset(range(5, 9))
_TAG = 0x112
#: Segments, chunks and entries that are looked at.
_MOST = 1000


def orientation(content: bytes, kind: str) -> int:
    """1 to 8; what says nothing, or nonsense, is upright."""
    try:
        found = next((_noted(block) for block in _BLOCKS[kind](content)), UPRIGHT)
    except (KeyError, IndexError):
        return UPRIGHT
    return found if UPRIGHT <= found <= max(TURNED) else UPRIGHT


def _noted(tiff: bytes) -> int:
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return UPRIGHT

    def number(at: int, width: int) -> int:
        return int.from_bytes(tiff[at : at + width], "little" if order == "little" else "big")

    at = number(4, 4)
    for entry in range(min(number(at, 2), _MOST)):
        here = at + 2 + 12 * entry
        if number(here, 2) == _TAG:
            return number(here + 8, 2)
    return UPRIGHT


def _jpeg(content: bytes) -> Iterator[bytes]:
    at = 2
    for _ in range(_MOST):
        if content[at : at + 1] != b"\xff" or content[at + 1] == 0xDA:  # the picture itself
            return
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at + 1] == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            yield content[at + 10 : end]
        at = end


def _png(content: bytes) -> Iterator[bytes]:
    at = 8
    for _ in range(_MOST):
        if at + 8 > len(content):
            return
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"eXIf":
            yield content[at + 8 : end]
        at = end + 4


def _webp(content: bytes) -> Iterator[bytes]:
    at = 12
    for _ in range(_MOST):
        if at + 8 > len(content):
            return
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] == b"EXIF":
            yield content[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0")
        at += 8 + size + size % 2


_BLOCKS = {"jpeg": _jpeg, "png": _png, "webp": _webp}
