"""Ogg: pages with a clock; the last one tells how many samples there were. Vorbis and Opus."""

from __future__ import annotations

_PAGE = b"OggS"
#: Samples a second of Opus' clock, whatever was recorded.
_OPUS_HERTZ = 48000
#: A clock that has not begun.
_NO_TIME = 2**64 - 1
#: Pages of other streams that may stand behind the last one of the sound.
_MOST_PAGES = 1000


def matches(content: bytes) -> bool:
    return content[:4] == _PAGE


def seconds(content: bytes) -> float:
    """Raises ValueError for other codecs."""
    serial = content[14:18]
    packet = content[27 + content[26] :][:64]
    hertz, skipped = _clock(packet)
    return max(0, _last(content, serial) - skipped) / hertz


def _clock(packet: bytes) -> tuple[int, int]:
    """Ticks a second, and ticks before the sound begins, by the codec's first packet."""
    if packet[:8] == b"OpusHead":
        return _OPUS_HERTZ, int.from_bytes(packet[10:12], "little")
    if packet[:7] == b"\x01vorbis":
        return int.from_bytes(packet[12:16], "little"), 0
    raise ValueError("neither Vorbis nor Opus")


def _last(content: bytes, serial: bytes) -> int:
    """The clock of the stream's last page that has one."""
    end = len(content)
    for _ in range(_MOST_PAGES):
        at = content.rfind(_PAGE, 0, end)
        if at < 0:
            break
        time = int.from_bytes(content[at + 6 : at + 14], "little")
        if content[at + 14 : at + 18] == serial and time != _NO_TIME and at + 27 <= len(content):
            return time
        end = at
    return 0
