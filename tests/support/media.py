"""Recordings and pictures for tests. Those in the folder beside were made by ffmpeg and libsndfile:
two and a half seconds each; encoders of MP3 add up to a tenth of a second."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from pathlib import Path

RECORDINGS = Path(__file__).parent / "recordings"


def wav(seconds: float, rate: int = 8000) -> bytes:
    """Silence, 16 bits, one channel."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * round(rate * seconds)))
    return out.getvalue()


def size(png: bytes) -> tuple[int, int]:
    """Of a PNG whose chunks, check sums and pixels were looked at. Raises what is wrong."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        content = png[at + 4 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            content
        )
        chunks.append((content[:4], content[4:]))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *form = struct.unpack(">IIBBBBB", chunks[0][1])
    assert form == [8, 2, 0, 0, 0]
    pixels = zlib.decompress(chunks[1][1])
    assert len(pixels) == height * (1 + 3 * width)
    return width, height
