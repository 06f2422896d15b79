"""Recordings and pictures for tests. Those in the folder beside were made by ffmpeg and libsndfile:
two and a half seconds each; encoders of MP3 add up to a tenth of a second."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import av

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


def picture(pixels: Any, kind: str = "png") -> bytes:
    """A file of rows x columns x red, green, blue and perhaps how opaque. `kind`: FFmpeg's name."""
    high, wide, channels = pixels.shape
    frame: Any = av.VideoFrame.from_ndarray(pixels, format="rgba" if channels == 4 else "rgb24")
    with io.BytesIO() as out:
        name = {"png": "image2pipe", "mjpeg": "mjpeg", "webp": "webp"}[kind]
        with av.open(out, "w", format=name) as file:
            stream: Any = file.add_stream({"webp": "libwebp"}.get(kind, kind), rate=1)
            stream.width, stream.height = wide, high
            stream.pix_fmt = {"png": frame.format.name, "mjpeg": "yuvj444p", "webp": "bgra"}[kind]
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        return out.getvalue()


def pixels(png: bytes) -> Any:
    """Rows x columns x red, green and blue."""
    decoder: Any = av.CodecContext.create("png", "r")
    frames: list[Any] = [*decoder.decode(av.Packet(png)), *decoder.decode(None)]
    return frames[0].to_ndarray(format="rgb24")
