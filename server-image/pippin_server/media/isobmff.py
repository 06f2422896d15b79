"""MPEG-4 (m4a, mp4): boxes in boxes; the movie's header tells its length."""

from __future__ import annotations

from collections.abc import Iterator

#: A file of so many boxes on one floor was not made by an encoder.
_MOST_BOXES = 10_000
#: Nor is there a fragment with so many samples.
_MOST_SAMPLES = 100_000


def matches(content: bytes) -> bool:
    return content[4:8] == b"ftyp"


def seconds(content: bytes) -> float:
    """The movie's length; of one in fragments that of all of them. Raises ValueError."""
    boxes = list(_boxes(content, 0, len(content)))
    at, end = _only(boxes, b"moov")
    movie = list(_boxes(content, at, end))
    scale, duration = _timed(content, *_only(movie, b"mvhd"), skip=2)
    if duration:
        return duration / scale
    if any(kind == b"mvex" for kind, _, _ in movie):
        return _in_fragments(content, boxes, movie)
    return 0.0


def _timed(content: bytes, at: int, end: int, *, skip: int) -> tuple[int, int]:
    """Scale and length of a header that has `skip` times before them; version 1 has long ones."""
    width = 8 if content[at] == 1 else 4
    scale_at = at + 4 + skip * width
    scale = int.from_bytes(content[scale_at : scale_at + 4], "big")
    duration = int.from_bytes(content[scale_at + 4 : scale_at + 4 + width], "big")
    if scale_at + 4 + width > end or not scale:
        raise ValueError("a header without times")
    return scale, 0 if duration == 2 ** (8 * width) - 1 else duration


_Box = tuple[bytes, int, int]


def _in_fragments(content: bytes, boxes: list[_Box], movie: list[_Box]) -> float:
    """As recorders in browsers write it: a sample's usual length, and how many there are."""
    track = list(_boxes(content, *_only(movie, b"trak")))
    scale, _ = _timed(content, *_only(_in(content, track, b"mdia"), b"mdhd"), skip=2)
    extends, _ = _only(_in(content, movie, b"mvex"), b"trex")
    usual = _number(content, extends + 12)
    total = 0
    for kind, at, end in boxes:
        if kind == b"moof":
            fragment = _in(content, list(_boxes(content, at, end)), b"traf")
            length = _usual(content, _only(fragment, b"tfhd")[0]) or usual
            total += sum(_run(content, run, length) for name, run, _ in fragment if name == b"trun")
    return total / scale


def _usual(content: bytes, at: int) -> int:
    """What a fragment's header says of its samples' length; 0: nothing."""
    flags = _number(content, at) & 0xFFFFFF
    before = 8 * bool(flags & 1) + 4 * bool(flags & 2)
    return _number(content, at + 8 + before) if flags & 8 else 0


def _run(content: bytes, at: int, usual: int) -> int:
    """The length of a run of samples, which may each tell their own, first of up to four words."""
    flags, count = _number(content, at) & 0xFFFFFF, _number(content, at + 4)
    if not flags & 0x100:
        return count * usual
    first = at + 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4)
    width = 4 * (flags >> 8 & 0xF).bit_count()
    return sum(_number(content, first + width * n) for n in range(min(count, _MOST_SAMPLES)))


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "big")


def _in(content: bytes, boxes: list[_Box], kind: bytes) -> list[_Box]:
    return list(_boxes(content, *_only(boxes, kind)))


def _only(boxes: list[_Box], wanted: bytes) -> tuple[int, int]:
    for kind, at, end in boxes:
        if kind == wanted:
            return at, end
    raise ValueError(f"no {wanted.decode()}")


def _boxes(content: bytes, at: int, end: int) -> Iterator[_Box]:
    """Kind, and where the content lies. Raises ValueError where boxes do not fit."""
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        size, kind, head = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = end - at
        if size < head:
            raise ValueError("a box that is smaller than its header")
        yield kind, at + head, min(at + size, end)
        at += size
