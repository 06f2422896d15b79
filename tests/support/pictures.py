"""Pictures for tests, made and written here."""

from __future__ import annotations

import base64
import struct
from fractions import Fraction
from typing import Any

import av
import numpy

_CODECS = {"png": ("png", "rgb24"), "jpeg": ("mjpeg", "yuvj444p"), "gif": ("gif", "rgb8")}


def pixels(seed: int, width: int = 80, height: int = 48) -> Any:
    """Smooth, and of other colours for each seed."""
    numbers = numpy.random.default_rng(seed)
    down, across = numpy.mgrid[0:height, 0:width]
    waves = [
        numpy.sin(down * a / height + across * b / width + c)
        for a, b, c in numbers.uniform(-6, 6, (3, 3))
    ]
    return numpy.rint(127.5 + 127.5 * numpy.stack(waves, axis=-1)).astype(numpy.uint8)


def encoded(made: Any, kind: str = "png") -> bytes:
    """The file."""
    name, form = _CODECS[kind]
    codec: Any = av.CodecContext.create(name, "w")
    codec.width, codec.height, codec.pix_fmt = made.shape[1], made.shape[0], form
    codec.time_base = Fraction(1, 25)
    if kind == "jpeg":
        codec.options = {"qscale": "2"}
    frame = av.VideoFrame.from_ndarray(made, format="rgb24").reformat(format=form)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def png(seed: int, width: int = 80, height: int = 48) -> bytes:
    return encoded(pixels(seed, width, height))


def turned(jpeg: bytes, orientation: int) -> bytes:
    """With a camera's note in it."""
    entry = struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0)
    note = b"Exif\0\0" + b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + jpeg[2:]


def part(content: bytes, kind: str = "png", **more: str) -> dict[str, Any]:
    """Of a message, as OpenAI's clients send it."""
    url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url, **more}}


def asked(*parts: str | bytes) -> list[dict[str, Any]]:
    """A chat with one question, of words and PNGs."""
    shown = [part(one) if isinstance(one, bytes) else _words(one) for one in parts]
    return [{"role": "user", "content": shown}]


def _words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
